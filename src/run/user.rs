//! Who the payload is: `--user`, and its look-up in the layers' own passwd and group.
//!
//! Parsing is strict (CVE-2026-30892): digits are a number below 2^32-1, anything else is a name. Names are
//! read inside, after the root switch, from a regular file of at most 1 MiB, without blocking (a layer may
//! have a FIFO or a 10 GiB file there: CVE-2024-9676).

use std::fmt::{self, Display};
use std::io::Read;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, openat};
use rustix::io::Errno;

use super::spec::RunSpec;
use super::wire::{Failure, Stage};
use crate::fault::{Fault, Result, printable};
use crate::rootfs::account::HOME;

/// A user or group by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

/// `USER[:GROUP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub user: Who,
    /// The group, if it was named; the user's own otherwise.
    pub group: Option<Who>,
}

impl Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

/// A user with all its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The user's id inside.
    pub uid: u32,
    /// The group's id inside.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The name, if the user has an entry.
    pub name: Option<String>,
    /// The home directory, if the user has an entry.
    pub home: Option<String>,
}

/// What of the way to a user failed: the `detail` of a [`Stage::User`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To become that user.
    Change,
    /// The passwd inside.
    Passwd,
    /// The group inside.
    Group,
    /// The number of the user in the passwd.
    Uid,
    /// The number of the group, in the passwd or the group.
    Gid,
}

impl Part {
    const ALL: [Self; 5] = [Self::Change, Self::Passwd, Self::Group, Self::Uid, Self::Gid];

    /// The one of this detail.
    pub fn of(detail: u32) -> Self {
        Self::ALL.get(detail as usize).copied().unwrap_or(Self::Change)
    }

    /// The failure of this part.
    pub fn failed(self) -> impl Fn(Errno) -> Failure {
        move |errno| Failure { stage: Stage::User, detail: self as u32, errno }
    }
}

/// Reads `USER[:GROUP]`.
///
/// # Errors
/// A usage fault for an empty, negative, too large or twice divided one.
pub fn parse(text: &str) -> Result<User> {
    let bad = |why: &str| {
        Fault::usage(format!("user: {}: {why}", printable(text)))
            .hint("give NAME, UID, NAME:GROUP or UID:GID")
    };
    let mut parts = text.split(':');
    let user = who(parts.next().unwrap_or_default()).map_err(&bad)?;
    let group = parts.next().map(who).transpose().map_err(&bad)?;
    if parts.next().is_some() {
        return Err(bad("more than one `:`"));
    }
    Ok(User { user, group })
}

fn who(text: &str) -> Result<Who, &'static str> {
    let Some(first) = text.chars().next() else { return Err("empty") };
    if first.is_ascii_digit() {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("neither a number nor a name");
        }
        return id(text).map(Who::Id).ok_or("out of range");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if first == '-' || !text.chars().all(allowed) || text.len() > 256 {
        return Err("not a name");
    }
    Ok(Who::Name(text.to_owned()))
}

/// Looks a user up in /etc/passwd and /etc/group of the root that the process is in.
///
/// # Errors
/// ENOENT for a name that is not there, EINVAL for an id that is none, otherwise what opening the files says; each with
/// the [`Part`] that it is about.
pub fn resolve(user: &User) -> std::result::Result<Resolved, Failure> {
    look_up(user, read("/etc/passwd"), || read("/etc/group"))
}

/// Finds the home of an ordinary user in the root that the process is in, and has it begin there, if it does. One that
/// it cannot write to is none: of an account without its directory, or in a root that is read-only.
///
/// # Errors
/// As [`resolve`].
pub fn settle(spec: &mut RunSpec) -> std::result::Result<(), Failure> {
    let (Some(ordinary), Some(user)) = (&mut spec.ordinary, &spec.user) else { return Ok(()) };
    let found = resolve(user)?;
    let of_account = found.home.as_deref().unwrap_or(HOME);
    let home = [of_account, HOME].into_iter().find(|home| is_home(home, &found));
    let home = PathBuf::from(home.unwrap_or("/tmp"));
    if ordinary.at_home {
        spec.workdir.clone_from(&home);
    }
    ordinary.home = Some(home);
    Ok(())
}

/// Whether a user can write to this directory. By its mode, because we may do more than he will.
fn is_home(path: &str, user: &Resolved) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = openat(CWD, path, flags, Mode::empty()) else { return false };
    let (Ok(stat), Ok(system)) = (fstat(&dir), fstatvfs(&dir)) else { return false };
    let needed = match () {
        () if stat.st_uid == user.uid => 0o700,
        () if stat.st_gid == user.gid => 0o070,
        () => 0o007,
    };
    stat.st_mode & needed == needed && !system.f_flag.contains(StatVfsMountFlags::RDONLY)
}

