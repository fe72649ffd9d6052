//! Runs: each a directory with a lock, an upper and a record.
//!
//! A run is made as `runs/.new-ID`, locked, then renamed to `runs/ID`: whoever finds a final name whose
//! lock is free has found the remains of a killed run.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, chmodat, chownat, flock, fsync,
    mkdirat, openat, renameat, renameat_with,
};
use rustix::io::{Errno, retry_on_intr};
use serde::{Deserialize, Serialize};

use super::failpoint::step;
use super::file::{self, PRIVATE_DIR, PRIVATE_FILE};
use super::lock::SharedLock;
use super::spare::Next;
use super::{BoxName, LayerId, Lent, RunId, RunName, Store, json_line, layout};
use crate::fault::{Context, Fault, Result};
use crate::ids::IdMap;
use crate::tree::measure::FRESH_MODE;

/// The root directory of a new layer.
pub(super) const ROOT_MODE: Mode = Mode::from_raw_mode(FRESH_MODE);

/// How often an id that exists is drawn again.
const TRIES: usize = 8;

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Its supervisor lives.
    Running,
    /// It ended, and what it changed was kept for later.
    Kept,
    /// Its supervisor was killed. Never written, only found.
    Dead,
}

/// A place of a mount that no layer had, and that no scaffold could give because a layer has removed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its path inside.
    pub path: String,
    /// How many of the last components of the path were made.
    pub levels: u32,
}

/// What `run.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its own id.
    pub run: RunId,
    /// Its name, if it is a run that stays and was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RunName>,
    /// The box it runs in.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// What the user started it from: a name, `head`, an id.
    pub from: String,
    /// The layer that is; none for an empty root.
    pub layer: Option<LayerId>,
    /// The layers it mounts, base first. They live as long as the run does.
    pub chain: Vec<LayerId>,
    /// The entry of `cache/` that it mounts as the lowest.
    #[serde(default)]
    pub scaffold: Option<String>,
    /// The ids that own what lies in its upper.
    pub id_map: IdMap,
    /// The command.
    pub argv: Vec<String>,
    /// The paths that were copied up for it, besides the databases of rpm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_up: Vec<String>,
    /// Whether nobody in it could give files away or make device nodes: what its files say of that counts only as far as a
    /// layer beneath has said it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
    /// The places of mounts that were made in its upper, known once it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<Made>,
    /// What it was lent for the store inside it, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nest: Option<Lent>,
    /// When it was started.
    pub started: Timestamp,
    /// The pid of its supervisor, in the supervisor's pid namespace.
    pub pid: u32,
    /// Running or kept.
    pub state: RunState,
    /// The exit code of the command, once it ended.
    #[serde(default)]
    pub exit: Option<i32>,
    /// Why what it changed could not be committed, if it is kept for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// A run whose lock we hold, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Run {
    pub(super) id: RunId,
    pub(super) dir: OwnedFd,
    pub(super) lock: OwnedFd,
    /// Whether there is a record, which is then only replaced by rename.
    pub(super) recorded: bool,
    /// Whether it was kept, and so must not be lost.
    pub(super) kept: bool,
    /// What its directory has for another run.
    pub(super) next: Next,
}

impl Run {
    /// Its id.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Its directory, open for reading. Opened before anything runs, so a syncfs(2) on it reports every
    /// write-back error since: it is the descriptor to hand to [`Store::publish`].
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The descriptor that holds its lock. A child must close it, or the run seems to live as long as
    /// the child does.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Its upper directory, `layer/fs`, as a place (`O_PATH`).
    pub fn fs_dir(&self) -> Result<OwnedFd> {
        file::open_place(self.dir(), layout::LAYER_FS).context("open upper directory", self.id)
    }

    /// overlayfs' work directory, as a place (`O_PATH`).
    pub fn work_dir(&self) -> Result<OwnedFd> {
        file::open_place(self.dir(), layout::WORK).context("open work directory", self.id)
    }

    /// Writes the record, not durably: a power cut kills the run anyway. The first is three system calls;
    /// later ones replace it by rename, so that a reader sees one or the other. So does the first in a directory that was used
    /// before, where there is an empty file for it. (Never over an older record: a power cut could bring that back.)
    pub fn write_record(&mut self, record: &RunRecord) -> Result<()> {
        let bytes = json_line(record)?;
        let written = if self.recorded {
            self.replace_record(&bytes, false)
        } else {
            step("run.record", || {
                if self.next == Next::None {
                    return file::write_small(self.dir(), layout::RUN_RECORD, &bytes);
                }
                file::fill_empty(self.dir(), layout::RUN_RECORD_NEW, &bytes)?;
                renameat(self.dir(), layout::RUN_RECORD_NEW, self.dir(), layout::RUN_RECORD)
            })
        };
        written.context("write record of run", self.id)?;
        self.recorded = true;
        Ok(())
    }

