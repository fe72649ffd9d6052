//! Why the kernel refuses a user namespace or its map, and what to do about it.

use rustix::io::Errno;

use crate::fault::{Fault, why};

/// The switches that make a kernel refuse.
#[derive(Debug, Default, Clone, Copy)]
struct Switches {
    /// Debian's and hardened kernels' `kernel.unprivileged_userns_clone` is 0.
    unprivileged_off: bool,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns` is on.
    apparmor: bool,
    /// `user.max_user_namespaces` is 0.
    none_allowed: bool,
}

impl Switches {
    fn read() -> Self {
        let value =
            |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
        let is = |path, wanted: &str| value(path).is_some_and(|text| text == wanted);
        Self {
            unprivileged_off: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            apparmor: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            none_allowed: is("/proc/sys/user/max_user_namespaces", "0"),
        }
    }
}

/// The fault of a clone(2) or unshare(2) with CLONE_NEWUSER that said `errno`: kind host, with the remedy
/// that fits the settings of this machine.
/// What has run out is no refusal: kind failed.
pub fn namespace_refused(errno: Errno) -> Fault {
    if let Some(fault) = run_out("make a user namespace: this host", errno) {
        return fault;
    }
    Fault::host(format!("make a user namespace: this host: {}", why(errno)))
        .hint(remedy(errno, Switches::read()))
}

fn run_out(what: &str, errno: Errno) -> Option<Fault> {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM).then(|| {
        Fault::failed(format!("{what}: {}", why(errno)))
            .hint("end other programs, or raise the limit (`ulimit -a`)")
    })
}

/// The same for a write to `uid_map`, `gid_map` or `setgroups`; `file` says to which.
pub(super) fn map_refused(file: &str, errno: Errno) -> Fault {
    let what = format!("write the id map of a user namespace: {file}");
    if let Some(fault) = run_out(&what, errno) {
        return fault;
    }
    Fault::host(format!("{what}: {}", why(errno))).hint(map_remedy(Switches::read()))
}

fn remedy(errno: Errno, switches: Switches) -> String {
    match errno {
        Errno::NOSPC | Errno::USERS if switches.none_allowed => {
            "as root: `sysctl -w user.max_user_namespaces=15000`".to_owned()
        }
        Errno::NOSPC | Errno::USERS => {
            "too many user namespaces, or more than 32 in one another: end some, or as root raise \
             `sysctl user.max_user_namespaces`"
                .to_owned()
        }
        Errno::NOSYS | Errno::INVAL => {
            "this needs a kernel with CONFIG_USER_NS; under gVisor or an old kernel use another host"
                .to_owned()
        }
        _ if switches.unprivileged_off => {
            "as root: `sysctl -w kernel.unprivileged_userns_clone=1`".to_owned()
        }
        _ if switches.apparmor => apparmor(),
        _ => "a filter forbids it: in Docker start the container with `--security-opt \
              seccomp=unconfined`; in a systemd unit drop `RestrictNamespaces=`; in a chroot there are none"
            .to_owned(),
    }
}

fn map_remedy(switches: Switches) -> String {
    if switches.apparmor {
        return apparmor();
    }
    "start the container with `--cap-add SETUID --cap-add SETGID --cap-add SETFCAP`; mapping uid 0 needs \
     all three"
        .to_owned()
}

fn apparmor() -> String {
    "AppArmor restricts user namespaces here: as root install the profile of the program in \
     /etc/apparmor.d, or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_remedy() {
        let plain = Switches::default();
        let off = Switches { unprivileged_off: true, ..plain };
        let apparmor = Switches { apparmor: true, ..plain };
        let none = Switches { none_allowed: true, ..plain };
        for (errno, switches, part) in [
            (Errno::PERM, plain, "seccomp=unconfined"),
            (Errno::PERM, off, "unprivileged_userns_clone=1"),
            (Errno::PERM, apparmor, "AppArmor"),
            (Errno::ACCESS, apparmor, "AppArmor"),
            (Errno::NOSPC, none, "max_user_namespaces=15000"),
            (Errno::NOSPC, plain, "32"),
            (Errno::INVAL, plain, "CONFIG_USER_NS"),
        ] {
            let text = remedy(errno, switches);
            assert!(text.contains(part), "{errno:?} {switches:?}: {text}");
        }
        assert_eq!(namespace_refused(Errno::MFILE).kind, crate::fault::Kind::Failed);
        assert_eq!(namespace_refused(Errno::PERM).kind, crate::fault::Kind::Host);
        assert!(map_remedy(plain).contains("SETFCAP"));
        assert!(map_remedy(apparmor).contains("AppArmor"));
    }
}
