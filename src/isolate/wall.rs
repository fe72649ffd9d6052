//! Landlock around the command: what holds if a descriptor that leads out of its root gets in all the same, left open by a
//! mistake of ours or handed over by somebody outside.
//!
//! Who is in a Landlock domain of files can mount nothing, and who is in any looks into no process that is not in it. So there
//! is none around files where the calls that mount are allowed (`--nest`, `--seccomp none`), nor where ptrace is (dev, unless it
//! is in a domain for its network's sake already), nor around what joins by `exec`: it would see nothing of the others.
//!
//! Landlock is about opening, making, moving, removing and executing. With a directory of the host in hand a command can still
//! look at names, modes and times, change those that its user may change, and connect to a unix socket (its version 9 is
//! about these); and truncate(2) passes before version 3 (Linux 6.2).

use super::lost::Lost;
use super::vital::{Call, refuses};
use crate::sys::landlock::{MOVES, SCOPES};

/// The walls of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wall {
    /// The version of Landlock's interface that keeps it to the files of its root and the descriptors it was given; 0 if
    /// nothing does.
    pub files: u32,
    /// Whether abstract unix sockets of others are out of reach.
    pub sockets: bool,
}

/// What nobody in a domain can do, whatever else is allowed.
const MOUNTS: [Call; 3] = [
    ("mount", libc::SYS_mount),
    ("move_mount", libc::SYS_move_mount),
    ("pivot_root", libc::SYS_pivot_root),
];
const PTRACE: Call = ("ptrace", libc::SYS_ptrace);

impl Wall {
    /// The walls of a command with this seccomp program, where Landlock is of this `version`; and what cannot be had of
    /// them. A network of its own has its own abstract sockets.
    pub fn plan(program: &[u8], own_network: bool, version: u32) -> (Self, Vec<Lost>) {
        let mut lost = Vec::new();
        let sockets = !own_network && version >= SCOPES;
        let around = MOUNTS.iter().all(|call| refuses(program, *call))
            && (sockets || refuses(program, PTRACE));
        if around && version < MOVES {
            let why = "nothing but the missing way there keeps the command from files outside: no Landlock here that \
                       lets files be moved (Linux 5.19)";
            lost.push(Lost::new("landlock", why));
        }
        if !own_network && version < SCOPES {
            let why = "those of the host can be reached in its network: no Landlock scopes here (Linux 6.12)";
            lost.push(Lost::new("abstract sockets", why));
        }
        let files = if around && version >= MOVES { version } else { 0 };
        (Self { files, sockets }, lost)
    }

    /// Whether there is any.
    pub fn stands(self) -> bool {
        self.files > 0 || self.sockets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolate::profile::Profile;
    use crate::isolate::seccomp::{Request, compiled};

    fn plan(profile: &str, nesting: bool, own_network: bool, version: u32) -> (Wall, Vec<String>) {
        let mut profile = Profile::builtin(profile).expect("built in");
        if nesting {
            profile = profile.around_nest();
        }
        let request = Request { nesting, ..Request::default() };
        let program = compiled(&profile, &request).expect("compiles");
        let (wall, lost) = Wall::plan(&program, own_network, version);
        (wall, lost.into_iter().map(|one| one.protection.to_owned()).collect())
    }

    #[test]
    fn it_stands_where_nothing_has_to_pass() {
        let none = Wall::default();
        for profile in ["build", "strict"] {
            assert_eq!(plan(profile, false, true, 7), (Wall { files: 7, sockets: false }, vec![]));
            assert_eq!(plan(profile, false, true, 1), (none, vec!["landlock".into()]));
        }
        assert_eq!(plan("build", false, false, 2).0, Wall { files: 2, sockets: false });
        assert_eq!(plan("build", false, false, 6).0, Wall { files: 6, sockets: true });
        assert_eq!(plan("build", true, true, 7), (none, vec![]));
        assert_eq!(plan("dev", false, false, 7).0, Wall { files: 7, sockets: true });
        assert_eq!(plan("dev", false, true, 7), (none, vec![]));
        assert_eq!(plan("dev", false, false, 0), (none, vec!["abstract sockets".into()]));
    }
}
