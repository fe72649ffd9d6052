//! What to do about an ability that a host refuses: the same words in every fault and in `doctor`.
//!
//! Which switch is off is read from /proc, so that the remedy is the one that helps. A remedy of several lines names
//! several ways, the one that fits this place best first.

mod host;

use rustix::io::Errno;

pub use self::host::{Engine, Host, NEST, Spaces};
use crate::fault::{Context, Fault, Result, quoted, why};

/// The oldest kernel that has all that a run cannot do without.
pub const OLDEST: &str = "Linux 5.12";

/// What works on a store that cannot be written to.
pub const IN_MEMORY: &str = "the store as it is: `run --upper tmpfs`, which keeps nothing";

/// A remedy of several lines in the one line of a hint.
pub fn in_one_line(remedy: &str) -> String {
    remedy.lines().collect::<Vec<_>>().join("; or ")
}

/// And back again.
pub fn in_lines(hint: &str) -> String {
    hint.replace("; or ", "\n")
}

/// Whether what was refused is a namespace of these kinds of which there may be none, or no more.
fn is_limit(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::USERS)
}

/// Why a namespace that is one of these cannot be made: what clone(2) says of a limit is true of disks.
pub fn why_no_namespace(errno: Errno, spaces: Spaces, host: Host) -> String {
    match host.none_allowed.and(spaces).limits().next() {
        _ if host.no_proc && errno == Errno::NOENT => "there is no /proc".to_owned(),
        Some(name) if is_limit(errno) => format!("user.{name} is 0"),
        None if is_limit(errno) => {
            // Of those of birth it is nearly always the first.
            let most = if spaces == Spaces::OF_BIRTH { 1 } else { usize::MAX };
            let names = spaces.limits().take(most).map(|name| format!("user.{name}"));
            format!("there are too many ({})", names.collect::<Vec<_>>().join(", "))
        }
        _ => why(errno),
    }
}

