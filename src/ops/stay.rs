//! Working with runs that stay: each is found in the store and asked on its socket.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::fault::{Fault, Result};
pub use crate::run::supervisor::attach::{Left, Manner, attach};
pub use crate::run::supervisor::keys::Keys;
pub use crate::run::supervisor::output::Reader;
pub use crate::run::supervisor::{Ending, Verdict};

use crate::run::supervisor::Request;
use crate::run::supervisor::ask::Line;
use crate::store::{BoxName, RunId, RunName, RunRecord, RunState, Store};

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
    pub state: RunState,
    /// The pid of its supervisor, if that lives.
    pub pid: Option<u32>,
    /// When it was started.
    pub started: Timestamp,
    /// Its command.
    pub argv: Vec<String>,
    /// What was applied to it while it runs.
    pub live: Option<serde_json::Value>,
}

/// Lists every run of the store: those that live, were kept, or were killed.
///
/// # Errors
/// What reading the store says.
pub fn list(store: &Store) -> Result<Listing> {
    let mut all = store.readable_runs()?;
    // In one without a layer no command runs: it makes a layer.
    all.retain(|(record, _)| record.layer.is_some());
    all.sort_by_key(|(record, _)| record.started);
    let listed = |(record, state): (RunRecord, RunState)| Listed {
        run: record.run,
        name: record.name,
        box_name: record.box_name,
        from: record.from,
        state,
        pid: (state == RunState::Running).then_some(record.pid),
        started: record.started,
        argv: record.argv,
        live: None,
    };
    Ok(Listing { runs: all.into_iter().map(listed).collect() })
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

/// Waits for the end of a run. One that was kept has ended already.
///
/// # Errors
/// As [`line()`]; not-found, too, if the supervisor is killed meanwhile.
pub fn wait(store: &Store, word: &str) -> Result<Ending> {
    let (record, state) = store.find_run(word)?;
    if let (RunState::Kept, Some(code)) = (state, record.exit) {
        return Ok(Ending {
            run: Some(record.run),
            code: u8::try_from(code).unwrap_or(u8::MAX),
            messages: Vec::new(),
            fault: None,
            committed: None,
            kept: true,
        });
    }
    line(store, word)?.until_end(&Request::Wait)
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
    let (record, _) = store.find_run(word)?;
    store.run_log(&record.run).map(Reader::new)
}
