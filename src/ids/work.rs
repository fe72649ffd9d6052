//! Doing a job inside a user namespace, in a child.
//!
//! Two pipes: over `go` the parent says that the maps are written, over `answer` the child sends the JSON
//! of its `Result`, and the errno of a fault, which has none in JSON. No descriptor is closed for a job of [`inside`]: it works with the caller's.
//!
//! A job that may take long can be given up ([`inside_unless`]): its child is killed, as if the machine had stopped there.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, pidfd_send_signal, waitid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::enter::{Entry, Powers, become_root, tether};
use super::refused::namespace_refused;
use super::write::write_maps;
use crate::fault::{Context, Fault, Result};
use crate::sys::process::{Side, clone, exit_now};
use crate::sys::signal::Deferred;

const WHAT: &str = "work in a user namespace";

/// Does `job` as uid 0 of the user namespace, in a child, and returns what it returns.
///
/// The child has the caller's memory and descriptors as they are at this moment, the capabilities of
/// `powers`, no_new_privs, umask 0, and is killed if the caller ends. What the job changes in memory is
/// lost with it. Beneath directories that only the outside may enter (the store is 0700 and, in range
/// mode, of a stranger) it must work by descriptors opened by the caller. It must not panic, nor leave
/// processes behind that keep descriptors.
///
/// This process must have one thread.
///
/// # Errors
/// The job's own fault; a host fault with the remedy if there can be no such namespace; a failed one if
/// the child died.
pub fn inside<T>(entry: Entry<'_>, powers: Powers, job: impl FnOnce() -> Result<T>) -> Result<T>
where
    T: Serialize + DeserializeOwned,
{
    inside_prepared(entry, powers, || Ok(()), |()| job())
}

/// As [`inside`]; a signal that was deferred, and comes, kills the child. The job must be one that may be killed.
///
/// # Errors
/// As [`inside`] and [`unless_ended`].
pub fn inside_unless<T>(
    signals: Option<&Deferred>,
    entry: Entry<'_>,
    powers: Powers,
    job: impl FnOnce() -> Result<T>,
) -> Result<T>
where
    T: Serialize + DeserializeOwned,
{
    let prepare = || Ok(());
    inside_watched(
        entry,
        powers,
        prepare,
        |()| job(),
        |child, answer| watch(signals, child, answer),
    )
}

/// Does `job` in a child that is what we are, for a job that may take long and can be given up as that of
/// [`inside_unless`].
///
/// # Errors
/// As there.
pub fn aside<T>(signals: Option<&Deferred>, job: impl FnOnce() -> Result<T>) -> Result<T>
where
    T: Serialize + DeserializeOwned,
{
    let (answer, reply) = pipe()?;
    let parent = getpid();
    let child = match clone(0).context("make a process", "for a job")? {
        Side::Child => last_breath(|| send(&reply, &tether(parent).and_then(|()| job()))),
        Side::Parent { pidfd, .. } => pidfd,
    };
    drop(reply);
    hear(&child, &answer, |child, answer| watch(signals, child, answer))
}

/// Whether to go on: nobody has sent a signal that was deferred and would have ended this process.
///
/// # Errors
/// A failed fault that names the signal.
pub fn unless_ended(signals: Option<&Deferred>) -> Result<()> {
    match signals.and_then(Deferred::come) {
        Some(signal) => Err(Fault::failed(format!("ended by {signal}"))),
        None => Ok(()),
    }
}

/// As [`inside`], for a job that needs directories which only the caller may enter, in mounts of the job's
/// own mount namespace (overlay takes no descriptor of another one): `prepare` is called in that
/// namespace, before the child becomes uid 0 inside, with the rights of the caller to files. The working
/// directory is the caller's, carried over by the kernel.
///
/// # Errors
/// As [`inside`], and those of `prepare`.
pub fn inside_prepared<P, T>(
    entry: Entry<'_>,
    powers: Powers,
    prepare: impl FnOnce() -> Result<P>,
    job: impl FnOnce(P) -> Result<T>,
) -> Result<T>
where
    T: Serialize + DeserializeOwned,
{
    inside_watched(entry, powers, prepare, job, |_, _| Ok(()))
}

/// As [`inside_prepared`]; `watch` gets the child and what its answer is read from, before that is read.
fn inside_watched<P, T>(
    entry: Entry<'_>,
    powers: Powers,
    prepare: impl FnOnce() -> Result<P>,
    job: impl FnOnce(P) -> Result<T>,
    watch: impl FnOnce(&OwnedFd, &OwnedFd) -> Result<()>,
) -> Result<T>
where
    T: Serialize + DeserializeOwned,
{
    let (answer, reply) = pipe()?;
    let child = start(entry, powers, prepare, |entered| {
        send(&reply, &entered.and_then(job));
    })?;
    drop(reply);
    hear(&child, &answer, watch)
}

fn hear<T: DeserializeOwned>(
    child: &OwnedFd,
    answer: &OwnedFd,
    watch: impl FnOnce(&OwnedFd, &OwnedFd) -> Result<()>,
) -> Result<T> {
    let watched = watch(child, answer);
    let text = read_all(answer);
    let end = reap(child);
    watched?;
    decode(&text?, &end)
}

/// Waits for the first word of the answer, or kills the child for the sake of a signal.
fn watch(signals: Option<&Deferred>, child: &OwnedFd, answer: &OwnedFd) -> Result<()> {
    let Some(signal) = signals.and_then(Deferred::fd) else { return Ok(()) };
    loop {
        let mut fds =
            [PollFd::new(answer, PollFlags::IN), PollFd::from_borrowed_fd(signal, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for", "a job"),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        if let Err(fault) = unless_ended(signals) {
            pidfd_send_signal(child, rustix::process::Signal::KILL).ok();
            return Err(fault);
        }
    }
}

/// Starts a child that does `job` as uid 0 of the user namespace while the caller goes on, and ends with the
/// code that the job returns, or with 125: its pidfd. It is killed if the caller ends.
///
/// # Errors
/// A host fault with the remedy if there can be no such namespace.
pub fn beside(entry: Entry<'_>, powers: Powers, job: impl FnOnce() -> i32) -> Result<OwnedFd> {
    start(
        entry,
        powers,
        || Ok(()),
        |entered| {
            exit_now(entered.map_or(NOT_ENTERED, |()| job()));
        },
    )
}

/// The exit code of a child of [`beside`] that could not become what it should.
pub(super) const NOT_ENTERED: i32 = 125;

/// Makes the child, has its maps written and lets it go: its pidfd. In the child, `work` gets how entering went.
fn start<P>(
    entry: Entry<'_>,
    powers: Powers,
    prepare: impl FnOnce() -> Result<P>,
    work: impl FnOnce(Result<P>),
) -> Result<OwnedFd> {
    let (wait, go) = pipe()?;
    let parent = getpid();
    match clone(entry.namespaces(powers)).map_err(namespace_refused)? {
        Side::Child => {
            drop(go);
            last_breath(|| child(entry, powers, parent, &wait, prepare, work))
        }
        Side::Parent { child, pidfd } => {
            let written = entry.map_of_parent().map_or(Ok(()), |map| write_maps(child, map));
            if written.is_ok() {
                // A child that is gone already shows by its missing answer. We hold the reading end until
                // after this, so that the write cannot raise SIGPIPE.
                let _gone = retry_on_intr(|| rustix::io::write(&go, b"!"));
            }
            drop((go, wait));
            if let Err(fault) = written {
                let _end = reap(&pidfd);
                return Err(fault);
            }
            Ok(pidfd)
        }
    }
}

fn child<P>(
    entry: Entry<'_>,
    powers: Powers,
    parent: Pid,
    wait: &OwnedFd,
    prepare: impl FnOnce() -> Result<P>,
    work: impl FnOnce(Result<P>),
) {
    let mut word = [0];
    let tethered = tether(parent);
    // The end of the pipe means that the parent has given up, and has told why itself.
    if let Ok(1) = retry_on_intr(|| rustix::io::read(wait, &mut word)) {
        work(tethered.and_then(|()| become_root(entry, powers, parent, prepare)));
    }
}

/// Runs what a child has to do, and ends it: never back into the parent's frames, also not by a panic.
fn last_breath(run: impl FnOnce()) -> ! {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(()) => exit_now(0),
        Err(_) => std::process::abort(),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).context("make a pipe", "for a job")
}

/// Sends the answer. If that fails, the parent finds none, and says so.
fn send<T: Serialize>(reply: &OwnedFd, result: &Result<T>) {
    let errno = result.as_ref().err().and_then(|fault| fault.errno);
    let text = serde_json::to_vec(&(errno, result)).or_else(|error| {
        let fault = Fault::failed(format!("{WHAT}: the answer: {error}"));
        serde_json::to_vec(&(None::<i32>, Err::<(), _>(fault)))
    });
    let (Ok(text), Ok(copy)) = (text, reply.try_clone()) else { return };
    let _unsent = std::fs::File::from(copy).write_all(&text);
}

fn read_all(answer: &OwnedFd) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        match retry_on_intr(|| rustix::io::read(answer, &mut part))
            .context("read", "answer of a job")?
        {
            0 => return Ok(text),
            size => text.extend_from_slice(&part[..size]),
        }
    }
}