    /// Gives up the lock, also for a child that has inherited it. There is no such thing in a destructor: a
    /// child that drops its copy of the run must not unlock its parent's.
    pub(super) fn unlock(&self) {
        flock(&self.lock, FlockOperation::Unlock).ok();
    }

    pub(super) fn replace_record(&self, bytes: &[u8], durably: bool) -> Result<(), Errno> {
        step("run.record.temp", || {
            let file = file::create(self.dir(), layout::RUN_RECORD_NEW)?;
            file::write_all(&file, bytes)?;
            if durably { fsync(&file) } else { Ok(()) }
        })?;
        step("run.record.rename", || {
            renameat(self.dir(), layout::RUN_RECORD_NEW, self.dir(), layout::RUN_RECORD)?;
            if durably { fsync(self.dir()) } else { Ok(()) }
        })
    }
}

impl Store {
    /// Makes a run with an empty upper, owned by root inside, and takes its lock. The store lock must be
    /// held until [`Run::write_record`] has said which layers the run needs.
    ///
    /// # Errors
    /// What the system calls say; what was made is removed again.
    pub fn new_run(&self, lock: &SharedLock, map: &IdMap) -> Result<Run> {
        for _ in 0..TRIES {
            if let Some(run) = self.try_new_run(lock, map, RunId::random()?)? {
                return Ok(run);
            }
        }
        Err(Fault::failed("create run: no id is free"))
    }

    /// The same under an id that was drawn before.
    ///
    /// # Errors
    /// As [`Store::new_run`]; conflict if there is a run of this id.
    pub fn new_run_of(&self, lock: &SharedLock, map: &IdMap, id: RunId) -> Result<Run> {
        self.try_new_run(lock, map, id)?
            .ok_or_else(|| Fault::conflict(format!("create run: {id}: exists already")))
    }

    fn try_new_run(&self, _lock: &SharedLock, map: &IdMap, id: RunId) -> Result<Option<Run>> {
        self.require_writable()?;
        if let Some(run) = self.take_spare(id, map).context("create run", id)? {
            return Ok(Some(run));
        }
        let new = layout::new_run(&id);
        match step("run.mkdir", || mkdirat(self.dir(), &new, PRIVATE_DIR)) {
            Err(Errno::EXIST) => return Ok(None),
            Err(Errno::NOENT) => return Err(self.lost("create run", layout::RUNS)),
            other => other.context("create run", self.show(&new))?,
        }
        match self.fill_run(id, &new, map) {
            Ok(run) => Ok(Some(run)),
            Err(errno) => {
                self.take_back_run(&new);
                if errno == Errno::EXIST {
                    return Ok(None);
                }
                Err(Fault::errno("create run", self.show(&new), errno))
            }
        }
    }

