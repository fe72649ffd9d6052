//! `--status-fd N`: the events of a run as they happen, one line of JSON each.
//!
//! ```json
//! {"event":"started","run":"r-...","pid":4711,"child-pid":4711}
//! {"event":"exited","code":0,"signal":null,"exit-code":0}
//! {"event":"committed","layer":"01...","name":"devel"}
//! {"event":"failed","message":"..."}
//! ```
//!
//! `child-pid` and `exit-code` are what readers of bubblewrap's `--json-status-fd` look for. Nobody inside gets
//! the descriptor. That nobody reads any more is not a reason to end a run.

use std::os::fd::BorrowedFd;

use rustix::io::retry_on_intr;
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::fault::{Fault, Result};
use crate::ops::adopt::TakenIn;
use crate::run::outcome::Ended;
use crate::store::{LayerId, RunId};
use crate::sys;

/// Where events go, if anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Status(Option<BorrowedFd<'static>>);

impl Status {
    /// Takes the caller's descriptor of this number.
    ///
    /// # Errors
    /// Usage if it is not open, or the command is to have it.
    pub(super) fn open(number: Option<i32>, preserved: &[i32]) -> Result<Self> {
        let Some(number) = number else { return Ok(Self(None)) };
        if preserved.contains(&number) {
            return Err(Fault::usage(format!(
                "status descriptor: {number}: --preserve-fd gives it to the command"
            )));
        }
        let fd = sys::exec::inherited(number).ok_or_else(|| {
            Fault::usage(format!("status descriptor: {number}: it is not open")).hint(format!(
                "open it in the shell: sandbox run --status-fd {number} ... {number}>FILE"
            ))
        })?;
        Ok(Self(Some(fd)))
    }

    /// The command is being executed, and nothing of ours can fail any more. `pid` is PID 1 of the sandbox.
    pub(super) fn started(self, run: RunId, pid: Pid) {
        let pid = pid.as_raw_nonzero();
        self.tell(|| json!({"event": "started", "run": run, "pid": pid, "child-pid": pid}));
    }

    /// The command has ended.
    pub(super) fn exited(self, ended: Ended) {
        let (code, signal) = match ended {
            Ended::Code(code) => (Some(code), None),
            Ended::Signal(signal) => (None, Some(signal)),
        };
        let exit = ended.exit_code();
        self.tell(|| json!({"event": "exited", "code": code, "signal": signal, "exit-code": exit}));
    }

    /// Its changes are kept for good, under this name or, without one, as head.
    pub(super) fn committed(self, layer: LayerId, name: Option<&str>) {
        self.tell(|| json!({"event": "committed", "layer": layer, "name": name}));
    }

    /// What a sandbox inside has made is taken in.
    pub(super) fn adopted(self, all: &[TakenIn]) {
        for TakenIn { name, layer, .. } in all {
            self.tell(|| json!({"event": "adopted", "layer": layer, "name": name}));
        }
    }

    /// Nothing was run, or what it changed could not be kept.
    pub(super) fn failed(self, fault: &Fault) {
        self.tell(|| json!({"event": "failed", "message": fault.message}));
    }

    fn tell(self, event: impl FnOnce() -> Value) {
        let Some(fd) = self.0 else { return };
        let line = format!("{}\n", event());
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match retry_on_intr(|| rustix::io::write(fd, rest)) {
                Ok(bytes @ 1..) => rest = &rest[bytes..],
                _ => return,
            }
        }
    }
}