/// How a child ended, in words.
fn reap(pidfd: &OwnedFd) -> String {
    let ended = WaitIdOptions::EXITED;
    match retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), ended)) {
        Ok(Some(status)) => match status.terminating_signal() {
            Some(signal) => {
                let name = Signal::try_from(signal).map_or("unknown", Signal::as_str);
                format!("ended by a signal: {name}")
            }
            None => format!("ended with {}", status.exit_status().unwrap_or_default()),
        },
        // Whoever ignores SIGCHLD has its children reaped by the kernel.
        Ok(None) | Err(Errno::CHILD) => "ended without a word".to_owned(),
        Err(errno) => format!("cannot be waited for: {}", crate::fault::why(errno)),
    }
}

fn decode<T: DeserializeOwned>(text: &[u8], end: &str) -> Result<T> {
    if text.is_empty() {
        return Err(Fault::failed(format!("{WHAT}: the child: {end}")));
    }
    let (errno, result) = serde_json::from_slice::<(Option<i32>, Result<T>)>(text)
        .map_err(|error| Fault::failed(format!("{WHAT}: the child: {end}: {error}")))?;
    result.map_err(|fault| Fault { errno, ..fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_comes_back_with_its_errno() {
        let (answer, reply) = pipe().unwrap();
        let fault = Fault::errno("become uid 0", "in the user namespace", Errno::PERM).hint("x");
        send(&reply, &Err::<(), _>(fault.clone()));
        drop(reply);
        assert_eq!(decode::<()>(&read_all(&answer).unwrap(), "ended"), Err(fault));
    }
}
