//! What this machine can do, by trying it.

use std::path::Path;

use rustix::io::Errno;
use serde::Serialize;

use crate::fault::{Fault, Result};
use crate::ids::{self, Entry, IdMap, Mode, Powers};
use crate::remedy::{self, Host};

mod age;
mod calls;
mod probes;
mod trial;

use probes::Scratch;

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Probe {
    /// What was tried.
    pub name: &'static str,
    /// Whether it worked.
    pub ok: bool,
    /// Whether no run works without it.
    #[serde(skip)]
    pub needed: bool,
    /// What was found, or what is lost without it.
    pub detail: String,
    /// The name of the error: `EPERM`.
    pub errno: Option<String>,
    /// What to do about it; several lines are several ways.
    pub remedy: Option<String>,
}

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// In the order of a start.
    pub probes: Vec<Probe>,
    /// The map that a new box would get.
    pub id_map: Option<IdMap>,
    /// The best way to mount an overlay that works: `fd`, `fd-attached`, `lowerdir+` or `mount`.
    pub overlay: Option<String>,
    /// `fresh`, `bound` or `none`.
    pub proc: &'static str,
}

impl Findings {
    /// Whether a run would work.
    pub fn works(&self) -> bool {
        self.probes.iter().all(|probe| probe.ok || !probe.needed)
    }
}

/// Tries everything that a run needs. `base_dir` need not exist; nothing stays of what is made for a try.
///
/// # Errors
/// Only if a child cannot be made at all.
pub fn doctor(base_dir: &Path) -> Result<Findings> {
    let host = Host::read();
    let mut all = vec![calls::kernel(), age::fixes(), probes::user_namespace(host)?];
    if !all.iter().all(|probe| probe.ok || probe.name != "user-namespace") {
        let (probe, _) = probes::base_dir(base_dir, host);
        all.push(probe);
        // What else is wrong shows when that is mended: everything needs a user namespace.
        all.extend(["id-map", "overlay", "proc", "network", "run"].map(not_tried));
        return Ok(Findings { probes: all, id_map: None, overlay: None, proc: "none" });
    }
    all.push(probes::namespaces(host)?);
    all.push(calls::clone3());
    let id_map = ids::choose(None).ok();
    all.push(sub_ids(id_map.as_ref()));
    all.push(id_mode(id_map.as_ref()));
    let mount_api = calls::mount_api(host)?;
    let (place, scratch) = probes::base_dir(base_dir, host);
    let (probe, overlay) = probes::overlay(scratch.as_ref().map(Scratch::dir), &place, host)?;
    let trial = trial::run(scratch.as_ref(), &place, id_map.as_ref())?;
    let in_memory = calls::upper_in_memory()?;
    let (proc_probe, proc) = probes::proc(host)?;
    let mounts = [probe, in_memory, proc_probe, probes::pivot_root(host)?];
    let mounts = mounts.map(|probe| for_want_of(&mount_api, probe));
    all.extend([mount_api, place]);
    all.extend(mounts);
    all.push(probes::seccomp(host)?);
    all.push(probes::network(host)?);
    all.extend([
        calls::tun(host),
        calls::network_program(),
        calls::landlock(),
        calls::cgroup(host),
        trial,
    ]);
    Ok(Findings { probes: all, id_map, overlay, proc })
}

/// What cannot be had without a call of the mount API that is refused is no other thing to mend.
fn for_want_of(mount_api: &Probe, probe: Probe) -> Probe {
    let refused = |probe: &Probe| matches!(probe.errno.as_deref(), Some("EPERM" | "ENOSYS"));
    match !mount_api.ok && refused(&probe) && refused(mount_api) {
        true => Probe { remedy: mount_api.remedy.clone(), ..probe },
        false => probe,
    }
}

fn not_tried(name: &'static str) -> Probe {
    let detail = "not tried: needs a user namespace".to_owned();
    Probe { name, ok: false, needed: true, detail, errno: None, remedy: None }
}

/// Sub-ids by really making the map: both helpers start.
fn sub_ids(best: Option<&IdMap>) -> Probe {
    if let Some(best) = best.filter(|map| matches!(map.mode, Mode::Range | Mode::Identity)) {
        return Probe {
            name: "sub-ids",
            ok: true,
            needed: false,
            detail: format!("not needed: {} has many ids without them", best.mode),
            errno: None,
            remedy: None,
        };
    }
    let tried = ids::choose(Some(Mode::Subuid)).and_then(|map| {
        ids::inside(Entry::Map(&map), Powers::Files, || Ok(()))?;
        Ok(map.uids.iter().map(|extent| u64::from(extent.count)).sum::<u64>())
    });
    match tried {
        Ok(count) => Probe {
            name: "sub-ids",
            ok: true,
            needed: false,
            detail: format!("{count} user ids; owners inside are true"),
            errno: None,
            remedy: None,
        },
        Err(fault) => Probe {
            name: "sub-ids",
            ok: false,
            needed: false,
            detail: format!("{}; other owners are remembered beside the files", fault.message),
            errno: errno_of(&fault),
            remedy: fault.hint.as_deref().map(remedy::in_lines),
        },
    }
}

fn id_mode(map: Option<&IdMap>) -> Probe {
    let tried = match map {
        Some(map) => ids::inside(Entry::Map(map), Powers::Files, || Ok(()))
            .map(|()| format!("{} is what a new box gets", map.mode)),
        None => ids::choose(None).map(|map| map.mode.to_string()),
    };
    let (ok, detail, errno, remedy) = match tried {
        Ok(detail) => (true, detail, None, None),
        Err(fault) => {
            let errno = errno_of(&fault);
            (false, fault.message, errno, fault.hint.as_deref().map(remedy::in_lines))
        }
    };
    Probe { name: "id-map", ok, needed: true, detail, errno, remedy }
}

fn errno_of(fault: &Fault) -> Option<String> {
    fault.errno.map(Errno::from_raw_os_error).map(probes::name_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_kernel_has_a_name() {
        assert_eq!(errno_of(&ids::namespace_refused(Errno::NOSPC)).as_deref(), Some("ENOSPC"));
        assert_eq!(
            errno_of(&Fault::errno("write", "a map", Errno::PERM)).as_deref(),
            Some("EPERM")
        );
        assert_eq!(errno_of(&Fault::host("no such program")), None);
    }
}
