//! What a run has that stays: a name, a socket to ask it by, and a log.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::failpoint::step;
use super::{EndedRun, Run, RunId, RunName, RunRecord, RunState, Store, file, layout};
use crate::fault::{Context, Fault, Result, printable};

/// So many may have connected whom the supervisor has not taken yet.
const BACKLOG: i32 = 64;

/// What a word for a run means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A run that is there, and what has become of it.
    Run(RunRecord, RunState),
    /// One that is over, of which only its log and how it ended are left.
    Ended(EndedRun),
}

/// Nobody else gives a run a name while this is held.
#[derive(Debug)]
pub struct NameLock(OwnedFd);

impl Drop for NameLock {
    fn drop(&mut self) {
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}

impl Run {
    /// Makes its log, empty: open for writing, and open for reading.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn create_log(&self) -> Result<(OwnedFd, OwnedFd)> {
        step("run.log", || {
            let log = file::create(self.dir(), layout::RUN_LOG)?;
            Ok((log, file::open_file(self.dir(), layout::RUN_LOG)?))
        })
        .context("create log of run", self.id())
    }

    /// Listens on its socket, without blocking.
    ///
    /// # Errors
    /// What bind(2) and listen(2) say.
    pub fn listen(&self) -> Result<OwnedFd> {
        step("run.socket", || {
            let socket = stream(SocketFlags::NONBLOCK)?;
            // One that is there is of a supervisor that was killed: we hold the lock.
            file::unlink(self.dir(), layout::RUN_SOCKET)?;
            bind(&socket, &address(self.dir())?)?;
            listen(&socket, BACKLOG)?;
            Ok(socket)
        })
        .context("listen for run", self.id())
    }
}