/// Namespaces that cannot be made, for this error of clone(2) or unshare(2). Of which kind it is, if one alone is refused,
/// these calls do not tell; those of which there may be none do.
pub fn namespaces(errno: Errno, spaces: Spaces, host: Host) -> String {
    // The others would be next. A limit of a namespace around ours does not show.
    let raised = match host.none_allowed.and(spaces).limits().next() {
        Some(_) => Some(host.none_allowed),
        None => Some(spaces).filter(|spaces| *spaces != Spaces::OF_BIRTH),
    };
    if let Some(raised) = raised.filter(|_| is_limit(errno)) {
        let all = raised.limits().map(|name| format!(" user.{name}=15000"));
        return format!("as root: `sysctl -w{}`", all.collect::<String>());
    }
    if let Some(remedy) = before_all(host) {
        return remedy;
    }
    match errno {
        Errno::NOSPC | Errno::USERS => {
            "too many user namespaces, or more than 32 in one another: end some, or as root raise \
             `sysctl user.max_user_namespaces`"
                .to_owned()
        }
        _ if errno == Errno::INVAL || errno == Errno::NOSYS && !host.filtered => {
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

/// A user namespace that cannot be made, or one of those that a run is born into together with it.
pub fn user_namespace(errno: Errno, host: Host) -> String {
    namespaces(errno, Spaces::OF_BIRTH, host)
}

/// What nothing works without, whatever fails first.
fn before_all(host: Host) -> Option<String> {
    if host.no_proc {
        return Some(
            "/proc is not mounted here, or not that of this process: as root `mount -t proc proc /proc`; for a chroot \
             before it is entered"
                .to_owned(),
        );
    }
    host.in_run.then(|| {
        "this is inside a run of sandbox, which allows no other in it: start the run around this one with `--nest`"
            .to_owned()
    })
}

/// A seccomp filter of a container or of a unit that has no namespaces and mounts.
pub fn seccomp(host: Host) -> String {
    if let Some(remedy) = before_all(host) {
        return remedy;
    }
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
    if let Some(remedy) = before_all(host) {
        return remedy;
    }
    if host.apparmor_restricts {
        return apparmor_profile();
    }
    "start the container with `--cap-add SETUID --cap-add SETGID --cap-add SETFCAP`; mapping uid 0 needs \
     all three"
        .to_owned()
}

/// A call of the mount API, or an overlay, that is refused in a user namespace that could be made.
pub fn mounts(errno: Errno, host: Host) -> String {
    if let Some(remedy) = before_all(host) {
        return remedy;
    }
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
    if let Some(remedy) = before_all(host) {
        return remedy;
    }
    match host.engine {
        Some(Engine::Podman | Engine::Kubernetes) => seccomp(host),
        _ => "`docker run --security-opt seccomp=docker-nested.json` (`sandbox doctor --docker-profile` prints \
              that file)"
            .to_owned(),
    }
}

/// A masked /proc.
pub fn proc(host: Host) -> String {
    if let Some(remedy) = before_all(host) {
        return remedy;
    }
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
    if let Some(remedy) = before_all(host).filter(|_| host.in_run) {
        return remedy;
    }
    let other = "a directory of another file system with --base-dir: a local disk (ext4, xfs, btrfs) or a tmpfs";
    let volume = quoted(&format!("sandbox:{place}"));
    match host.engine {
        Some(Engine::Docker) => format!("a volume: `docker run -v {volume}`\n{other}"),
        Some(Engine::Podman) => format!("a volume: `podman run -v {volume}`\n{other}"),
        Some(Engine::Kubernetes) => {
            format!("an emptyDir or another volume, with `mountPath: {place}`\n{other}")
        }
        None => format!("{other}; in a container a volume (`docker run -v VOLUME:PLACE`)"),
    }
}

/// A network namespace that cannot be made, where a user namespace can.
pub fn network(errno: Errno, host: Host) -> String {
    let remedy = namespaces(errno, Spaces::NETWORK, host);
    if is_limit(errno) { format!("{remedy}; or use --net host") } else { remedy }
}

/// The filter of a run that the kernel, or somebody, does not let us load.
pub fn filter(errno: Errno, host: Host) -> String {
    match errno {
        Errno::INVAL => "a kernel with CONFIG_SECCOMP_FILTER".to_owned(),
        Errno::NOSYS if !host.filtered => "a kernel with CONFIG_SECCOMP_FILTER".to_owned(),
        _ => seccomp(host),
    }
}

/// A system call that was tried for a job: that it is refused is said of the host, with what to do about it.
pub trait Refused<T> {
    /// As [`Context::context`], of a mount.
    ///
    /// # Errors
    /// The fault of it.
    fn mounting(self, what: &str, on: &str) -> Result<T>;

    /// As [`Context::context`], of any other call that only a filter refuses.
    ///
    /// # Errors
    /// The fault of it.
    fn calling(self, what: &str, on: &str) -> Result<T>;

    /// As [`Context::context`], of a call that makes namespaces of these kinds.
    ///
    /// # Errors
    /// The fault of it.
    fn making(self, spaces: Spaces, what: &str, on: &str) -> Result<T>;
}

impl<T> Refused<T> for Result<T, Errno> {
    fn mounting(self, what: &str, on: &str) -> Result<T> {
        self.or_else(|errno| match errno {
            Errno::NODEV | Errno::PERM | Errno::ACCESS | Errno::NOSYS => {
                Err(refused(what, on, errno, &mounts(errno, Host::read())))
            }
            _ => Err(errno).context(what, on),
        })
    }

    fn calling(self, what: &str, on: &str) -> Result<T> {
        self.or_else(|errno| match errno {
            Errno::PERM | Errno::NOSYS => Err(refused(what, on, errno, &seccomp(Host::read()))),
            _ => Err(errno).context(what, on),
        })
    }

    fn making(self, spaces: Spaces, what: &str, on: &str) -> Result<T> {
        self.map_err(|errno| {
            let host = Host::read();
            let why = why_no_namespace(errno, spaces, host);
            let remedy = in_one_line(&namespaces(errno, spaces, host));
            Fault::host(format!("{what}: {on}: {why}")).of(errno).hint(remedy)
        })
    }
}

fn refused(what: &str, on: &str, errno: Errno, remedy: &str) -> Fault {
    Fault::host(format!("{what}: {on}: {}", why(errno))).of(errno).hint(in_one_line(remedy))
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
mod tests;
