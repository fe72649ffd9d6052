//! What to do about an ability that this machine does not give.

use std::fs;

use rustix::io::Errno;
use rustix::process::geteuid;

/// User namespaces: the switch that is off is looked for, so that the remedy is the one that helps.
pub(super) fn user_namespace(errno: Errno) -> String {
    if setting("kernel/unprivileged_userns_clone") == Some(0) {
        return "sysctl -w kernel.unprivileged_userns_clone=1".to_owned();
    }
    if setting("user/max_user_namespaces") == Some(0) || errno == Errno::NOSPC {
        return "sysctl -w user.max_user_namespaces=15000 (or fewer than 32 levels of nesting)"
            .to_owned();
    }
    if let Some(text) = apparmor() {
        return text;
    }
    if container() {
        return "docker run --security-opt seccomp=unconfined\n\
                where AppArmor is on: also --security-opt apparmor=unconfined"
            .to_owned();
    }
    "allow user namespaces: a seccomp filter or a systemd unit (RestrictNamespaces=) refuses them"
        .to_owned()
}

/// Mounts in a user namespace, when making one worked.
pub(super) fn mounts(errno: Errno) -> String {
    if let Some(text) = apparmor() {
        return text;
    }
    match errno {
        Errno::ACCESS if container() => "docker run --security-opt apparmor=unconfined".to_owned(),
        Errno::PERM if container() => "docker run --cap-add SYS_ADMIN".to_owned(),
        Errno::NODEV => "modprobe overlay".to_owned(),
        _ => "Linux 5.12 or newer, and a base directory on ext4, xfs, btrfs or tmpfs".to_owned(),
    }
}

/// Sub-ids: for the caller's own name.
pub(super) fn sub_ids() -> String {
    let name = std::env::var("USER").unwrap_or_else(|_| geteuid().as_raw().to_string());
    format!(
        "install newuidmap and newgidmap (package uidmap or shadow-utils), then as root:\n\
         usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
    )
}

/// A base directory that cannot be an upper.
pub(super) fn base_dir() -> String {
    match container() {
        true => {
            "docker run -v sandbox:/var/lib/sandbox (a volume), and --base-dir there".to_owned()
        }
        false => "--base-dir on ext4, xfs, btrfs or tmpfs, in a place you can write to".to_owned(),
    }
}

/// /proc that is masked from outside.
pub(super) fn proc() -> String {
    "docker run --security-opt systempaths=unconfined; podman run --security-opt unmask=ALL"
        .to_owned()
}

/// pivot_root refused by a container's filter.
pub(super) fn pivot_root() -> String {
    "docker run --security-opt seccomp=unconfined".to_owned()
}

/// Network namespaces.
pub(super) fn network(errno: Errno) -> String {
    match errno {
        Errno::NOSPC => "sysctl -w user.max_net_namespaces=15000".to_owned(),
        other => user_namespace(other),
    }
}

/// Ubuntu's and others' restriction: the namespace is made, but everything in it is refused.
fn apparmor() -> Option<String> {
    (setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) && !geteuid().is_root()).then(|| {
        "an AppArmor profile in /etc/apparmor.d/sandbox: \
         `profile sandbox /usr/bin/sandbox flags=(unconfined) { userns, }`, then apparmor_parser -r on it\n\
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            .to_owned()
    })
}

fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

/// Whether this looks like the inside of a container: the files that docker and podman leave there.
fn container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|path| fs::exists(path).unwrap_or(false))
}
