//! What of a host decides which remedy helps, read from /proc.

use std::fs;

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

/// What of a host decides which remedy helps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host {
    /// Debian's and hardened kernels' `kernel.unprivileged_userns_clone` is 0.
    pub unprivileged_off: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` is on (Ubuntu), and we are not root.
    pub apparmor_restricts: bool,
    /// An AppArmor profile that enforces holds this process: docker-default and the like.
    pub apparmor_confined: bool,
    /// The kinds of namespaces of which there may be none.
    pub none_allowed: Spaces,
    /// A seccomp filter holds this process.
    pub filtered: bool,
    /// There is no /proc, or one that does not know this process.
    pub no_proc: bool,
    /// A run of ours is around this process, in which there is to be no other.
    pub in_run: bool,
    /// What we are in, as far as it shows.
    pub engine: Option<Engine>,
}

impl Host {
    /// Reads a few small files. Only for one who has failed, or asks.
    pub fn read() -> Self {
        let is = |path: &str, wanted: &str| text(path).is_some_and(|text| text == wanted);
        let status = text("/proc/self/status");
        let filtered =
            status.as_ref().is_some_and(|text| text.lines().any(|line| line == "Seccomp:\t2"));
        Self {
            unprivileged_off: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            apparmor_restricts: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")
                && !rustix::process::geteuid().is_root(),
            apparmor_confined: text("/proc/self/attr/current")
                .is_some_and(|label| label.ends_with("(enforce)")),
            none_allowed: Spaces::where_limit(|name| is(&format!("/proc/sys/user/{name}"), "0")),
            filtered,
            no_proc: status.is_none(),
            in_run: filtered && in_run(),
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

/// Where a run with `--nest` has the store of the sandbox inside it.
pub const NEST: &str = "/run/sandbox";

/// By PID 1 of a run, which has given up more than any other that is called so, and by what only `--nest` makes. (In the
/// container of an engine a supervisor may be PID 1; that one may still do what it could.)
fn in_run() -> bool {
    let first = text("/proc/1/status").unwrap_or_default();
    let says = |line: &str| first.lines().any(|one| one == line);
    says("Name:\tsandbox")
        && says("NoNewPrivs:\t1")
        && std::process::id() != 1
        && !fs::exists(NEST).unwrap_or(false)
}

/// Kinds of namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spaces(u8);

/// The names of their limits, in the order in which one that is 0 tells most.
const LIMITS: [&str; 7] = [
    "max_user_namespaces",
    "max_mnt_namespaces",
    "max_pid_namespaces",
    "max_ipc_namespaces",
    "max_uts_namespaces",
    "max_cgroup_namespaces",
    "max_net_namespaces",
];

impl Spaces {
    /// What a run is born into, or makes right then.
    pub const OF_BIRTH: Self = Self(0b011_1111);
    /// Of mounts.
    pub const MOUNTS: Self = Self(0b000_0010);
    /// Those of IPC and of the host name.
    pub const OTHERS: Self = Self(0b001_1000);
    /// Of the view of cgroups.
    pub const CGROUP: Self = Self(0b010_0000);
    /// Of the network.
    pub const NETWORK: Self = Self(0b100_0000);

    /// Those whose limit is as `wanted` by its name.
    pub(super) fn where_limit(wanted: impl Fn(&str) -> bool) -> Self {
        let bits = LIMITS.iter().enumerate().filter(|(_, name)| wanted(name));
        Self(bits.fold(0, |bits, (index, _)| bits | 1 << index))
    }

    /// Those of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The names of their limits.
    pub fn limits(self) -> impl Iterator<Item = &'static str> {
        (0..).zip(LIMITS).filter(move |(index, _)| self.0 & 1 << index != 0).map(|(_, name)| name)
    }
}
