//! `--report FILE`: what happened, as JSON.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::io::Errno;
use serde::Serialize;

use super::limits::{Cgroup, Events};
use super::{Finished, RunOptions};
use crate::fault::{Context, Fault, Kind, Result, why};
use crate::ids::Mode;
use crate::isolate::lost::Lost;
use crate::ops::adopt::TakenIn;
use crate::ops::words::count;
use crate::run::outcome::{Ended, Reason};
use crate::store::{BoxName, LayerId, RunId, RunRecord};
use crate::sys::process::{Usage, children_usage};

/// The file, opened before anything is run, so that a report that cannot be written stops the run and
/// not its commit.
#[derive(Debug)]
pub(super) struct Report {
    file: Option<(File, PathBuf)>,
}

/// What is told, gathered while the run goes on.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    run: RunId,
    #[serde(rename = "box")]
    box_name: BoxName,
    from: String,
    exit: Option<u8>,
    signal: Option<u8>,
    error: Option<String>,
    /// Of an error that is ours, what `--json` says, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    /// Why a result could not be copied out.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_error: Option<String>,
    pub(super) committed: Option<LayerId>,
    snapshot: Option<String>,
    /// What a sandbox inside has made, if it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) adopted: Vec<TakenIn>,
    id_map: Mode,
    lost: Vec<Lost>,
    /// What the limits of its cgroup did, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Events>,
    started: Timestamp,
    ended: Timestamp,
    pub(super) setup_us: u64,
    pub(super) commit_us: u64,
    usage: serde_json::Value,
}

impl Report {
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let file = path
            .map(|path| {
                let file = File::create(path).context("create report", path.display())?;
                Ok((file, path.to_path_buf()))
            })
            .transpose()?;
        Ok(Self { file })
    }

    /// The facts of a run that begins.
    pub(super) fn facts(&self, record: &RunRecord, started: Timestamp) -> Facts {
        Facts {
            run: record.run,
            box_name: record.box_name.clone(),
            from: record.from.clone(),
            exit: None,
            signal: None,
            error: None,
            kind: None,
            out_error: None,
            committed: None,
            snapshot: None,
            adopted: Vec::new(),
            id_map: record.id_map.mode,
            lost: Vec::new(),
            limits: None,
            started,
            ended: started,
            setup_us: 0,
            commit_us: 0,
            usage: serde_json::Value::Null,
        }
    }

    /// Writes the facts, or the fault of a run that had none.
    pub(super) fn write(&self, answer: &Result<(Finished, Facts)>) -> Result<()> {
        let Some((file, path)) = &self.file else { return Ok(()) };
        let text = match answer {
            Ok((_, facts)) => {
                let ended = Facts {
                    ended: Timestamp::now(),
                    usage: told(children_usage()),
                    ..facts.clone()
                };
                serde_json::to_string(&ended)
            }
            Err(fault) => {
                let told = serde_json::json!({ "error": fault.message, "kind": fault.kind });
                serde_json::to_string(&told)
            }
        };
        let text = text.map_err(std::io::Error::from).context("make report", path.display())?;
        let mut file = file;
        writeln!(file, "{text}").context("write report", path.display())
    }
}

impl Facts {
    /// The same of a run that goes without these protections; a line for each.
    pub(super) fn without(mut self, lost: &mut Vec<Lost>, warn: Option<fn(&str)>) -> Self {
        self.lost = std::mem::take(lost);
        if let Some(warn) = warn {
            self.lost.iter().for_each(|lost| warn(&lost.line()));
        }
        self
    }

    /// What the host refused while the sandbox was made, told already.
    pub(super) fn also_without(&mut self, lost: Vec<Lost>) {
        self.lost.extend(lost);
    }

    /// What the limits of the cgroup did, which goes with this.
    pub(super) fn held(&mut self, cgroup: Option<Cgroup>, options: &RunOptions, to: &mut Finished) {
        let Some(cgroup) = cgroup else { return };
        let events = cgroup.events();
        if let Some(bytes) = options.limits.wanted.memory.filter(|_| events.oom_kills > 0) {
            let killed = events.oom_kills;
            to.messages
                .push(format!("processes killed for want of memory: {killed}: --memory {bytes}"));
            self.error = Some("memory".to_owned());
        }
        self.limits = Some(events);
    }

    /// How the command ended.
    pub(super) fn ended(
        &mut self,
        ended: Ended,
        reason: Option<Reason>,
        options: &RunOptions,
        to: &mut Finished,
    ) {
        match ended {
            Ended::Code(code) => self.exit = Some(code),
            Ended::Signal(signal) => self.signal = Some(signal),
        }
        if let Some(reason) = reason {
            self.error = Some(reason.word().to_owned());
            to.messages.push(told_reason(reason, options));
        }
    }

    /// The command could not be started.
    pub(super) fn failed(&mut self, fault: &Fault) {
        (self.error, self.kind) = (Some(fault.message.clone()), Some(fault.kind));
    }

    /// A result could not be copied out; `alone` if nothing else went wrong.
    pub(super) fn out_failed(&mut self, fault: &Fault, alone: bool) {
        self.out_error = Some(fault.message.clone());
        if alone {
            self.failed(fault);
        }
    }

    /// A signal came after the command's end and before the end of what was due then.
    pub(super) fn interrupted(&mut self) {
        self.error = Some("interrupted".to_owned());
    }

    /// Why we ended the command, or could not start it.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The snapshot that names the new layer, if one does.
    pub(super) fn name(&self) -> Option<&str> {
        self.snapshot.as_deref()
    }

    /// The snapshot that names the new layer.
    pub(super) fn named(&mut self, snapshot: Option<String>) {
        self.snapshot = snapshot;
    }
}

/// Why we ended it, for a person.
fn told_reason(reason: Reason, options: &RunOptions) -> String {
    let bytes = |limit: Option<u64>| count(limit.unwrap_or_default(), "byte", "bytes");
    match reason {
        Reason::Time => {
            let time = options.timeout.unwrap_or_default().as_secs_f64();
            format!("ended after {time} s: --timeout")
        }
        Reason::Output => {
            format!("ended: it wrote more than {}: --output-limit", bytes(options.limits.output))
        }
        Reason::Disk => {
            format!("ended: its changes take more than {}: --disk", bytes(options.limits.disk))
        }
        Reason::Helper => "ended: a process that it cannot do without has failed".to_owned(),
    }
}

/// What a person is told of output that the command wrote, and that nobody took.
pub(super) fn unwritten(answer: Option<Errno>) -> Option<String> {
    let reason = why(answer?);
    Some(format!("pass on the output: {reason}: not all that the command wrote is there"))
}

fn told(usage: Usage) -> serde_json::Value {
    serde_json::json!({
        "user_us": usage.user_us,
        "system_us": usage.system_us,
        "max_rss": usage.max_rss,
    })
}
