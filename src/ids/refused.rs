//! Why the kernel refuses a user namespace or its map.

use rustix::io::Errno;

use crate::fault::{Fault, Kind, why};
use crate::remedy::{self, Host, Spaces};

/// The fault of a clone(2) or unshare(2) with CLONE_NEWUSER that said `errno`: kind host, with the remedy
/// that fits the settings of this machine.
/// What has run out is no refusal: kind failed.
pub fn namespace_refused(errno: Errno) -> Fault {
    if let Some(fault) = run_out("make a user namespace: this host", errno) {
        return fault;
    }
    let host = Host::read();
    Fault::host(format!(
        "make a user namespace: this host: {}",
        remedy::why_no_namespace(errno, Spaces::OF_BIRTH, host)
    ))
    .of(errno)
    .hint(remedy::in_one_line(&remedy::user_namespace(errno, host)))
}

/// The fault of what has run out, and may be there at another time; none for any other errno.
pub(super) fn run_out(what: &str, errno: Errno) -> Option<Fault> {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM).then(|| {
        Fault::failed(format!("{what}: {}", why(errno)))
            .of(errno)
            .hint("end other programs, or raise the limit (`ulimit -a`)")
    })
}

/// The fault of a step that is refused for good, with kind host; of one that failed for another reason.
pub(super) fn step_refused(what: &str, on: &str, errno: Errno) -> Fault {
    let fault = Fault::errno(what, on, errno);
    match errno {
        Errno::PERM | Errno::ACCESS | Errno::NOENT | Errno::NOEXEC => {
            Fault { kind: Kind::Host, ..fault }
        }
        _ => run_out(&format!("{what}: {on}"), errno).unwrap_or(fault),
    }
}

/// As [`namespace_refused`], for a write to `uid_map`, `gid_map` or `setgroups`; `file` says to which.
pub(super) fn map_refused(file: &str, errno: Errno) -> Fault {
    let what = format!("write the id map of a user namespace: {file}");
    if let Some(fault) = run_out(&what, errno) {
        return fault;
    }
    let fault = Fault::host(format!("{what}: {}", why(errno))).of(errno);
    if errno == Errno::ROFS {
        // The sandbox around this one could have no /proc of its own, and has bound that of its container.
        return fault.hint(remedy::in_one_line(&remedy::proc(Host::read())));
    }
    fault.hint(remedy::in_one_line(&remedy::id_map(Host::read())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_run_out_is_no_refusal() {
        assert_eq!(namespace_refused(Errno::MFILE).kind, Kind::Failed);
        assert_eq!(namespace_refused(Errno::PERM).kind, Kind::Host);
        assert_eq!(step_refused("run", "x", Errno::MFILE).kind, Kind::Failed);
        assert_eq!(step_refused("run", "x", Errno::ACCESS).kind, Kind::Host);
        assert!(map_refused("/proc/self/uid_map", Errno::PERM).hint.is_some());
    }
}
