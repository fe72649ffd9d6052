//! Where a cgroup of our own can be made: cgroup v2, in a subtree that this caller may write to.
//!
//! Looked for from the caller's own cgroup upwards. A cgroup above ours that the caller may write to is the
//! common ancestor that the kernel asks for when a process is moved, so one beside our own will do. Only
//! root of the hierarchy may have processes and controllers for its children at the same time (cgroups(7),
//! "no internal processes"); our own cgroup otherwise serves if nobody but us is in it: then we move to a leaf
//! for as long as the run takes. Nobody else is ever moved, and no service manager is asked.
//!
//! [`find`] only reads; [`live::Cgroup`] makes, kills and removes.

pub mod live;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::lost::Lost;

/// What a cgroup limits. Nothing is limited where it is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes of memory of all processes, page cache and files in memory included; no swap beside it.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processor time, in microseconds for each 100 ms.
    pub cpu_quota: Option<u64>,
}

/// A place for a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The cgroup beneath which ours is made.
    parent: PathBuf,
    /// The controllers among the wanted ones that ours will have.
    controllers: Vec<&'static str>,
    /// Those that are still to be turned on.
    enable: Vec<&'static str>,
    /// Whether we are in `parent` and have to step into a leaf first.
    leaf: bool,
}

impl Wanted {
    fn controllers(&self) -> Vec<&'static str> {
        let all = [
            ("memory", self.memory.is_some()),
            ("pids", self.pids.is_some()),
            ("cpu", self.cpu_quota.is_some()),
        ];
        all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Place {
    /// Whether a cgroup here limits this: `memory`, `pids` or `cpu`.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains(&controller)
    }
}

/// Finds the place with most of what is wanted, the nearest one first; what it lacks is lost, and so is all
/// where there is none.
pub fn find(wanted: &Wanted) -> (Option<Place>, Vec<Lost>) {
    let (place, lost, _) = find_or_errno(wanted);
    (place, lost)
}

/// The same, and what the kernel said, if it is that which left no place.
pub fn find_or_errno(wanted: &Wanted) -> (Option<Place>, Vec<Lost>, Option<Errno>) {
    let names = wanted.controllers();
    let (place, reason, errno) = match own().and_then(|(own, top)| search(&names, &own, &top)) {
        Ok(place) => {
            (Some(place), "the cgroup that may be used lacks this controller".to_owned(), None)
        }
        Err(Nowhere { reason, errno }) => (None, reason, errno),
    };
    let missing = |name: &&&str| place.as_ref().is_none_or(|place| !place.has(name));
    let shown = |name| if name == "cpu" { "cpus" } else { name };
    let lost =
        names.iter().filter(missing).map(|name| Lost::new(shown(name), reason.clone())).collect();
    (place, lost, errno)
}

/// Why there is no place.
#[derive(Debug)]
struct Nowhere {
    reason: String,
    errno: Option<Errno>,
}

impl From<String> for Nowhere {
    fn from(reason: String) -> Self {
        Self { reason, errno: None }
    }
}

/// Our own cgroup as a directory, and the top of what is mounted.
fn own() -> Result<(PathBuf, PathBuf), Nowhere> {
    let read = |path| {
        fs::read_to_string(path).map_err(|error| Nowhere {
            reason: format!("{path} cannot be read"),
            errno: Errno::from_io_error(&error),
        })
    };
    Ok(locate(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?)
}

/// The same from the text of the two files.
///
/// # Errors
/// The reason why there is none.
pub fn locate(cgroups: &str, mounts: &str) -> Result<(PathBuf, PathBuf), String> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.ok_or("cgroup v2 is not there")?;
    if path.split('/').any(|part| part == "..") {
        return Err("our own cgroup lies outside of what this container sees".to_owned());
    }
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        if after.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let fields: Vec<&str> = before.split(' ').collect();
        let (Some(root), Some(point)) = (fields.get(3), fields.get(4)) else { continue };
        // A path that is none would take what is joined to it somewhere else.
        if !root.starts_with('/') || !point.starts_with('/') {
            continue;
        }
        let Ok(rest) = Path::new(path).strip_prefix(root) else { continue };
        let point = PathBuf::from(unescape(point));
        let own = if rest.as_os_str().is_empty() { point.clone() } else { point.join(rest) };
        return Ok((own, point));
    }
    Err("cgroup v2 is not mounted".to_owned())
}

