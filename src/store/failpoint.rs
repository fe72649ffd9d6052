//! Places where a test can make the store fail: before and after each system call that changes it.
//!
//! Without the feature `failpoints` a [`step`] is the call and nothing else. With it, the environment
//! variable `SANDBOX_FAIL=<step>.<before|after>:<kill|exit|ENOSPC|EIO>` kills the process, ends it, or
//! makes the step fail at that place.

#[cfg(not(feature = "failpoints"))]
use rustix::io::Errno;

/// Every step there is, in the order of the life of a run.
#[cfg(feature = "failpoints")]
pub(crate) const STEPS: &[&str] = &[
    "create.folders",
    "create.lock",
    "create.format",
    "box.make",
    "box.fill",
    "box.rename",
    "box.fsync",
    "run.mkdir",
    "run.open",
    "run.lock",
    "run.flock",
    "run.layer",
    "run.fs",
    "run.work",
    "run.rename",
    "run.record",
    "run.record.temp",
    "run.record.rename",
    "publish.owners",
    "publish.syncfs",
    "publish.record.create",
    "publish.record.write",
    "publish.record.fsync",
    "publish.layer.fsync",
    "publish.rename",
    "publish.layers.fsync",
    "ref.temp",
    "ref.temp.fsync",
    "ref.rename",
    "ref.remove",
    "ref.fsync",
    "head.temp",
    "head.temp.fsync",
    "head.rename",
    "head.fsync",
    "log.append",
    "discard.fs",
    "discard.work",
    "discard.layer",
    "discard.record",
    "discard.lock",
    "discard.run",
    "discard.trash",
    "reap.trash",
    "gc.layer",
    "gc.cache",
    "gc.temp",
    "trash.foreign",
    "trash.own",
];

/// Does the call, which is the step of this name.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn step<T>(_name: &str, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    call()
}

#[cfg(feature = "failpoints")]
pub(crate) use armed::step;

#[cfg(feature = "failpoints")]
mod armed {
    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    use crate::sys::process::exit_now;

    /// Does the call, which is the step of this name, and fails as the environment says.
    pub(crate) fn step<T>(name: &str, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        debug_assert!(super::STEPS.contains(&name), "{name} is not listed");
        point(name, "before")?;
        let value = call()?;
        point(name, "after")?;
        Ok(value)
    }

    fn point(name: &str, place: &str) -> Result<(), Errno> {
        let Ok(wish) = std::env::var("SANDBOX_FAIL") else { return Ok(()) };
        let Some((wished, how)) = wish.split_once(':') else { return Ok(()) };
        if wished.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) != Some(place) {
            return Ok(());
        }
        match how {
            "kill" => kill_process(getpid(), Signal::KILL),
            "ENOSPC" => Err(Errno::NOSPC),
            "EIO" => Err(Errno::IO),
            _ => exit_now(99),
        }
    }
}
