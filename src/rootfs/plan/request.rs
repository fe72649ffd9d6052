//! What a plan is asked for.

use std::net::IpAddr;
use std::path::PathBuf;

use super::Source;

/// A bind as the user asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// What.
    pub source: Source,
    /// Where in the new root.
    pub target: PathBuf,
    /// How.
    pub mode: BindMode,
}

/// How a bind may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindMode {
    /// Without writes, recursively.
    ReadOnly,
    /// With writes that last.
    ReadWrite,
    /// With writes that are dropped at the end.
    Overlay,
}

/// A directory in memory, as the user asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Where in the new root.
    pub target: PathBuf,
    /// How much it may take, in bytes; without, half of the memory.
    pub size: Option<u64>,
    /// Mode bits of its root.
    pub mode: u32,
}

/// What a plan is made of.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Binds, in the user's order.
    pub binds: Vec<Bind>,
    /// Fresh tmpfs at these places.
    pub tmpfs: Vec<Memory>,
    /// /tmp and /var/tmp in memory instead of in the layer.
    pub tmp_in_memory: bool,
    /// The host name, for /etc/hostname and /etc/hosts.
    pub hostname: String,
    /// Whether the host's resolv.conf is wanted.
    pub host_network: bool,
    /// /etc/resolv.conf of a network that reaches the outside by itself.
    pub resolver: Option<String>,
    /// More names for /etc/hosts.
    pub hosts: Vec<(String, IpAddr)>,
    /// Whether apt is told not to become another user ([`super::APT_CONFIG`]).
    pub apt_as_root: bool,
    /// Whether the command's user is an ordinary one, who has to be known.
    pub ordinary_user: bool,
    /// Paths of /proc to hide.
    pub masked: Vec<PathBuf>,
    /// Paths of /proc to make read-only.
    pub read_only: Vec<PathBuf>,
    /// Whether an id inside is the host's uid 0, whose files in /proc it could then write.
    pub host_root: bool,
}
