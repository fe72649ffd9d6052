//! After the command: commit, keep or discard.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};

use super::report::Facts;
use super::resolve::Base;
use super::stay::Said;
use super::{After as Wanted, Finished, RunOptions, Upper};
use crate::fault::{Context, Fault, Kind, Result};
use crate::ids::{self, Entry, IdMap, Powers};
use crate::ops::commit::{self, Commit, Committed, News, Target};
use crate::ops::copyup;
use crate::ops::diff;
use crate::ops::words::amount;
use crate::run::outcome::{Ended, OURS};
use crate::store::{LayerId, Run, RunRecord, Store};
use crate::sys::signal::Deferred;
use crate::tree;

/// What decides about the changes of a run.
#[derive(Debug)]
pub(super) struct After<'a> {
    pub(super) store: &'a Store,
    pub(super) base: &'a Base,
    pub(super) options: &'a RunOptions,
    pub(super) record: &'a RunRecord,
    /// What somebody has said since about a run that stays.
    pub(super) said: Option<Said>,
    /// What the handler of remembered owners has written down.
    pub(super) journal: &'a [u8],
    /// Whether nobody else holds what is to be committed.
    pub(super) held: Result<()>,
    /// Why a result could not be copied out.
    pub(super) out_failed: Option<&'a Fault>,
    /// Signals that end a commit as long as nothing is named.
    pub(super) signals: &'a Deferred,
}