/// A path of mountinfo, where blanks and backslashes are octal (proc(5)).
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn search(names: &[&'static str], own: &Path, top: &Path) -> Result<Place, Nowhere> {
    let mut best: Option<Place> = None;
    let mut crowded = None;
    for parent in own.ancestors().take_while(|path| path.starts_with(top)) {
        if !writable(parent) {
            continue;
        }
        match look(names, parent, parent == own) {
            Look::Place(place) => {
                let most = best.as_ref().map_or(0, |best| best.controllers.len());
                if place.controllers.len() > most {
                    best = Some(place);
                }
            }
            Look::Crowded => crowded = crowded.or(Some(parent)),
            Look::Nothing => {}
        }
    }
    best.ok_or_else(|| match crowded {
        Some(path) => Nowhere::from(format!(
            "the cgroup {} is ours, but other processes are in it: start sandbox alone there, or move them to a cgroup beneath",
            path.display()
        )),
        None if !words(top, "cgroup.controllers").iter().any(|word| names.contains(&word.as_str())) => {
            "cgroup v2 has no such controller here (it is off, or used by cgroup v1)".to_owned().into()
        }
        None => Nowhere {
            reason: "there is no cgroup that this user may write to; one comes with `systemd-run --user --scope -p Delegate=yes sandbox ...`".to_owned(),
            errno: may_write(own).err(),
        },
    })
}

fn writable(cgroup: &Path) -> bool {
    may_write(cgroup).is_ok()
}

fn may_write(cgroup: &Path) -> Result<(), Errno> {
    access(cgroup, Access::WRITE_OK)?;
    access(cgroup.join("cgroup.procs"), Access::WRITE_OK)
}

enum Look {
    Place(Place),
    /// It would do, if it were not for its processes.
    Crowded,
    Nothing,
}

fn look(names: &[&'static str], parent: &Path, ours: bool) -> Look {
    let kind = fs::read_to_string(parent.join("cgroup.type"));
    // The root of the hierarchy alone has no type; and threads cannot be in a cgroup of their own memory.
    let root = kind.is_err();
    if kind.is_ok_and(|kind| kind.trim() != "domain") {
        return Look::Nothing;
    }
    let (there, on) =
        (words(parent, "cgroup.controllers"), words(parent, "cgroup.subtree_control"));
    let in_list = |list: &[String], name: &str| list.iter().any(|word| word == name);
    let mut controllers: Vec<_> =
        names.iter().copied().filter(|name| in_list(&there, name)).collect();
    let mut enable: Vec<_> =
        controllers.iter().copied().filter(|name| !in_list(&on, name)).collect();
    let mut leaf = false;
    if !enable.is_empty() {
        let may = access(parent.join("cgroup.subtree_control"), Access::WRITE_OK).is_ok();
        let inside = words(parent, "cgroup.procs");
        leaf = may && !root && ours && inside == [std::process::id().to_string()];
        if !may || !(root || leaf || inside.is_empty()) {
            if may && controllers.len() == enable.len() {
                return Look::Crowded;
            }
            controllers.retain(|name| !enable.contains(name));
            enable.clear();
        }
    }
    if controllers.is_empty() {
        return Look::Nothing;
    }
    Look::Place(Place { parent: parent.to_owned(), controllers, enable, leaf })
}

fn words(cgroup: &Path, file: &str) -> Vec<String> {
    let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
#[path = "cgroup/tests.rs"]
mod tests;
