//! How jobs begin and end.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, pidfd_send_signal, wait,
    waitid,
};
use sandbox::fault::{Fault, Kind};
use sandbox::ids::{Entry, Extent, IdMap, Mode, Powers, inside, inside_detached};
use sandbox::sys::process::{Side, clone, exit_now};

use crate::cases::{make, map, stage};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn wait_for(pidfd: &OwnedFd) {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    assert!(status.expect("wait").is_some());
}

/// Waits until nobody holds the other end of the pipe.
fn wait_for_end(mut pipe: File) {
    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
    let time = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&time)), Ok(1), "somebody still holds the pipe");
    assert_eq!(pipe.read(&mut [0]).expect("read"), 0);
}

/// Fields of proc_pid_stat(5), counted from the one after the name. The session is read here and not by
/// getsid(2), which answers 0 for one of an outer pid namespace.
const SESSION: usize = 3;
const NICE: usize = 16;

fn stat_field(number: usize) -> String {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = text.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().nth(number).unwrap_or_default().to_owned()
}

fn assert_no_children() {
    // PID 1 of a pid namespace is given the orphans: the detached jobs.
    if getpid() == Pid::INIT {
        return;
    }
    let answer = wait(WaitOptions::NOHANG);
    assert_eq!(answer.map(|_| ()), Err(rustix::io::Errno::CHILD), "a child is left");
}

pub(crate) fn panic(mode: Mode) {
    let map = map(mode);
    let own = getpid();
    let fault = inside::<()>(Entry::Map(&map), Powers::Files, || panic!("on purpose"));
    let fault = fault.expect_err("a panic is no answer");
    assert_eq!(getpid(), own, "a child came back");
    assert_eq!(fault.kind, Kind::Failed);
    assert!(fault.message.ends_with("ended by a signal: SIGABRT"), "{fault}");
    assert_no_children();
}

pub(crate) fn killed(mode: Mode) {
    let map = map(mode);
    let fault = inside::<()>(Entry::Map(&map), Powers::Files, || {
        kill_process(getpid(), Signal::KILL).map_err(|e| Fault::errno("kill", "self", e))?;
        Ok(())
    });
    let fault = fault.expect_err("no answer");
    assert!(fault.message.ends_with("ended by a signal: SIGKILL"), "{fault}");
    let fault = inside::<()>(Entry::Map(&map), Powers::Files, || exit_now(7));
    assert!(fault.expect_err("no answer").message.ends_with("ended with 7"));
    assert_no_children();
}

pub(crate) fn tethered(mode: Mode) {
    let map = map(mode);
    let (end, held) = rustix::pipe::pipe().expect("pipe");
    match clone(0).expect("clone") {
        Side::Child => {
            drop(end);
            let _answer = inside(Entry::Map(&map), Powers::Files, || {
                let _told = rustix::io::write(&held, b"!");
                std::thread::sleep(2 * PATIENCE);
                Ok(())
            });
            exit_now(0)
        }
        Side::Parent { pidfd, .. } => {
            drop(held);
            assert_eq!(rustix::io::read(&end, &mut [0]), Ok(1), "the job began");
            pidfd_send_signal(&pidfd, Signal::KILL).expect("kill");
            wait_for(&pidfd);
            wait_for_end(File::from(end));
        }
    }
}

pub(crate) fn detached(mode: Mode) {
    let map = map(mode);
    let (dir, fs) = stage(&map);
    let (end, held) = rustix::pipe::pipe().expect("pipe");
    let (go, say_go) = (dir.path().join("go"), dir.path().join("fs/done"));
    let lock = File::create(dir.path().join("lock")).expect("lock");
    flock(&lock, FlockOperation::LockExclusive).expect("lock");
    let outer = rustix::fs::openat(
        rustix::fs::CWD,
        dir.path(),
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .expect("open");
    // In range mode inside 0 may not enter the outer directory, but a descriptor lets it look.
    rustix::fs::fchmod(&outer, rustix::fs::Mode::from_raw_mode(0o755)).expect("chmod");
    let session = stat_field(SESSION);
    inside_detached(Entry::Map(&map), || {
        let start = Instant::now();
        let exists = || rustix::fs::statat(&outer, "go", rustix::fs::AtFlags::empty()).is_ok();
        while !exists() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let null = std::fs::read_link("/proc/self/fd/1").is_ok_and(|to| to.ends_with("dev/null"));
        if stat_field(NICE) == "19" && null && stat_field(SESSION) != session {
            drop(make(&fs, "done"));
        }
    })
    .expect("started");
    assert_no_children();
    assert!(!say_go.exists(), "returned before the job has ended");
    drop(held);
    wait_for_end(File::from(end));
    drop(lock);
    let again = File::open(dir.path().join("lock")).expect("open");
    flock(&again, FlockOperation::NonBlockingLockExclusive).expect("the job holds the lock");
    File::create(go).expect("go");
    let start = Instant::now();
    while !say_go.exists() {
        assert!(start.elapsed() < PATIENCE, "the job did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn detached_in_vain(mode: Mode) {
    // What is no user namespace cannot be joined; the caller of a detached job learns it too.
    let null = File::open("/dev/null").expect("open");
    let fault = inside_detached(Entry::Joined(null.as_fd()), || ()).expect_err("no namespace");
    assert!(fault.message.starts_with("join the user namespace"), "{fault}");
    let alone = inside(Entry::Joined(null.as_fd()), Powers::Files, || Ok(()));
    assert_eq!(alone.expect_err("no namespace"), fault);
    let good = map(mode);
    if refuses_more(&good) {
        let mut extents = good.uids.clone();
        extents.push(Extent { inside: 4_294_967_000, outside: 4_294_967_294, count: 1 });
        let bad = IdMap::new(mode, extents, good.gids.clone()).expect("valid");
        let fault = inside_detached(Entry::Map(&bad), || ()).expect_err("refused");
        assert_eq!(fault.kind, Kind::Host, "{fault}");
        assert!(fault.hint.is_some());
        assert!(inside(Entry::Map(&bad), Powers::Files, || Ok(())).is_err());
    }
    assert_no_children();
}

/// Whether there are ids that the kernel or the helper would not give us; real root may have any.
fn refuses_more(map: &IdMap) -> bool {
    map.mode != Mode::Range && !map.holds_uid(4_294_967_000)
}
