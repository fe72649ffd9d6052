//! Places where a test can make the store fail: before and after each system call that changes it.
//!
//! In a release build a [`step`] is the call and nothing else. In a debug build (and with the feature
//! `failpoints`) the environment says what is to happen at a step:
//!
//! `SANDBOX_FAIL=<step>.<before|after>[#n][+]:<how>`
//!
//! | part | meaning |
//! | --- | --- |
//! | step | a name of [`STEPS`], or `*` for any |
//! | `#n` | only the n-th time (from 1) that this process gets there; without it, every time |
//! | `+` | the n-th time and all later ones: a disk that fails goes on failing |
//! | how | `kill` (SIGKILL), `exit` (code 99), `stop` (SIGSTOP, until somebody continues it), or the name of an errno |
//!
//! `SANDBOX_FAIL_SEEN=FILE`: the name of each step that is reached becomes a line of this file.

use rustix::io::Errno;

/// Every step there is, in the order of the life of a run.
#[cfg(any(debug_assertions, feature = "failpoints"))]
pub(crate) const STEPS: &[&str] = &[
    "create.above",
    "create.mode",
    "create.folders",
    "create.lock",
    "create.format",
    "box.make",
    "box.fill",
    "box.rename",
    "box.fsync",
    "box.remove",
    "box.record.temp",
    "box.record.temp.fsync",
    "box.record.rename",
    "box.record.fsync",
    "spare.take",
    "spare.swap.work",
    "spare.swap.fs",
    "spare.work",
    "spare.fs",
    "spare.trash",
    "spare.clean",
    "spare.next",
    "spare.open",
    "spare.record",
    "spare.put",
    "run.mkdir",
    "run.open",
    "run.lock",
    "run.flock",
    "run.layer",
    "run.fs",
    "run.work",
    "run.chown",
    "run.rename",
    "run.record",
    "run.journal",
    "run.record.temp",
    "run.record.rename",
    "run.log",
    "run.socket",
    "nest.make",
    "nest.folder",
    "nest.file",
    "nest.chown",
    "upper.unlink",
    "fold.mkdir",
    "fold.link",
    "fold.opaque",
    "fold.attributes",
    "fold.prune",
    "publish.owners",
    "publish.manifest",
    "publish.syncfs",
    "publish.record.create",
    "publish.record.write",
    "publish.record.fsync",
    "publish.layer.fsync",
    "publish.becomes",
    "publish.rename",
    "publish.layers.fsync",
    "publish.back",
    "adopt.stage",
    "adopt.move",
    "adopt.owners",
    "adopt.record.create",
    "adopt.record.write",
    "adopt.record.fsync",
    "adopt.layer.fsync",
    "adopt.syncfs",
    "adopt.rename",
    "adopt.layers.fsync",
    "adopt.back",
    "adopt.trash",
    "ref.temp",
    "ref.temp.fsync",
    "head.temp",
    "head.temp.fsync",
    "log.append",
    "ref.rename",
    "ref.remove",
    "ref.fsync",
    "head.rename",
    "head.fsync",
    "log.temp",
    "log.temp.fsync",
    "log.rename",
    "log.fsync",
    "ended.temp",
    "ended.log",
    "ended.rename",
    "ended.unlink",
    "discard.fs",
    "discard.work",
    "discard.layer",
    "discard.record",
    "discard.lock",
    "discard.run",
    "discard.trash",
    "settle.rename",
    "settle.unlink",
    "reap.trash",
    "settings.write",
    "seal.append",
    "seal.file.fsync",
    "seal.rename",
    "seal.fsync",
    "repair.make",
    "repair.rewrite",
    "repair.mode",
    "repair.remove",
    "repair.refs.fsync",
    "repair.head",
    "repair.log",
    "repair.run",
    "repair.layer",
    "gc.layer",
    "gc.cache",
    "cache.make",
    "cache.lock",
    "cache.fs",
    "cache.chown",
    "cache.rename",
    "cache.trash",
    "gc.temp",
    "trash.foreign",
    "trash.own",
];

/// A step of work on files of layers, whose system calls are made elsewhere: it fails before them or not at
/// all.
pub(crate) fn reached(name: &'static str) -> Result<(), Errno> {
    step(name, || Ok(()))
}

/// Does the call, which is the step of this name.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
#[inline]
pub(crate) fn step<T>(_name: &str, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    call()
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
pub(crate) use armed::step;

#[cfg(any(debug_assertions, feature = "failpoints"))]
mod armed {
    use std::env;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    use crate::sys::process::exit_now;

    /// How often this process has been where the environment wants it to fail.
    static TIMES: AtomicU32 = AtomicU32::new(0);

    /// What `how` may name beside signals.
    const ERRNOS: [(&str, Errno); 11] = [
        ("ENOSPC", Errno::NOSPC),
        ("EIO", Errno::IO),
        ("EDQUOT", Errno::DQUOT),
        ("EROFS", Errno::ROFS),
        ("EMFILE", Errno::MFILE),
        ("ENFILE", Errno::NFILE),
        ("EMLINK", Errno::MLINK),
        ("EINTR", Errno::INTR),
        ("ENOMEM", Errno::NOMEM),
        ("EACCES", Errno::ACCESS),
        ("ESTALE", Errno::STALE),
    ];

    /// Does the call, which is the step of this name, and fails as the environment says.
    pub(crate) fn step<T>(name: &str, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        debug_assert!(super::STEPS.contains(&name), "{name} is not listed");
        note(name);
        point(name, "before")?;
        let value = call()?;
        point(name, "after")?;
        Ok(value)
    }

    fn note(name: &str) {
        let Some(path) = env::var_os("SANDBOX_FAIL_SEEN") else { return };
        let file = OpenOptions::new().append(true).create(true).open(path);
        // One write, so that processes do not mix their lines.
        file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes())).ok();
    }

    fn point(name: &str, place: &str) -> Result<(), Errno> {
        let Ok(wish) = env::var("SANDBOX_FAIL") else { return Ok(()) };
        let Some((at, how)) = wish.split_once(':') else { return Ok(()) };
        if !is_here(at, name, place) {
            return Ok(());
        }
        match how {
            "kill" => kill_process(getpid(), Signal::KILL),
            "stop" => kill_process(getpid(), Signal::STOP),
            "exit" => exit_now(99),
            // A test that fails in a way nobody knows must not pass.
            _ => match ERRNOS.iter().find(|(known, _)| *known == how) {
                Some((_, errno)) => Err(*errno),
                None => exit_now(98),
            },
        }
    }

    /// Whether `at` means this place, and this time.
    fn is_here(at: &str, name: &str, place: &str) -> bool {
        let (at, ever) = at.strip_suffix('+').map_or((at, false), |at| (at, true));
        let (at, number) = match at.split_once('#') {
            Some((at, number)) => (at, number.parse().ok()),
            None => (at, None),
        };
        let Some((step, side)) = at.rsplit_once('.') else { return false };
        if (step != "*" && step != name) || side != place {
            return false;
        }
        let time = TIMES.fetch_add(1, Ordering::Relaxed) + 1;
        number.is_none_or(|wanted: u32| time == wanted || (ever && time > wanted))
    }
}
