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

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, major, minor, openat};
use rustix::io::{Errno, retry_on_intr};

use super::{Store, layout};
use crate::fault::{Context, Fault, Result, printable};

/// How long to sleep between two tries.
const STEP: Duration = Duration::from_millis(2);

/// The same for the exclusive lock: flock(2) lets those who share it pass by one who waits for it alone, so gc has to
/// look often to find the moment between them.
const EXCLUSIVE_STEP: Duration = Duration::from_micros(200);

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
    ///
    /// # Errors
    /// Busy if that takes longer than the store has patience.
    pub fn lock_shared(&self) -> Result<SharedLock> {
        let file = self.open_lock()?;
        let operation = FlockOperation::NonBlockingLockShared;
        self.flock_patiently(&file, operation, &format!("store {}", self.path.display()))?;
        Ok(SharedLock(file))
    }

    /// Takes a lock, trying again for as long as the store has patience: flock(2) itself waits for ever. `on`
    /// is what it locks, for the message.
    ///
    /// # Errors
    /// Busy, with whoever holds it, if others held it all the time.
    pub(super) fn flock_patiently(
        &self,
        lock: &OwnedFd,
        operation: FlockOperation,
        on: &str,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            match retry_on_intr(|| flock(lock, operation)) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(Fault::errno("lock", on, errno)),
            }
            let left = self.patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                let who = holder(lock).unwrap_or_else(|| "another command".to_owned());
                return Err(Fault::busy(format!("lock {on}: busy: {who} holds it"))
                    .hint("try again with --wait=T, or with --wait for as long as it takes"));
            }
            sleep(left.min(STEP));
        }
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
        let start = Instant::now();
        loop {
            if let Some(lock) = self.try_lock_exclusive()? {
                return Ok(lock);
            }
            let left = wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                let path = self.path.display();
                return Err(Fault::busy(format!("lock store: {path}: other commands are at work"))
                    .hint("try again, with --wait=T to wait for them"));
            }
            sleep(left.min(EXCLUSIVE_STEP));
        }
    }

    fn open_lock(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match retry_on_intr(|| openat(self.dir(), layout::LOCK, flags, Mode::empty())) {
            Err(Errno::NOENT) => Err(Fault::damaged(format!(
                "lock store: {}: the file is missing",
                self.show(layout::LOCK)
            ))
            .hint("`sandbox fsck --repair` makes it again")),
            other => other.context("lock store", self.path.display()),
        }
    }
}

/// Who holds a lock that we cannot have, by /proc/locks, which names files by device and inode: not on every
/// file system, and not for processes of other pid namespaces.
fn holder(lock: &OwnedFd) -> Option<String> {
    let stat = fstat(lock).ok()?;
    let file = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    let pid = holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &file)?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("process {pid} ({})", printable(name.trim_end())))
}

/// The pid in the line `1: FLOCK  ADVISORY  WRITE 123 fe:00:456 0 EOF` of this file. Lines of those who wait
/// have an arrow after the number.
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid = words.nth(2)?.parse().ok()?;
        (words.next() == Some(file) && pid != 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_others() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:456 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fe:00:457 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 9 fe:00:456 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 0 fe:00:456 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 10 fe:00:456 0 EOF\n";
        assert_eq!(holder_in(locks, "fe:00:456"), Some(10));
        assert_eq!(holder_in(locks, "fe:00:45"), None);
        assert_eq!(holder_in("", "fe:00:456"), None);
        assert_eq!(holder_in("garbage\n1:\n1: FLOCK\n", "fe:00:456"), None);
    }
}