    fn fill_run(&self, id: RunId, new: &str, map: &IdMap) -> Result<Run, Errno> {
        let dir = step("run.open", || file::open_dir(self.dir(), new))?;
        let lock = step("run.lock", || {
            let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            retry_on_intr(|| openat(&dir, layout::LOCK, flags, PRIVATE_FILE))
        })?;
        // Nobody knows it yet, save a reaper that takes us for dead: then there is nothing to wait for.
        step("run.flock", || {
            retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive))
        })?;
        step("run.layer", || mkdirat(&dir, layout::LAYER, PRIVATE_DIR))?;
        step("run.fs", || {
            mkdirat(&dir, layout::LAYER_FS, ROOT_MODE)?;
            // Whatever the umask is.
            chmodat(&dir, layout::LAYER_FS, ROOT_MODE, AtFlags::empty())
        })?;
        step("run.work", || mkdirat(&dir, layout::WORK, PRIVATE_DIR))?;
        let (uid, gid) = map.root_owner();
        if uid != self.owner {
            // The directories above too: inside root walks to its upper through them where the kernel takes
            // no descriptors. Nobody else gets there, base_dir is ours alone.
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            step("run.chown", || {
                [".", layout::LAYER, layout::LAYER_FS, layout::WORK].into_iter().try_for_each(
                    |name| chownat(&dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW),
                )
            })?;
        }
        step("run.rename", || {
            let name = layout::run(&id);
            renameat_with(self.dir(), new, self.dir(), &name, RenameFlags::NOREPLACE)
        })?;
        Ok(Run { id, dir, lock, recorded: false, kept: false, next: Next::None })
    }

    /// Best effort: what stays is reaped.
    fn take_back_run(&self, new: &str) {
        file::unlink(self.dir(), &format!("{new}/{}", layout::LOCK)).ok();
        for name in [layout::LAYER_FS, layout::LAYER, layout::WORK] {
            file::rmdir(self.dir(), &format!("{new}/{name}")).ok();
        }
        file::rmdir(self.dir(), new).ok();
    }

    /// Opens a run that ended or died and takes its lock, with its record.
    ///
    /// # Errors
    /// Not-found if there is none; busy while its supervisor lives.
    pub fn open_run(&self, id: &RunId) -> Result<(Run, RunRecord)> {
        let gone = || match self.ended_run(id) {
            Some(ended) => ended.over(),
            None => Fault::not_found(format!("open run: {id}: there is no such run"))
                .hint("`sandbox ps` lists all there are"),
        };
        let operation = FlockOperation::NonBlockingLockExclusive;
        let Some(mut probe) = self.probe(&layout::run(id), operation)? else {
            return Err(gone());
        };
        let Some(lock) = probe.lock.take() else {
            return Err(Fault::busy(format!("open run: {id}: it is still running"))
                .hint("wait until it has ended, or end it from where it was started"));
        };
        let Some(record) = probe.take_record()? else { return Err(gone()) };
        let dir = file::open_dir(probe.dir.as_fd(), ".").context("open run", id)?;
        let kept = record.state == RunState::Kept;
        let run = Run { id: *id, dir, lock, recorded: true, kept, next: Next::None };
        let shared = self.lock_shared()?;
        if !self.settle(&record)? {
            return Err(gone());
        }
        drop(shared);
        Ok((run, record))
    }

    /// All runs, oldest first. One that is just being made or removed is left out.
    ///
    /// # Errors
    /// Damaged, if the record of one of them is.
    pub fn runs(&self) -> Result<Vec<(RunRecord, RunState)>> {
        self.run_names()?.iter().filter_map(|name| self.found_run(name).transpose()).collect()
    }

    /// Those of all runs whose record can be read, for what concerns some of them only.
    ///
    /// # Errors
    /// What reading the directory says.
    pub fn readable_runs(&self) -> Result<Vec<(RunRecord, RunState)>> {
        let found = |name: &String| self.found_run(name).ok().flatten();
        Ok(self.run_names()?.iter().filter_map(found).collect())
    }

    fn run_names(&self) -> Result<Vec<String>> {
        let mut names = self.names(layout::RUNS)?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    fn found_run(&self, name: &str) -> Result<Option<(RunRecord, RunState)>> {
        let id: RunId = self.own_name(layout::RUNS, name)?;
        // A shared lock: others who only look do not take each other for the supervisor.
        let operation = FlockOperation::NonBlockingLockShared;
        let Some(mut probe) = self.probe(&layout::run(&id), operation)? else { return Ok(None) };
        let Some(record) = probe.take_record()? else { return Ok(None) };
        let state = match (&probe.lock, record.state) {
            (None, _) => RunState::Running,
            (Some(_), RunState::Kept) => RunState::Kept,
            (Some(_), _) => RunState::Dead,
        };
        Ok(Some((record, state)))
    }

    /// Looks at a run: its lock, if that was free, and its record. `None` if there is nothing, or nothing yet.
    pub(super) fn probe(&self, name: &str, operation: FlockOperation) -> Result<Option<Probe>> {
        let look = |errno| Fault::errno("open run", self.show(name), errno);
        let dir = match file::open_dir(self.dir(), name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(look)?,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match retry_on_intr(|| openat(&dir, layout::LOCK, flags, Mode::empty())) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(look)?,
        };
        let lock = match retry_on_intr(|| flock(&lock, operation)) {
            Ok(()) => Some(lock),
            Err(Errno::WOULDBLOCK) => None,
            Err(errno) => return Err(look(errno)),
        };
        let file = format!("{name}/{}", layout::RUN_RECORD);
        let record = match file::read_small(dir.as_fd(), layout::RUN_RECORD, file::RECORD_LIMIT) {
            // Empty: being written, or a power cut has taken the bytes.
            Err(Errno::NOENT) => Ok(None),
            Ok(bytes) if bytes.is_empty() => Ok(None),
            // The same when ext4 has kept the length of what was not written yet.
            Ok(bytes) if lock.is_some() && bytes.iter().all(|byte| *byte == 0) => Ok(None),
            Ok(bytes) => self.parse_record(&file, &bytes).map(Some),
            Err(errno) => Err(Fault::errno("read record", self.show(&file), errno)),
        };
        Ok(Some(Probe { dir, lock, record }))
    }
}

/// What was found under the name of a run.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) dir: OwnedFd,
    /// The lock, if nobody else had it.
    pub(super) lock: Option<OwnedFd>,
    /// `None` if there is none (yet).
    pub(super) record: Result<Option<RunRecord>>,
}

impl Probe {
    pub(super) fn take_record(&mut self) -> Result<Option<RunRecord>> {
        std::mem::replace(&mut self.record, Ok(None))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Not by closing alone: a child forked meanwhile must not make the run seem alive.
        if let Some(lock) = &self.lock {
            flock(lock, FlockOperation::Unlock).ok();
        }
    }
}
