//! A run that stays: what its supervisor does besides, from the making of its pipes to the last word to those
//! who wait for its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, openpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcgetattr};
use serde::{Deserialize, Serialize};

use super::resolve::Base;
use super::{After, Finished, RunOptions, Upper};
use crate::fault::{Context, Fault, Result};
use crate::ids::IdMap;
use crate::ops::snapshot::refuse_taken;
use crate::run::answer;
use crate::run::moments::Order;
use crate::run::outcome::{Ended, OURS, Reason};
use crate::run::spec::{RunSpec, TerminalSpec};
use crate::run::supervisor::output::{Log, Output};
use crate::run::supervisor::serve::Server;
use crate::run::supervisor::{Confinement, Ending, Held, Verdict, held};
use crate::run::terminal;
use crate::store::{LayerId, Run, RunId, RunName, Store};

/// What makes a run one that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// Its name.
    pub name: Option<RunName>,
    /// Whether the command reads what those type who attach.
    pub input: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// How many bytes of output are kept at least.
    pub log_limit: u64,
}

/// What whoever started it hears, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Birth {
    /// The command is being executed.
    Running(RunId),
    /// It never was.
    Stillborn(Ending),
}

/// The supervisor's part of it.
#[derive(Debug)]
pub(crate) struct Staying {
    stay: Stay,
    /// Who started it, until he has heard of the birth.
    caller: Option<OwnedFd>,
    /// Whether he has.
    begun: bool,
    parts: Option<Parts>,
    server: Option<Server>,
    run: Option<RunId>,
    /// Where the handlers of all commands of the run write down what they remember.
    journal: Option<OwnedFd>,
}

/// What is made before there is a run.
#[derive(Debug)]
struct Parts {
    limit: Option<u64>,
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    confinement: OwnedFd,
    needed: Vec<Held>,
}

/// One more descriptor of the same file.
fn same(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().context("open once more", "a file in memory")
}

impl Staying {
    /// For a run whose caller listens on this socket.
    pub(crate) fn new(stay: Stay, caller: OwnedFd) -> Self {
        let caller = Some(caller);
        Self { stay, caller, begun: false, parts: None, server: None, run: None, journal: None }
    }

    pub(super) fn options(&self) -> &Stay {
        &self.stay
    }

    pub(super) fn name(&self) -> Option<&RunName> {
        self.stay.name.as_ref()
    }

    /// Puts what the command gets in the place of our standard descriptors, and keeps the other ends. All commands get one
    /// journal.
    pub(super) fn prepare(&mut self, spec: &mut RunSpec, map: &IdMap) -> Result<()> {
        if spec.remember.is_some() {
            let journal = answer::journal().context("make", "a file in memory")?;
            spec.journal = Some(same(&journal)?);
            self.journal = Some(journal);
        }
        let confinement = Confinement::of(spec).seal().context("make", "a file in memory")?;
        let (from, to) = self.pipes(map).context("make", "the pipes of the command")?;
        let mut needed = held::needed(spec.own_network);
        // Whoever joins is under the same limits.
        needed.extend(spec.cgroup.is_some().then_some(Held::Limits));
        self.parts = Some(Parts { limit: spec.output_limit, from, to, confinement, needed });
        Ok(())
    }

    fn pipes(&self, map: &IdMap) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Errno> {
        let_go()?;
        if self.stay.terminal {
            return Ok((None, None));
        }
        let (from, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        give(&theirs, map);
        dup2_stdout(&theirs)?;
        dup2_stderr(&theirs)?;
        let mut to = None;
        if self.stay.input {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            give(&theirs, map);
            dup2_stdin(&theirs)?;
            to = Some(ours);
        }
        Ok((Some(from), to))
    }

    /// The run has its directory, and the sandbox has our standard descriptors: begins to serve.
    pub(super) fn serve(&mut self, run: &Run) -> Result<()> {
        let Some(parts) = self.parts.take() else { return Ok(()) };
        let Parts { limit, from, to, confinement, needed } = parts;
        let_go().context("open", "/dev/null")?;
        let (log, reader) = run.create_log()?;
        let listener = run.listen()?;
        let log = Log::new(log, self.stay.log_limit);
        let server = Output::pipes(log, from, to)
            .map(|output| output.limited(limit))
            .and_then(|out| Server::new(run.id(), listener, reader, out, confinement, needed));
        let mut server = server.context("serve", run.id())?;
        if let Some(journal) = &self.journal {
            server.hold(Held::Journal, same(journal)?);
        }
        self.server = Some(server);
        self.run = Some(run.id());
        Ok(())
    }

    /// The command is being executed: whoever started it may go.
    ///
    /// # Errors
    /// If he is gone already, nobody knows of the run, and it is ended.
    pub(super) fn executing(&mut self) -> Result<()> {
        let (Some(run), Some(caller)) = (self.run, self.caller.take()) else { return Ok(()) };
        tell(&caller, &Birth::Running(run)).context("start run", run)?;
        self.begun = true;
        Ok(())
    }

    pub(super) fn held(&mut self, what: Held, fd: OwnedFd) {
        if let Some(server) = &mut self.server {
            server.hold(what, fd);
        }
    }

    pub(super) fn terminal(&mut self, master: OwnedFd) {
        // What cannot be relayed is closed, and the command sees its terminal hang up.
        if let Some(server) = &mut self.server {
            server.use_terminal(master).ok();
        }
    }

    pub(super) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.server.as_ref().map(Server::waits_for)
    }

