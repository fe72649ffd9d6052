//! The store lock: flock(2) on the file `lock`.
//!
//! Shared: from resolving names until the record of the run (with its chain) is written, and from
//! publishing a layer until its ref is moved. Exclusive: while gc marks and moves what is dead to the
//! trash. Both are tokens: what needs the lock takes a reference to it.
//!
//! The lock is given up by LOCK_UN and not only by closing, because a child that was forked meanwhile
//! shares it. So a token must not be moved into a child that runs destructors: it would unlock for its parent.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::{Errno, retry_on_intr};

use super::{Store, layout};
use crate::fault::{Context, Fault, Result};

/// Nothing becomes garbage while this is held.
#[derive(Debug)]
pub struct SharedLock(OwnedFd);

/// Nobody makes anything reachable while this is held.
#[derive(Debug)]
pub struct ExclusiveLock(OwnedFd);

impl Drop for SharedLock {
    fn drop(&mut self) {
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}

impl Drop for ExclusiveLock {
    fn drop(&mut self) {
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}

impl Store {
    /// Takes the store lock shared; waits for a gc that is marking, which is short.
    pub fn lock_shared(&self) -> Result<SharedLock> {
        let file = self.open_lock()?;
        retry_on_intr(|| flock(&file, FlockOperation::LockShared))
            .context("lock store", self.path.display())?;
        Ok(SharedLock(file))
    }

    /// Takes the store lock exclusively, or says `None` if anybody holds it.
    pub fn try_lock_exclusive(&self) -> Result<Option<ExclusiveLock>> {
        let file = self.open_lock()?;
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Some(ExclusiveLock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Fault::errno("lock store", self.path.display(), errno)),
        }
    }

    /// Takes the store lock exclusively, trying again for as long as `wait`.
    ///
    /// # Errors
    /// Busy if others held it all the time.
    pub fn lock_exclusive(&self, wait: Duration) -> Result<ExclusiveLock> {
        let end = Instant::now() + wait;
        loop {
            if let Some(lock) = self.try_lock_exclusive()? {
                return Ok(lock);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let path = self.path.display();
                return Err(Fault::busy(format!("lock store: {path}: other commands are at work"))
                    .hint("try again, with --wait=T to wait for them"));
            }
            sleep(left.min(Duration::from_millis(2)));
        }
    }

    fn open_lock(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match retry_on_intr(|| openat(self.dir(), layout::LOCK, flags, Mode::empty())) {
            Err(Errno::NOENT) => Err(Fault::damaged(format!(
                "lock store: {}: the file is missing",
                self.show(layout::LOCK)
            ))
            .hint("make it again: create an empty file of this name")),
            other => other.context("lock store", self.path.display()),
        }
    }
}
