//! Everything that can be said about a run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{limits, network};
use crate::isolate::change::Changes;
use crate::isolate::outside::Helper;
use crate::ops::in_time::{self, Until};
use crate::rootfs::copy_up::TouchRpmdb;
use crate::rootfs::overlay::Way;
use crate::rootfs::plan::{BindMode, Memory};
use crate::run::spec::Upper;
use crate::store::SnapshotName;
use crate::tree::change::Change;

/// A bind as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// A path of the host.
    pub source: PathBuf,
    /// A path inside.
    pub target: PathBuf,
    /// How it may be used.
    pub mode: BindMode,
}

/// The network of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Loopback only.
    None,
    /// The host's own.
    Host,
    /// One of its own that reaches the outside by a program beside the run.
    Outside(Helper),
}

/// What happens to the changes of a command that returned 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// They are thrown away.
    Discard,
    /// They become a snapshot of this name, which must not exist.
    Commit(SnapshotName),
    /// They become the new head, if the run started from head.
    Keep,
    /// They become the new head in any case.
    KeepForce,
}

/// Shows what a command changed, and gives the name to keep it by, if it is to be kept.
pub type Ask = fn(&[Change]) -> Option<SnapshotName>;

/// Everything that can be said about a run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The snapshot to start from; head if none.
    pub from: Option<String>,
    /// A kept run to go on with, instead of a fresh upper.
    pub kept_run: Option<String>,
    /// What happens to the changes.
    pub after: After,
    /// Whether the changes of a command that failed are kept as a run.
    pub keep_on_failure: bool,
    /// Whether a commit makes digests of all files.
    pub digest: bool,
    /// Whether what it starts from is checked before.
    pub verify: bool,
    /// Files and directories of the host.
    pub binds: Vec<Bind>,
    /// Places in memory.
    pub tmpfs: Vec<Memory>,
    /// Directories of the box that persist between runs: name and place.
    pub caches: Vec<(String, PathBuf)>,
    /// Results to copy out: a path inside, a directory of the host.
    pub outs: Vec<(PathBuf, PathBuf)>,
    /// Paths inside that are copied up before the command starts, besides those of the profile and the box.
    pub copy_up: Vec<String>,
    /// When rpm's databases are copied up, if not as the box says.
    pub touch_rpmdb: Option<TouchRpmdb>,
    /// The network; the profile's if none.
    pub net: Option<Net>,
    /// Its ports and names.
    pub network: network::Details,
    /// Whether it gets a store of its own, for a sandbox inside it.
    pub nest: bool,
    /// Variables for the command.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory inside; `/` if none.
    pub workdir: Option<PathBuf>,
    /// `USER[:GROUP]`; inside root if none.
    pub user: Option<String>,
    /// Whether the command is an ordinary user, known by name and with a home, instead.
    pub as_user: bool,
    /// The host name; the name of the box if none.
    pub hostname: Option<String>,
    /// How long it may take, from `begun` on.
    pub timeout: Option<Duration>,
    /// How long its set-up is waited for, 0 for ever; [`in_time::SETUP`] if none.
    pub setup_timeout: Option<Duration>,
    /// When it was asked for.
    pub begun: Instant,
    /// Between SIGTERM and SIGKILL then, if not the usual time.
    pub grace: Option<Duration>,
    /// Limits of what it may use.
    pub limits: limits::Limits,
    /// Told, before the command starts, of each protection that it goes without.
    pub warn: Option<fn(&str)>,
    /// A file to write what happened to, as JSON.
    pub report: Option<PathBuf>,
    /// Descriptors of the caller that stay open.
    pub preserve_fds: Vec<i32>,
    /// Where changes are kept while it runs.
    pub upper: Upper,
    /// The name of a profile, or a file; `default_profile` if none.
    pub profile: Option<String>,
    /// The profile of the command.
    pub default_profile: &'static str,
    /// What is changed of it.
    pub changes: Changes,
    /// Whether the root is read-only, whatever the profile says.
    pub read_only: bool,
    /// A descriptor of the caller that gets the events of the run, as JSON lines.
    pub status_fd: Option<i32>,
    /// Whether a lost protection is an error.
    pub strict: bool,
    /// The command.
    pub argv: Vec<OsString>,
    /// The only way to mount the overlay, for tests.
    pub overlay_way: Option<Way>,
    /// Asked at the end what shall become of the changes of a command whose changes are dropped otherwise:
    /// a name keeps them as a snapshot.
    pub ask: Option<Ask>,
}

impl RunOptions {
    /// How long the root may be made. What was asked to be copied first takes its time, if no other is asked for.
    pub(super) fn setup_time(&self) -> Option<Duration> {
        match self.setup_timeout {
            None if !self.copy_up.is_empty() => None,
            asked => in_time::setup(asked),
        }
    }

    /// When what is waited for since a moment is given up, if that is limited.
    pub(super) fn until(&self, since: Instant) -> Option<Until> {
        let timeout = Until::timeout(self.begun, self.timeout);
        timeout.into_iter().chain(Until::setup(since, in_time::setup(self.setup_timeout))).min()
    }
}
