//! A run, resolved: nothing in here is looked up again.

use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use rustix::termios::{Termios, Winsize};

use super::network::Outside;
use super::user::User;
use crate::ids::{IdMap, Mode, ORDINARY};
use crate::isolate::caps::CapSet;
use crate::isolate::cgroup::live::Entrance;
use crate::isolate::remember::Programs;
use crate::isolate::wall::Wall;
use crate::rootfs::copy_up::CopyUp;
use crate::rootfs::overlay::Way;
use crate::rootfs::plan::MountPlan;
use crate::rootfs::scaffold::Fleeting;
use crate::sys::exec::Strings;
use crate::sys::processor::Processors;

/// Everything that one execution needs.
#[derive(Debug)]
pub struct RunSpec {
    /// The ids inside and outside.
    pub id_map: IdMap,
    /// Whether the payload gets a network of its own (loopback only) or the host's.
    pub own_network: bool,
    /// What fills that network, if it shall reach the outside.
    pub outside: Option<Outside>,
    /// What Landlock keeps the payload from.
    pub wall: Wall,
    /// Paths of the lowers' trees beneath base_dir, top first, the scaffold last.
    pub lowers: Vec<String>,
    /// The scaffold, if it is none of these.
    pub scaffold: Option<Fleeting>,
    /// The run's directory beneath base_dir; upper and work are `layer/fs` and `work` in it.
    pub run_dir: String,
    /// Whether base_dir is a store inside a run, whose layers are mounts.
    pub nested: bool,
    /// Where the upper lies.
    pub upper: Upper,
    /// The way to hand layers to the kernel, if one is forced.
    pub way: Option<Way>,
    /// Whether the root is mounted read-only.
    pub read_only_root: bool,
    /// What is mounted over the overlay.
    pub plan: MountPlan,
    /// What is copied up before the command starts.
    pub copy_up: Vec<CopyUp>,
    /// Bind sources that the parent has detached already (it may reach places that inside root may not).
    pub prepared: Vec<Option<OwnedFd>>,
    /// The host name inside.
    pub hostname: String,
    /// The argument vector.
    pub argv: Strings,
    /// The environment.
    pub environment: Vec<CString>,
    /// The paths to try for `argv[0]`, in order.
    pub candidates: Vec<CString>,
    /// Whether others than this run may exchange what the command is: it is executed by its descriptor then.
    pub by_descriptor: bool,
    /// The working directory inside.
    pub workdir: PathBuf,
    /// Who the payload is; inside root if none.
    pub user: Option<User>,
    /// What that user needs besides, if it is the ordinary one of `--as-user`.
    pub ordinary: Option<Ordinary>,
    /// What it may do.
    pub capabilities: CapSet,
    /// The highest capability that the kernel knows.
    pub last_capability: u32,
    /// The compiled seccomp program.
    pub seccomp: Vec<u8>,
    /// The programs for calls whose effect is remembered, if the profile remembers it.
    pub remember: Option<Programs>,
    /// The journal that the handler of such calls adds to, if there are others who do; else it makes one.
    pub journal: Option<OwnedFd>,
    /// Resource limits.
    pub limits: Vec<(Resource, Rlimit)>,
    /// The cgroup that all of it is in, if it has one of its own.
    pub cgroup: Option<Entrance>,
    /// Descriptors of the caller that the payload keeps, besides 0, 1, 2.
    pub preserve_fds: Vec<RawFd>,
    /// The terminal, if one of 0, 1, 2 is one.
    pub terminal: Option<TerminalSpec>,
    /// Whether a weaker way may stand in for one that the host refuses; what was lost is told then.
    pub may_lose: bool,
    /// Whether the supervisor wants the root's descriptor, to copy results out.
    pub want_root: bool,
    /// Whether the supervisor is told of the exec, and gets what those need who join the run later.
    pub stays: bool,
    /// Whether somebody wants to know when the command is executed.
    pub heeds_exec: bool,
    /// What the payload has open until its exec, made at the launch.
    pub executing: Option<OwnedFd>,
    /// How long it may take; SIGTERM then, SIGKILL after `grace`.
    pub timeout: Option<Duration>,
    /// How long it may take until the command begins.
    pub setup_timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How many bytes it may write to stdout and stderr.
    pub output_limit: Option<u64>,
    /// How many bytes its upper may take on disk.
    pub disk_limit: Option<u64>,
    /// What it gets in place of 0, 1 and 2, where these are counted or are terminals that it may not have; filled in when it
    /// is launched.
    pub pipes: [Option<OwnedFd>; 3],
    /// The processors that it may use; filled in when it is launched.
    pub processors: Processors,
}

impl RunSpec {
    /// Who sets the run up, inside: root, or the only one there is.
    pub fn first_id(&self) -> u32 {
        let only = self.id_map.mode == Mode::Single && self.ordinary.is_some();
        if only { ORDINARY } else { 0 }
    }

    /// Whether the supervisor stops when the command does, as by ^Z: where somebody has typed to us who can continue us,
    /// and nothing has to be watched meanwhile that a command could escape by stopping.
    pub fn suspends(&self) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| terminal.replaces[0])
            && !self.stays
            && self.timeout.is_none()
            && self.disk_limit.is_none()
    }
}

/// A user whom the tree need not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ordinary {
    /// Whether it begins in its home directory.
    pub at_home: bool,
    /// That directory, when the root is there to look for it in.
    pub home: Option<PathBuf>,
}

/// Between SIGTERM and SIGKILL, unless another time is asked for.
pub const GRACE: Duration = Duration::from_secs(5);

/// Where an upper lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Upper {
    /// In the run's directory.
    #[default]
    Disk,
    /// In memory, with a limit in bytes; it cannot be kept. Needs Linux 6.6 (user xattrs on tmpfs).
    Tmpfs(Option<u64>),
}

/// Which standard descriptors are a terminal, and how that one is set.
#[derive(Debug, Clone)]
pub struct TerminalSpec {
    /// For 0, 1, 2: whether it is replaced by our own pty.
    pub replaces: [bool; 3],
    /// The settings that the payload's terminal starts with.
    pub settings: Termios,
    /// Its size.
    pub size: Winsize,
}