/// The same in the text of the two files, which may be anything.
///
/// # Errors
/// As [`resolve`].
pub fn look_up(
    user: &User,
    passwd: std::result::Result<String, Errno>,
    group: impl FnOnce() -> std::result::Result<String, Errno>,
) -> std::result::Result<Resolved, Failure> {
    let absent = |part: Part| part.failed()(Errno::NOENT);
    let (uid, entry) = match &user.user {
        Who::Id(uid) => (*uid, passwd.ok().and_then(|text| find(&text, 2, &uid.to_string()))),
        Who::Name(name) => {
            let passwd = passwd.map_err(Part::Passwd.failed())?;
            let entry = find(&passwd, 0, name).ok_or_else(|| absent(Part::Passwd))?;
            (number(&entry, 2).map_err(Part::Uid.failed())?, Some(entry))
        }
    };
    let group = group();
    let gid_of = |entry: &[String], field| number(entry, field).map_err(Part::Gid.failed());
    let gid = match &user.group {
        Some(Who::Id(gid)) => *gid,
        Some(Who::Name(name)) => {
            let text = group.as_ref().map_err(|errno| Part::Group.failed()(*errno))?;
            gid_of(&find(text, 0, name).ok_or_else(|| absent(Part::Group))?, 2)?
        }
        None => entry.as_ref().map_or(Ok(uid), |entry| gid_of(entry, 3))?,
    };
    // Naming a group means that group alone, as with podman.
    let groups = match (&user.group, &entry, group) {
        (None, Some(entry), Ok(text)) => memberships(&text, &entry[0]),
        _ => Vec::new(),
    };
    let name = entry.as_ref().and_then(|entry| entry.first().cloned());
    let home = entry.and_then(|entry| entry.get(5).filter(|home| home.starts_with('/')).cloned());
    Ok(Resolved { uid, gid, groups, name, home })
}

const LIMIT: u64 = 1 << 20;

fn read(path: &str) -> std::result::Result<String, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(file).take(LIMIT + 1);
    file.read_to_end(&mut bytes).map_err(|_| Errno::IO)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Errno::FBIG);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find(text: &str, field: usize, wanted: &str) -> Option<Vec<String>> {
    text.lines()
        .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
        .find(|entry| entry.len() >= 3 && entry.get(field).is_some_and(|value| value == wanted))
}

fn number(entry: &[String], field: usize) -> std::result::Result<u32, Errno> {
    entry.get(field).and_then(|text| id(text)).ok_or(Errno::INVAL)
}

/// An id: digits only, for the parser of the standard library takes `+0`, too. Never 2^32-1, which setresuid(2) takes for
/// "leave it as it is": as root.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).filter(|id| *id != u32::MAX)
}

fn memberships(group: &str, name: &str) -> Vec<u32> {
    group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let members = fields.get(3)?;
            members.split(',').any(|member| member == name).then(|| id(fields[2]))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clear_is_taken() {
        let ok = |text: &str| parse(text).expect(text);
        assert_eq!(ok("0"), User { user: Who::Id(0), group: None });
        assert_eq!(ok("33:mail").group, Some(Who::Name("mail".into())));
        assert_eq!(ok("www-data").user, Who::Name("www-data".into()));
        for text in ["", "-1", "0x0", "4294967295", "4294967296", "1:2:3", ":", "1:", ":1", "a b"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_entry_without_a_clear_number_is_nobody() {
        let named = |text: &str| parse(text).expect(text);
        let look = |user: &str, line: &str| {
            let passwd = format!("{line}\n");
            look_up(&named(user), Ok(passwd), || Ok("odd:x:+0:\nmail:x:8:bob\n".to_owned()))
        };
        let failed = |part: Part, errno| Err(part.failed()(errno));
        for uid in ["+0", "-0", "0x0", "", " 0", "0 ", "\u{661}", "4294967295", "4294967296"] {
            let line = format!("evil:x:{uid}:5::/:");
            assert_eq!(look("evil", &line), failed(Part::Uid, Errno::INVAL), "{uid:?}");
            let line = format!("evil:x:5:{uid}::/:");
            assert_eq!(look("evil", &line), failed(Part::Gid, Errno::INVAL), "{uid:?}");
        }
        let bob = "bob:x:5:6::/:";
        assert_eq!(look("bob:odd", bob), failed(Part::Gid, Errno::INVAL));
        assert_eq!(look("bob:none", bob), failed(Part::Group, Errno::NOENT));
        assert_eq!(look("ann", bob), failed(Part::Passwd, Errno::NOENT));
        assert_eq!(look("bob", bob).map(|found| (found.uid, found.gid)), Ok((5, 6)));
        assert!(memberships("root:x:+0:bob\n", "bob").is_empty());
        let fifo = look_up(&named("bob"), Err(Errno::INVAL), || Ok(String::new()));
        assert_eq!(fifo, failed(Part::Passwd, Errno::INVAL));
        for part in Part::ALL {
            assert_eq!(Part::of(part as u32), part);
        }
    }

    #[test]
    fn groups_are_read_from_the_member_list() {
        let text = "root:x:0:\nmail:x:8:a,bob\nnews:x:9:bob\nbroken\n";
        assert_eq!(memberships(text, "bob"), [8, 9]);
        assert!(memberships(text, "root").is_empty());
        assert!(memberships("all:x:4294967295:bob\n", "bob").is_empty());
        assert!(number(&["bob".into(), "x".into(), "4294967295".into()], 2).is_err());
        assert_eq!(find(text, 0, "mail").expect("mail")[2], "8");
    }
}