    pub(super) fn called(
        &mut self,
        store: &Store,
        base: &Base,
        options: &RunOptions,
    ) -> Result<Vec<Order>> {
        let Some(server) = &mut self.server else { return Ok(Vec::new()) };
        let mut judge = |verdict: &Verdict| judge(store, base, options, verdict);
        server.turn(&mut judge).context("serve", "a run")
    }

    /// What all commands of the run have left in their journal.
    pub(super) fn take_journal(&mut self) -> Option<OwnedFd> {
        self.journal.take()
    }

    /// The sandbox is gone: lets go of what we hold of it.
    ///
    /// # Errors
    /// Busy if others do not.
    pub(super) fn close(&mut self) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), Server::close)
    }

    /// How the command ended, and why we ended it: the last of its output may have been too much.
    pub(super) fn last(&self, ended: Ended, reason: Option<Reason>) -> (Ended, Option<Reason>) {
        match &self.server {
            Some(server) if server.is_over() && reason.is_none() => {
                (Ended::Signal(9), Some(Reason::Output))
            }
            _ => (ended, reason),
        }
    }

    /// What is to become of the changes, if somebody has said so since, and the head that is then expected.
    pub(super) fn said(&self, store: &Store, base: &Base) -> Result<Option<Said>> {
        let Some(verdict) = self.server.as_ref().and_then(Server::verdict) else {
            return Ok(None);
        };
        Ok(Some(match verdict {
            Verdict::Commit(name) => Said { after: After::Commit(name.clone()), head: None },
            Verdict::Keep => Said { after: After::Keep, head: Some(base.layer.id) },
            Verdict::KeepForce => {
                let head = store.open_box(&base.box_name)?.head()?;
                Said { after: After::KeepForce, head }
            }
            Verdict::Discard => Said { after: After::Discard, head: None },
        }))
    }

    /// Whether whoever started it was told that the command is being executed.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Tells everybody how it ended; of a run that is left, its log knows before.
    pub(crate) fn finish(mut self, store: &Store, answer: Result<Finished>) {
        let ending = ending(self.run, answer);
        if let Some(caller) = self.caller.take() {
            tell(&caller, &Birth::Stillborn(ending.clone())).ok();
        }
        let Some(mut server) = self.server.take() else { return };
        if ending.is_left() {
            let fault = ending.fault.iter().map(|fault| &fault.message);
            let lines = ending.messages.iter().chain(fault);
            lines.for_each(|line| server.note(&format!("sandbox: {line}")));
        }
        server.finish(&ending);
        if let Some(run) = &ending.run {
            store.forget_socket(run);
        }
    }
}

/// What somebody has said about the changes of a run that he stopped.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) after: After,
    pub(super) head: Option<LayerId>,
}

fn ending(run: Option<RunId>, answer: Result<Finished>) -> Ending {
    match answer {
        Ok(finished) => Ending {
            run: Some(finished.run),
            code: finished.code,
            messages: finished.messages,
            fault: finished.fault,
            committed: finished.committed,
            kept: finished.kept,
        },
        Err(fault) => Ending {
            run,
            code: OURS,
            messages: Vec::new(),
            fault: Some(fault),
            committed: None,
            kept: false,
        },
    }
}

fn tell(caller: &OwnedFd, birth: &Birth) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(birth).map_err(|_| Errno::INVAL)?;
    rustix::net::send(caller, &bytes, rustix::net::SendFlags::NOSIGNAL).map(drop)
}

/// /dev/null in the place of 0, 1, 2.
fn let_go() -> Result<(), Errno> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}

/// A pipe is opened again by its name in /proc (/dev/stdout): only its owner may. Where inside root is not
/// the caller, it is made his; a refusal leaves it as it is.
fn give(pipe: &OwnedFd, map: &IdMap) {
    let (uid, gid) = map.root_owner();
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::fchown(pipe.as_fd(), Some(uid), Some(gid)).ok();
}

/// The terminal of a command that nobody looks at yet: set as the caller's is, or as a new one is.
pub(super) fn terminal_spec(stay: &Stay) -> Result<Option<TerminalSpec>> {
    if !stay.terminal {
        return Ok(None);
    }
    if let Some(spec) = terminal::inspect().filter(|spec| spec.replaces[0]) {
        return Ok(Some(TerminalSpec { replaces: [true; 3], ..spec }));
    }
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let settings = openpt(flags).and_then(tcgetattr).context("make", "a terminal")?;
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(Some(TerminalSpec { replaces: [true; 3], settings, size }))
}

/// Whether a run may be stopped so: what would fail at the end is refused before anything is ended.
fn judge(store: &Store, base: &Base, options: &RunOptions, verdict: &Verdict) -> Result<()> {
    if *verdict != Verdict::Discard && options.upper != Upper::Disk {
        return Err(Fault::usage("stop: --upper tmpfs: changes in memory cannot be kept")
            .hint("stop it without --commit and --keep"));
    }
    match verdict {
        Verdict::Commit(name) => refuse_taken(store, &base.box_name, name),
        Verdict::Keep if store.open_box(&base.box_name)?.head()? != Some(base.layer.id) => {
            let message = format!("keep: {}: is not the head of box {}", base.from, base.box_name);
            Err(Fault::conflict(message)
                .hint("use --commit NAME, or --keep=force to move the head"))
        }
        Verdict::KeepForce => store.open_box(&base.box_name).map(drop),
        Verdict::Keep | Verdict::Discard => Ok(()),
    }
}