impl After<'_> {
    /// Commits after success, keeps what was asked to be kept. What neither holds is left to be discarded.
    pub(super) fn finish(
        &self,
        run: &mut Run,
        ended: Ended,
        finished: &mut Finished,
        facts: &mut Facts,
    ) -> Result<()> {
        let after = self.wanted(run)?;
        let commits = after != Wanted::Discard;
        // What a person has just said about a shell does not hang on its exit code.
        let said = commits && (self.said.is_some() || self.options.after == Wanted::Discard);
        let code = i32::from(ended.exit_code());
        if commits && (said || (ended.success() && self.out_failed.is_none())) {
            let begun = std::time::Instant::now();
            match self.commit(run, &after, code, finished) {
                Ok(layer) => {
                    facts.commit_us = begun.elapsed().as_micros() as u64;
                    facts.named(match &after {
                        Wanted::Commit(name) => Some(name.to_string()),
                        _ => None,
                    });
                    facts.committed = layer;
                    finished.committed = layer;
                    return Ok(());
                }
                // It was given up.
                Err(_) if self.signals.heard().is_some() => {}
                Err(fault) => return Err(self.rescue(run, fault)),
            }
        }
        let resumed = self.options.kept_run.is_some();
        let keeps = self.options.keep_on_failure && self.said.is_none();
        let spoilt = self.spoilt(ended, said);
        let kept = resumed || ((spoilt.is_some() || !ended.success()) && keeps);
        let ended_by = self.signals.heard().filter(|_| commits && (said || ended.success()));
        if let Some(signal) = ended_by {
            let rest = if kept { "" } else { ": nothing kept" };
            finished.messages.push(format!("ended by {signal} before the commit{rest}"));
        }
        if kept {
            if !self.record.made.is_empty() {
                // It is no change that `diff --run` should show; if that fails it is seen there, and no more.
                copyup::settle(self.store, run, self.record).ok();
            }
            self.keep_journal(run)?;
            // What lies at these places from now on was made by a command.
            let made = Vec::new();
            let (exit, fault) = (Some(code), spoilt);
            run.mark_kept(&RunRecord { exit, made, fault, ..self.record.clone() })?;
            finished.kept = true;
            let id = run.id();
            finished.messages.push(format!("kept as {id}: `sandbox shell --run {id}`"));
        } else if commits && !ended.success() && ended_by.is_none() {
            finished.messages.push(format!("nothing kept: the command ended with {code}"));
        } else if commits && ended_by.is_none() {
            finished.messages.push("nothing kept: a result could not be copied out".to_owned());
        }
        Ok(())
    }

    /// Why what a command has changed that returned 0, or that somebody wants, is not committed.
    fn spoilt(&self, ended: Ended, said: bool) -> Option<Fault> {
        if !ended.success() && !said {
            return None;
        }
        let given_up = |signal| Fault::failed(format!("commit: ended by {signal}"));
        self.out_failed.cloned().or_else(|| self.signals.heard().map(given_up))
    }

    /// What there is to say, beside how the command ended, of what has gone wrong since: a command that failed keeps its
    /// exit code.
    pub(super) fn tell(&self, ended: Ended, finished: &mut Finished, facts: &mut Facts) {
        let failed = !ended.success();
        let given_up = finished.committed.is_none() && self.said.is_some();
        let signal = self.signals.heard().filter(|_| !failed || given_up);
        if let Some(signal) = signal {
            finished.code = 128_u8.saturating_add(signal as u8);
            facts.interrupted();
        }
        let Some(fault) = self.out_failed else { return };
        let alone = !failed && signal.is_none();
        facts.out_failed(fault, alone);
        if alone {
            finished.code = OURS;
            finished.fault = Some(fault.clone());
        } else {
            finished.messages.push(fault.message.clone());
        }
    }

    /// What was asked for or, of a shell that changed something, what its person says now.
    fn wanted(&self, run: &Run) -> Result<Wanted> {
        if let Some(said) = &self.said {
            return Ok(said.after.clone());
        }
        let asked = self.options.after != Wanted::Discard || self.options.kept_run.is_some();
        let Some(ask) = self.options.ask.filter(|_| !asked && self.options.upper == Upper::Disk)
        else {
            return Ok(self.options.after.clone());
        };
        copyup::settle(self.store, run, self.record)?;
        let changes = diff::of_run(self.store, run, self.record, self.journal)?;
        if changes.is_empty() {
            return Ok(Wanted::Discard);
        }
        if self.signals.come().is_some() {
            return Ok(Wanted::Discard);
        }
        let name = self.signals.meanwhile(|| ask(&changes));
        Ok(name.map_or(Wanted::Discard, Wanted::Commit))
    }

    fn commit(
        &self,
        run: &Run,
        after: &Wanted,
        code: i32,
        finished: &mut Finished,
    ) -> Result<Option<LayerId>> {
        self.held.clone()?;
        let head = self.said.as_ref().map_or(self.base.head, |said| said.head);
        let made = commit::commit(&Commit {
            store: self.store,
            run,
            record: self.record,
            parent: &self.base.layer,
            target: match after {
                Wanted::Commit(name) => Target::Name(name),
                _ => Target::Head(head),
            },
            action: "run",
            exit: Some(code),
            journal: self.journal,
            read: false,
            digest: self.options.digest,
            // What was made inside has its names by now, and the command has not failed.
            signals: Some(self.signals).filter(|_| finished.adopted.is_empty()),
        })?;
        let name = match after {
            Wanted::Commit(name) => name.as_str(),
            _ => "head",
        };
        let Committed { layer, news, files, own_bytes } = made;
        finished.messages.push(match news {
            News::Made => format!("{name} -> {layer}: {}", amount(files, own_bytes)),
            News::Named => format!("{name} -> {layer}: nothing changed, no layer was made"),
            News::Nothing => format!("nothing changed: {name} is not moved, no layer was made"),
        });
        Ok((news != News::Nothing).then_some(layer))
    }

    fn keep_journal(&self, run: &Run) -> Result<()> {
        if self.journal.is_empty() { Ok(()) } else { run.keep_journal(self.journal) }
    }

    /// The command returned 0 and its changes could not be committed: they are kept, and the message
    /// says how to come back to them.
    fn rescue(&self, run: &mut Run, fault: Fault) -> Fault {
        let id = run.id();
        let hint = format!(
            "the changes are kept: `sandbox recover {id} --as NAME` makes a snapshot of them{}",
            self.beside(&fault)
        );
        let told = Fault { hint: Some(hint), ..fault.clone() };
        // Whoever asks later is told the same.
        let record = RunRecord { exit: Some(0), fault: Some(told.clone()), ..self.record.clone() };
        match self.keep_journal(run).and_then(|()| run.mark_kept(&record)) {
            Ok(()) => told,
            Err(_) => fault,
        }
    }

    /// What else there is to say to who has lost the race for head.
    fn beside(&self, fault: &Fault) -> &'static str {
        match (&self.options.after, fault.kind) {
            (Wanted::Keep | Wanted::KeepForce, Kind::Conflict) => {
                ", beside the new head; the same command again makes them on top of it"
            }
            _ => "",
        }
    }
}

/// Removes a run that is not kept; what is large is left in the trash.
pub(super) fn discard(store: &Store, run: Run) -> Result<()> {
    run.discard(store).map(drop)
}

/// Makes the work directory of an ended run usable again: overlayfs leaves a mark in it that forbids the
/// next mount, because an upper mounted `volatile` may have lost writes in a crash (kernel overlayfs.rst).
/// This run ended in order, or was recovered. What overlay binds left there is dropped with it.
pub(super) fn reopen(run: &Run, map: &IdMap) -> Result<()> {
    let work = run.work_dir()?;
    ids::inside(Entry::Map(map), Powers::Files, || {
        let list = rustix::fs::openat(&work, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(rustix::fs::Dir::new)
            .context("read", "the work directory")?;
        for entry in list {
            let entry = entry.context("read", "the work directory")?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                tree::remove::remove_tree(work.as_fd(), OsStr::from_bytes(name))?;
            }
        }
        Ok(())
    })
}
