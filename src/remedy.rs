//! What to do about an ability that a host refuses: the same words in every fault and in `doctor`.
//!
//! Which switch is off is read from /proc, so that the remedy is the one that helps. A remedy of several lines names
//! several ways, the one that fits this place best first.

use std::fs;

use rustix::io::Errno;

use crate::fault::why;

/// What keeps a process in a box of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `docker run`.
    Docker,
    /// `podman run`.
    Podman,
    /// A pod.
    Kubernetes,
}

/// The oldest kernel that has all that a run cannot do without.
pub const OLDEST: &str = "Linux 5.12";

/// What of a host decides which remedy helps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host {
    /// Debian's and hardened kernels' `kernel.unprivileged_userns_clone` is 0.
    pub unprivileged_off: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is on (Ubuntu), and we are not root.
    pub apparmor_restricts: bool,
    /// An AppArmor profile that enforces holds this process: docker-default and the like.
    pub apparmor_confined: bool,
    /// The limit among those of namespaces that is 0, by the name of its sysctl.
    pub none_allowed: Option<&'static str>,
    /// A seccomp filter holds this process.
    pub filtered: bool,
    /// What we are in, as far as it shows.
    pub engine: Option<Engine>,
}

impl Host {
    /// Reads a few small files. Only for one who has failed, or asks.
    pub fn read() -> Self {
        let is = |path: &str, wanted: &str| text(path).is_some_and(|text| text == wanted);
        let status = text("/proc/self/status").unwrap_or_default();
        Self {
            unprivileged_off: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            apparmor_restricts: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")
                && !rustix::process::geteuid().is_root(),
            apparmor_confined: text("/proc/self/attr/current")
                .is_some_and(|label| label.ends_with("(enforce)")),
            none_allowed: LIMITS
                .into_iter()
                .find(|name| is(&format!("/proc/sys/user/{name}"), "0")),
            filtered: status.lines().any(|line| line == "Seccomp:\t2"),
            engine: engine(),
        }
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// By what the engines leave in their containers.
fn engine() -> Option<Engine> {
    let there = |path: &str| fs::exists(path).unwrap_or(false);
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || there("/run/secrets/kubernetes.io")
        || there("/var/run/secrets/kubernetes.io")
    {
        Some(Engine::Kubernetes)
    } else if there("/run/.containerenv") {
        Some(Engine::Podman)
    } else if there("/.dockerenv") {
        Some(Engine::Docker)
    } else {
        None
    }
}

/// A remedy of several lines in the one line of a hint.
pub fn in_one_line(remedy: &str) -> String {
    remedy.lines().collect::<Vec<_>>().join("; or ")
}

/// The limits of the namespaces that one clone(2) makes, in the order in which one that is 0 tells most.
const LIMITS: [&str; 3] = ["max_user_namespaces", "max_mnt_namespaces", "max_pid_namespaces"];

/// Why a namespace cannot be made: what clone(2) says of a limit is true of disks.
pub fn why_no_namespace(errno: Errno, host: Host) -> String {
    match (errno, host.none_allowed) {
        (Errno::NOSPC | Errno::USERS, Some(name)) => format!("user.{name} is 0"),
        (Errno::NOSPC | Errno::USERS, None) => {
            "there are too many (user.max_user_namespaces)".to_owned()
        }
        _ => why(errno),
    }
}

/// A user namespace that cannot be made, for this error of clone(2) or unshare(2).
pub fn user_namespace(errno: Errno, host: Host) -> String {
    if let (Errno::NOSPC | Errno::USERS, Some(name)) = (errno, host.none_allowed) {
        return format!("as root: `sysctl -w user.{name}=15000`");
    }
    match errno {
        Errno::NOSPC | Errno::USERS => {
            "too many user namespaces, or more than 32 in one another: end some, or as root raise \
             `sysctl user.max_user_namespaces`"
                .to_owned()
        }
        Errno::NOSYS | Errno::INVAL => {
            "this needs a kernel with CONFIG_USER_NS; under gVisor or an old kernel use another host"
                .to_owned()
        }
        _ if host.unprivileged_off => {
            "as root: `sysctl -w kernel.unprivileged_userns_clone=1`".to_owned()
        }
        _ if host.apparmor_restricts => apparmor_profile(),
        _ => seccomp(host),
    }
}

/// A seccomp filter of a container or of a unit that has no namespaces and mounts.
pub fn seccomp(host: Host) -> String {
    let confined = if host.apparmor_confined { " --security-opt apparmor=unconfined" } else { "" };
    match host.engine {
        Some(Engine::Docker) => format!(
            "`docker run --security-opt seccomp=docker-nested.json{confined}` (`sandbox doctor --docker-profile` prints that file)\n\
             as root inside: `docker run --cap-add SYS_ADMIN{confined}`"
        ),
        Some(Engine::Podman) => format!(
            "`podman run --security-opt seccomp=docker-nested.json{confined}` (`sandbox doctor --docker-profile` prints that file)"
        ),
        Some(Engine::Kubernetes) => format!(
            "in the pod's securityContext: `seccompProfile: {{type: Unconfined}}`{}",
            if host.apparmor_confined { " and `appArmorProfile: {type: Unconfined}`" } else { "" }
        ),
        None if host.filtered => {
            "a seccomp filter forbids it: in a systemd unit drop `RestrictNamespaces=` and `SystemCallFilter=`; in a \
             container use `--security-opt seccomp=docker-nested.json` (`sandbox doctor --docker-profile`)"
                .to_owned()
        }
        None => "something forbids it: a security module, or a chroot around this process, in which nobody \
                 gets a user namespace"
            .to_owned(),
    }
}

/// AppArmor's restriction of user namespaces: the profile of profiles/apparmor/sandbox.
fn apparmor_profile() -> String {
    "AppArmor restricts user namespaces here: as root `printf 'abi <abi/4.0>,\\nprofile sandbox \
     /usr{/local,}/bin/sandbox flags=(unconfined) { userns, }\\n' >/etc/apparmor.d/sandbox && apparmor_parser -r \
     /etc/apparmor.d/sandbox`, with the program in one of these two places\n\
     as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
        .to_owned()
}

/// An id map that cannot be written.
pub fn id_map(host: Host) -> String {
    if host.apparmor_restricts {
        return apparmor_profile();
    }
    "start the container with `--cap-add SETUID --cap-add SETGID --cap-add SETFCAP`; mapping uid 0 needs \
     all three"
        .to_owned()
}

/// A call of the mount API, or an overlay, that is refused in a user namespace that could be made.
pub fn mounts(errno: Errno, host: Host) -> String {
    match errno {
        _ if host.apparmor_restricts => apparmor_profile(),
        Errno::ACCESS => match host.engine {
            Some(Engine::Podman) => "`podman run --security-opt apparmor=unconfined`".to_owned(),
            Some(Engine::Kubernetes) => {
                "in the pod's securityContext: `appArmorProfile: {type: Unconfined}`".to_owned()
            }
            _ => "a security module forbids mounts: `docker run --security-opt apparmor=unconfined`; with SELinux \
                  `--security-opt label=disable`"
                .to_owned(),
        },
        Errno::NODEV => "as root: `modprobe overlay`".to_owned(),
        Errno::PERM | Errno::NOSYS if host.filtered => seccomp(host),
        Errno::PERM => format!("{OLDEST} or newer: the overlay in a user namespace (5.11) and mount_setattr (5.12)"),
        Errno::NOSYS => format!("{OLDEST} or newer"),
        _ => format!("a base directory on ext4, xfs, btrfs or tmpfs, and {OLDEST} or newer"),
    }
}

/// A root that cannot be switched by pivot_root(2).
pub fn pivot_root(host: Host) -> String {
    match host.engine {
        Some(Engine::Podman | Engine::Kubernetes) => seccomp(host),
        _ => "`docker run --security-opt seccomp=docker-nested.json` (`sandbox doctor --docker-profile` prints \
              that file)"
            .to_owned(),
    }
}

/// A masked /proc.
pub fn proc(host: Host) -> String {
    match host.engine {
        Some(Engine::Podman) => "`podman run --security-opt unmask=ALL`".to_owned(),
        Some(Engine::Kubernetes) => {
            "in the container's securityContext: `procMount: Unmasked`, with `hostUsers: false` in the pod"
                .to_owned()
        }
        Some(Engine::Docker) => "`docker run --security-opt systempaths=unconfined`".to_owned(),
        None => "something is mounted over a part of /proc: unmount it; in a container: `docker run --security-opt \
                 systempaths=unconfined`, `podman run --security-opt unmask=ALL`"
            .to_owned(),
    }
}

/// A base directory on a file system that cannot hold an upper. A container, too, may have another one already.
pub fn base_dir(place: &str, host: Host) -> String {
    let other = "a directory of another file system with --base-dir: a local disk (ext4, xfs, btrfs) or a tmpfs";
    match host.engine {
        Some(Engine::Docker) => format!("a volume: `docker run -v sandbox:{place}`\n{other}"),
        Some(Engine::Podman) => format!("a volume: `podman run -v sandbox:{place}`\n{other}"),
        Some(Engine::Kubernetes) => {
            format!("an emptyDir or another volume, with `mountPath: {place}`\n{other}")
        }
        None => format!("{other}; in a container a volume (`docker run -v VOLUME:PLACE`)"),
    }
}

/// Namespaces of IPC and of the host name that cannot be made, where a user namespace can.
pub fn other_namespaces(errno: Errno, host: Host) -> String {
    match errno {
        Errno::NOSPC | Errno::USERS => {
            "as root: `sysctl -w user.max_ipc_namespaces=15000 user.max_uts_namespaces=15000`"
                .to_owned()
        }
        other => user_namespace(other, host),
    }
}

/// A network namespace that cannot be made, where a user namespace can.
pub fn network(errno: Errno, host: Host) -> String {
    match errno {
        Errno::NOSPC | Errno::USERS => {
            "as root: `sysctl -w user.max_net_namespaces=15000`; or use --net host".to_owned()
        }
        other => user_namespace(other, host),
    }
}

/// A cgroup in which limits could be set.
pub fn cgroup(host: Host) -> String {
    match host.engine {
        Some(Engine::Docker) => "limits for the whole container: `docker run --memory M --pids-limit N --cpus C`".to_owned(),
        Some(Engine::Podman) => "limits for the whole container: `podman run --memory M --pids-limit N --cpus C`".to_owned(),
        Some(Engine::Kubernetes) => "limits for the whole container: `resources: {limits: ...}` of the pod".to_owned(),
        None => "cgroup v2 with a part of it delegated: `systemd-run --user --scope -p Delegate=yes sandbox ...`".to_owned(),
    }
}

/// /dev/net/tun.
pub fn tun(host: Host) -> String {
    match host.engine {
        Some(Engine::Docker) => "`docker run --device /dev/net/tun`".to_owned(),
        Some(Engine::Podman) => "`podman run --device /dev/net/tun`".to_owned(),
        Some(Engine::Kubernetes) => {
            "a hostPath volume of type CharDevice at /dev/net/tun".to_owned()
        }
        None => "as root: `modprobe tun`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(engine: Engine) -> Host {
        Host { engine: Some(engine), filtered: true, ..Host::default() }
    }

    #[test]
    fn a_refused_namespace_has_the_remedy_that_helps() {
        let plain = Host::default();
        let docker = of(Engine::Docker);
        let both = Host { apparmor_confined: true, ..docker };
        for (errno, host, part) in [
            (Errno::PERM, docker, "docker run --security-opt seccomp=docker-nested.json`"),
            (Errno::PERM, docker, "docker run --cap-add SYS_ADMIN`"),
            (Errno::PERM, both, "SYS_ADMIN --security-opt apparmor=unconfined"),
            (Errno::PERM, of(Engine::Podman), "podman run --security-opt seccomp="),
            (Errno::PERM, of(Engine::Kubernetes), "seccompProfile: {type: Unconfined}"),
            (Errno::PERM, Host { filtered: true, ..plain }, "RestrictNamespaces="),
            (Errno::PERM, plain, "chroot"),
            (Errno::PERM, Host { unprivileged_off: true, ..plain }, "unprivileged_userns_clone=1"),
            (Errno::PERM, Host { apparmor_restricts: true, ..plain }, "/etc/apparmor.d/sandbox"),
            (Errno::ACCESS, Host { apparmor_restricts: true, ..plain }, "userns, }"),
            (
                Errno::NOSPC,
                Host { none_allowed: Some("max_pid_namespaces"), ..plain },
                "max_pid_namespaces=15000",
            ),
            (Errno::NOSPC, plain, "32"),
            (Errno::INVAL, plain, "CONFIG_USER_NS"),
        ] {
            let text = user_namespace(errno, host);
            assert!(text.contains(part), "{errno:?} {host:?}: {text}");
        }
    }

    #[test]
    fn what_comes_later_is_told_apart_too() {
        let plain = Host::default();
        let docker = of(Engine::Docker);
        for (text, part) in [
            (mounts(Errno::ACCESS, docker), "apparmor=unconfined"),
            (mounts(Errno::PERM, docker), "seccomp=docker-nested.json"),
            (mounts(Errno::PERM, plain), "Linux 5.12 or newer"),
            (mounts(Errno::NODEV, plain), "modprobe overlay"),
            (proc(docker), "systempaths=unconfined"),
            (proc(of(Engine::Podman)), "unmask=ALL"),
            (proc(of(Engine::Kubernetes)), "procMount: Unmasked"),
            (base_dir("/s", docker), "docker run -v sandbox:/s"),
            (base_dir("/s", of(Engine::Kubernetes)), "mountPath: /s"),
            (base_dir("/s", docker), "--base-dir"),
            (base_dir("/s", plain), "a directory of another file system with --base-dir"),
            (network(Errno::NOSPC, plain), "max_net_namespaces"),
            (id_map(plain), "SETFCAP"),
            (pivot_root(plain), "docker-nested.json"),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn where_apparmor_restricts_it_is_the_profile_whatever_fails_first() {
        // Ubuntu 23.10 refuses the namespace; 24.04 lets it be made and takes its capabilities, so that the id map or a
        // mount is what fails.
        let host = Host { apparmor_restricts: true, ..Host::default() };
        let shipped = include_str!("../profiles/apparmor/sandbox");
        for text in [
            user_namespace(Errno::ACCESS, host),
            user_namespace(Errno::PERM, host),
            id_map(host),
            mounts(Errno::PERM, host),
            mounts(Errno::ACCESS, host),
        ] {
            for part in [
                "abi <abi/4.0>,",
                "profile sandbox /usr{/local,}/bin/sandbox flags=(unconfined) {",
                "userns,",
            ] {
                assert!(text.contains(part) && shipped.contains(part), "{part}: {text}");
            }
            assert!(text.ends_with("`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"));
        }
    }

    #[test]
    fn a_hint_is_one_line() {
        let text = in_one_line(&user_namespace(Errno::PERM, of(Engine::Docker)));
        assert!(!text.contains('\n') && text.contains("; or as root inside"), "{text}");
    }
}