impl Store {
    /// Connects to the supervisor of a run.
    ///
    /// # Errors
    /// Not-found if there is no such run, or it has ended; conflict if it cannot be asked.
    pub fn connect_run(&self, id: &RunId) -> Result<OwnedFd> {
        let failed = |errno| Fault::errno("ask run", id, errno);
        let dir = match file::open_place(self.dir(), &layout::run(id)) {
            Err(Errno::NOENT) => {
                return Err(Fault::not_found(format!("ask run: {id}: there is no such run"))
                    .hint("`sandbox ps`"));
            }
            other => other.map_err(failed)?,
        };
        let socket = stream(SocketFlags::empty()).map_err(failed)?;
        let address = address(dir.as_fd()).map_err(failed)?;
        match retry_on_intr(|| connect(&socket, &address)) {
            Ok(()) => Ok(socket),
            Err(Errno::NOENT) => Err(Fault::conflict(format!("ask run: {id}: it cannot be asked"))
                .hint("a run that is to be worked with is started by `sandbox start`")),
            Err(Errno::CONNREFUSED) => {
                Err(Fault::not_found(format!("ask run: {id}: it has ended")).hint("`sandbox ps`"))
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The log of a run, or what it has left of it, open for reading.
    ///
    /// # Errors
    /// Not-found if there is none.
    pub fn run_log(&self, id: &RunId) -> Result<OwnedFd> {
        let name = format!("{}/{}", layout::run(id), layout::RUN_LOG);
        // In this order, in which it moves.
        let log = match file::open_file(self.dir(), &name) {
            Err(Errno::NOENT) => self.ended_log(id),
            other => other,
        };
        match log {
            Err(Errno::NOENT) => Err(Fault::not_found(format!("read log: {id}: it has none"))
                .hint("only a run that was started by `sandbox start` has one")),
            other => other.context("read log", id),
        }
    }

    /// Takes the socket of a run away whose supervisor has ended in order.
    pub fn forget_socket(&self, id: &RunId) {
        file::unlink(self.dir(), &format!("{}/{}", layout::run(id), layout::RUN_SOCKET)).ok();
    }

    /// The id of the run that a word means, as [`Store::find_run`] finds it; a whole id is itself.
    ///
    /// # Errors
    /// As [`Store::find_run`].
    pub fn run_id(&self, word: &str) -> Result<RunId> {
        word.parse().or_else(|_| self.find_run(word).map(|(record, _)| record.run))
    }

    /// The run of this name or id, or whose id begins so: one that lives before others.
    ///
    /// # Errors
    /// Usage for a word that can be neither; not-found if there is none, or only what one has left; conflict if there
    /// are several.
    pub fn find_run(&self, word: &str) -> Result<(RunRecord, RunState)> {
        match self.find(word)? {
            Found::Run(record, state) => Ok((record, state)),
            Found::Ended(ended) => Err(ended.over()),
        }
    }

    /// The same also of a run that is over, if there is no other: of several that had this name, the one that ended last.
    ///
    /// # Errors
    /// As [`Store::find_run`].
    pub fn find(&self, word: &str) -> Result<Found> {
        drop(word.parse::<RunName>()?);
        let all = self.runs_that_are()?;
        let named =
            |name: &Option<RunName>| name.as_ref().is_some_and(|name| name.as_str() == word);
        let lives = |one: &&(RunRecord, RunState)| one.1 == RunState::Running;
        let mut found: Vec<_> = all.iter().filter(|one| named(&one.0.name)).collect();
        if found.iter().any(lives) {
            found.retain(lives);
        }
        let ended = if found.is_empty() { self.ended_runs()? } else { Vec::new() };
        if let Some(last) = ended.iter().rev().find(|one| named(&one.name)) {
            return Ok(Found::Ended(last.clone()));
        }
        let begins = |id: RunId| {
            let id = id.to_string();
            id == word || (word.len() >= SHORTEST && id.starts_with(word))
        };
        if found.is_empty() {
            found = all.iter().filter(|one| begins(one.0.run)).collect();
        }
        let over = ended.iter().filter(|one| found.is_empty() && begins(one.run));
        let over: Vec<_> = over.collect();
        match (found.as_slice(), over.as_slice()) {
            ([(record, state)], _) => Ok(Found::Run(record.clone(), *state)),
            ([], [one]) => Ok(Found::Ended((*one).clone())),
            ([], []) => {
                Err(Fault::not_found(format!("find run: {}: there is none", printable(word)))
                    .hint("`sandbox ps --all`"))
            }
            (several, over) => {
                let ids = several.iter().map(|one| one.0.run).chain(over.iter().map(|one| one.run));
                let ids: Vec<_> = ids.map(|id| id.to_string()).collect();
                let message = format!("find run: {}: several: {}", printable(word), ids.join(", "));
                Err(Fault::conflict(message).hint("`sandbox ps --all`"))
            }
        }
    }

    /// How it was with the last run of a name, for who asks how it went: one that lives before others, else the one that was
    /// started last, whether it was kept or is over. A word that is no name means what it means to [`Store::find`].
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn find_last(&self, word: &str) -> Result<Found> {
        drop(word.parse::<RunName>()?);
        let named =
            |name: &Option<RunName>| name.as_ref().is_some_and(|name| name.as_str() == word);
        let mut runs = self.runs_that_are()?;
        runs.retain(|one| named(&one.0.name));
        let last = |one: &(RunRecord, RunState)| (one.1 == RunState::Running, one.0.started);
        let run = runs.into_iter().max_by_key(last);
        let live = run.as_ref().is_some_and(|one| one.1 == RunState::Running);
        let ended = if live { Vec::new() } else { self.ended_runs()? };
        let ended = ended.into_iter().filter(|one| named(&one.name)).max_by_key(|one| one.started);
        match (run, ended) {
            (Some((record, _)), Some(ended)) if ended.started > record.started => {
                Ok(Found::Ended(ended))
            }
            (Some((record, state)), _) => Ok(Found::Run(record, state)),
            (None, Some(ended)) => Ok(Found::Ended(ended)),
            (None, None) => self.find(word),
        }
    }

    /// All runs whose record can be read, but for the remains of one that is over: it was killed when it had nothing more
    /// to do but to go.
    ///
    /// # Errors
    /// As [`Store::readable_runs`].
    pub fn runs_that_are(&self) -> Result<Vec<(RunRecord, RunState)>> {
        let mut all = self.readable_runs()?;
        all.retain(|(record, state)| {
            *state == RunState::Running || self.ended_run(&record.run).is_none()
        });
        Ok(all)
    }

    /// What a run has left that this word means, if it means one that is over.
    pub fn find_ended(&self, word: &str) -> Option<EndedRun> {
        match self.find(word) {
            Ok(Found::Ended(ended)) => Some(ended),
            _ => None,
        }
    }

    /// Makes sure that no live run has this name, and that none gets it while the lock is held: until the
    /// record with the name is written.
    ///
    /// # Errors
    /// Conflict if it is taken; busy if the lock is not to be had.
    pub fn claim_run_name(&self, name: &RunName) -> Result<NameLock> {
        let runs = file::open_dir(self.dir(), layout::RUNS).context("open", "the runs")?;
        self.flock_patiently(&runs, FlockOperation::NonBlockingLockExclusive, "names of runs")?;
        let taken = self.readable_runs()?.into_iter().find(|(record, state)| {
            *state == RunState::Running && record.name.as_ref() == Some(name)
        });
        match taken {
            None => Ok(NameLock(runs)),
            Some((record, _)) => {
                flock(&runs, FlockOperation::Unlock).ok();
                let message = format!("start: {name}: run {} has this name", record.run);
                Err(Fault::conflict(message)
                    .hint(format!("choose another, or end that one: `sandbox stop {name}`")))
            }
        }
    }
}

/// The shortest beginning of an id that is looked for: `r-` and four characters.
const SHORTEST: usize = 6;

fn stream(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// The socket in the directory of a run. By its descriptor, because the address of a socket has room for 107
/// bytes, and base_dir may be longer.
fn address(dir: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), layout::RUN_SOCKET))
}
