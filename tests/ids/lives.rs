//! How jobs begin and end.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, pidfd_send_signal, wait,
    waitid,
};
use sandbox::fault::{Fault, Kind};
use sandbox::ids::{Entry, Extent, IdMap, Mode, Powers, inside};
use sandbox::sys::process::{Side, clone, exit_now};

use crate::cases::map;

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

fn assert_no_children() {
    // PID 1 of a pid namespace is given the orphans of a parent that was killed.
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

pub(crate) fn in_vain(mode: Mode) {
    // What is no user namespace cannot be joined.
    let null = File::open("/dev/null").expect("open");
    let fault = inside(Entry::Joined(null.as_fd()), Powers::Files, || Ok(()));
    let fault = fault.expect_err("no namespace");
    assert!(fault.message.starts_with("join the user namespace"), "{fault}");
    let good = map(mode);
    if refuses_more(&good) {
        let mut extents = good.uids.clone();
        extents.push(Extent { inside: 4_294_967_000, outside: 4_294_967_294, count: 1 });
        let bad = IdMap::new(mode, extents, good.gids.clone()).expect("valid");
        let fault = inside(Entry::Map(&bad), Powers::Files, || Ok(())).expect_err("refused");
        assert_eq!(fault.kind, Kind::Host, "{fault}");
        assert!(fault.hint.is_some());
    }
    assert_no_children();
}

/// Whether there are ids that the kernel or the helper would not give us; real root may have any.
fn refuses_more(map: &IdMap) -> bool {
    map.mode != Mode::Range && !map.holds_uid(4_294_967_000)
}
