//! Working with runs that stay: each is found in the store and asked on its socket.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::fault::{Fault, Kind, Result};
pub use crate::run::supervisor::attach::{Left, Manner, attach};
pub use crate::run::supervisor::keys::Keys;
pub use crate::run::supervisor::output::Reader;
pub use crate::run::supervisor::{Ending, Verdict};

use crate::run::outcome::OURS;
use crate::run::supervisor::Request;
use crate::run::supervisor::ask::Line;
use crate::store::{BoxName, EndedRun, Found, RunId, RunName, RunRecord, RunState, Store};

/// All runs.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Oldest first.
    pub runs: Vec<Listed>,
}

/// A run.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its id.
    pub run: RunId,
    /// Its name, if it has one.
    pub name: Option<RunName>,
    /// Its box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// What it was started from.
    pub from: String,
    /// What has become of it.
    pub state: State,
    /// The exit code, if it has ended.
    pub exit: Option<i32>,
    /// The pid of its supervisor, if that lives.
    pub pid: Option<u32>,
    /// When it was started.
    pub started: Timestamp,
    /// When it was over, if only its log and how it ended are left.
    pub ended: Option<Timestamp>,
    /// Its command.
    pub argv: Vec<String>,
    /// What was applied to it while it runs.
    pub live: Option<serde_json::Value>,
}

/// What has become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its supervisor lives.
    Running,
    /// It ended, and what it changed was kept for later.
    Kept,
    /// Its supervisor was killed.
    Dead,
    /// It is over. Its log and how it ended are left.
    Ended,
}

impl From<(RunRecord, RunState)> for Listed {
    fn from((record, state): (RunRecord, RunState)) -> Self {
        let state = match state {
            RunState::Running => State::Running,
            RunState::Kept => State::Kept,
            RunState::Dead => State::Dead,
        };
        Self {
            run: record.run,
            name: record.name,
            box_name: record.box_name,
            from: record.from,
            state,
            // One with --keep-on-failure has the code of its last command while it runs.
            exit: record.exit.filter(|_| state == State::Kept),
            pid: (state == State::Running).then_some(record.pid),
            started: record.started,
            ended: None,
            argv: record.argv,
            live: None,
        }
    }
}

impl From<EndedRun> for Listed {
    fn from(ended: EndedRun) -> Self {
        Self {
            run: ended.run,
            name: ended.name,
            box_name: ended.box_name,
            from: ended.from,
            state: State::Ended,
            exit: Some(i32::from(ended.exit)),
            pid: None,
            started: ended.started,
            ended: Some(ended.ended),
            argv: ended.argv,
            live: None,
        }
    }
}

/// Lists every run of the store: those that live, were kept, or were killed, and with `all` those that are over, as long as
/// something of them is left.
///
/// # Errors
/// What reading the store says.
pub fn list(store: &Store, all: bool) -> Result<Listing> {
    let mut there = store.runs_that_are()?;
    // In one without a layer no command runs: it makes a layer.
    there.retain(|(record, _)| record.layer.is_some());
    let mut runs: Vec<Listed> = there.into_iter().map(Listed::from).collect();
    if all {
        // One may have ended between the two looks.
        let ended = store.ended_runs()?;
        runs.retain(|run| ended.iter().all(|one| one.run != run.run));
        runs.extend(ended.into_iter().map(Listed::from));
    }
    runs.sort_by_key(|run| (run.started, run.run));
    Ok(Listing { runs })
}

/// A connection to the live run of this name or id.
///
/// # Errors
/// Not-found if there is none, or it does not live; conflict if it was started by `run` or `shell`.
pub fn line(store: &Store, word: &str) -> Result<Line> {
    let (record, state) = store.find_run(word)?;
    if state == RunState::Running {
        return Ok(Line::new(record.run, store.connect_run(&record.run)?));
    }
    Err(over(&record, state))
}

/// The fault of asking a run that does not live.
fn over(record: &RunRecord, state: RunState) -> Fault {
    let how = if state == RunState::Kept { "has ended" } else { "was killed" };
    let id = record.run;
    Fault::not_found(format!("ask run: {id}: it {how}"))
        .hint(format!("`sandbox recover {id} --as NAME` makes a snapshot of what it has left, `sandbox rm --run {id}` throws it away"))
}

/// Sends the command of a run a signal.
///
/// # Errors
/// As [`line()`].
pub fn kill(store: &Store, word: &str, signal: i32) -> Result<()> {
    line(store, word)?.ask(&Request::Kill { signal }).map(drop)
}

/// Waits for the end of a run. One that was kept, or has left how it ended, has ended already.
///
/// # Errors
/// As [`line()`]; not-found, too, if the supervisor is killed meanwhile.
pub fn wait(store: &Store, word: &str) -> Result<Ending> {
    let (record, state) = match store.find_last(word)? {
        Found::Run(record, state) => (record, state),
        Found::Ended(ended) => return Ok(ending(ended)),
    };
    if state != RunState::Running {
        return kept(&record, state).ok_or_else(|| over(&record, state));
    }
    let id = record.run;
    let line = match store.connect_run(&id) {
        Ok(socket) => Line::new(id, socket),
        Err(fault) => return ended_since(store, id).ok_or(fault),
    };
    match line.until_end(&Request::Wait) {
        // It was over before it heard us.
        Err(fault) if fault.kind == Kind::NotFound => ended_since(store, id).ok_or(fault),
        heard => heard,
    }
}

/// How a run ended that has just stopped to hear. Its socket goes a moment before it is seen to be over; what never stays has no
/// log, and no socket either.
fn ended_since(store: &Store, id: RunId) -> Option<Ending> {
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match store.find(&id.to_string()) {
            Ok(Found::Ended(ended)) => return Some(ending(ended)),
            Ok(Found::Run(record, state)) if state != RunState::Running => {
                return kept(&record, state);
            }
            Ok(Found::Run(..)) if store.run_log(&id).is_ok() && Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => return None,
        }
    }
}

/// How a run ended that was kept.
fn kept(record: &RunRecord, state: RunState) -> Option<Ending> {
    let code = record.exit.filter(|_| state == RunState::Kept)?;
    Some(Ending {
        run: Some(record.run),
        code: match record.fault {
            Some(_) => OURS,
            None => u8::try_from(code).unwrap_or(u8::MAX),
        },
        messages: Vec::new(),
        fault: record.fault.clone(),
        committed: None,
        kept: true,
    })
}

fn ending(ended: EndedRun) -> Ending {
    Ending {
        run: Some(ended.run),
        code: ended.exit,
        messages: ended.messages,
        fault: ended.fault,
        committed: ended.committed,
        kept: false,
    }
}

/// Ends a run: SIGTERM, after `grace` SIGKILL to all that is left in it; then its changes are dealt with as the
/// verdict says or, without one, as it was started.
///
/// # Errors
/// As [`line()`]; what is wrong with the verdict, and then nothing was ended.
pub fn stop(
    store: &Store,
    word: &str,
    verdict: Option<Verdict>,
    grace: Duration,
) -> Result<Ending> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    line(store, word)?.until_end(&Request::Stop { verdict, grace_ms })
}

/// The log of a run, from its first byte that there is.
///
/// # Errors
/// Not-found if there is no such run, or it has no log.
pub fn log(store: &Store, word: &str) -> Result<Reader> {
    let run = match store.find_last(word)? {
        Found::Run(record, _) => record.run,
        Found::Ended(ended) => ended.run,
    };
    store.run_log(&run).map(Reader::new)
}
