//! On which processor a new process begins.
//!
//! The kernel looks for an idle one when a process is made, but only within its domains of load balancing. Where it
//! has none, as in some small virtual machines, one of parent and child stands behind the other until that sleeps,
//! while another processor is idle. What is parallel in a run, so that it starts sooner, would not be.
//!
//! Nothing here can fail but by doing nothing: a filter may refuse these calls, and beyond 1024 processors, where the
//! kernel balances well, the sets are too small.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid as NixPid;
use rustix::process::Pid;

/// The processors that a run may use: what the caller may, as it was before anything was moved. None if the kernel does not
/// say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processors(Option<CpuSet>);

impl Processors {
    /// Those of this process.
    pub fn allowed() -> Self {
        Self(sched_getaffinity(own()).ok())
    }
}

/// Where a process is that makes another one.
#[derive(Debug, Clone, Copy)]
pub struct Here {
    number: Option<usize>,
    allowed: Processors,
}

impl Here {
    /// To be asked just before.
    pub fn now(allowed: Processors) -> Self {
        Self { number: sched_getcpu().ok(), allowed }
    }

    /// For the child, which may have come first: leaves the processor to the parent.
    pub fn give_way(self) {
        if self.number.is_some() && sched_getcpu().ok() == self.number {
            self.move_away(own());
        }
    }

    /// For the parent: moves the child to another processor than ours. Not once it may be the command, which has a say in
    /// this itself.
    pub fn send_away(self, child: Pid) {
        self.move_away(raw(child));
    }

    /// It may use all that are allowed afterwards.
    fn move_away(self, process: NixPid) {
        let (Processors(Some(allowed)), Some(others)) = (self.allowed, self.others()) else {
            return;
        };
        if sched_setaffinity(process, &others).is_err() {
            return;
        }
        // Since Linux 6.2 what is set here is a wish that outlives changes of the cpuset; to wish for all is to
        // have none. But whoever was bound before (taskset(1)) stays so.
        sched_setaffinity(process, &all()).ok();
        if sched_getaffinity(process).is_ok_and(|now| now != allowed) {
            sched_setaffinity(process, &allowed).ok();
        }
    }

    /// Those that are allowed, without the one that we are on now; none if there is no other.
    fn others(self) -> Option<CpuSet> {
        let mut others = self.allowed.0?;
        others.unset(sched_getcpu().ok()?).ok()?;
        (others != CpuSet::new()).then_some(others)
    }
}

/// Sends a child that is about to end to other processors than ours; it does not come back.
pub fn send_off(child: Pid, allowed: Processors) {
    if let Some(others) = Here::now(allowed).others() {
        sched_setaffinity(raw(child), &others).ok();
    }
}

fn own() -> NixPid {
    NixPid::from_raw(0)
}

fn raw(child: Pid) -> NixPid {
    NixPid::from_raw(child.as_raw_nonzero().get())
}

fn all() -> CpuSet {
    let mut all = CpuSet::new();
    for number in 0..CpuSet::count() {
        all.set(number).ok();
    }
    all
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn child() -> (Child, Pid) {
        let child = Command::new("sleep").arg("1000").spawn().expect("start sleep");
        let pid = Pid::from_raw(child.id() as i32).expect("pid");
        (child, pid)
    }

    fn of(process: NixPid) -> CpuSet {
        sched_getaffinity(process).expect("affinity")
    }

    fn number(set: CpuSet) -> usize {
        (0..CpuSet::count()).filter(|number| set.is_set(*number) == Ok(true)).count()
    }

    #[test]
    fn who_was_moved_may_use_what_he_could_before() {
        let (mut sleep, pid) = child();
        let (ours, allowed) = (of(own()), Processors::allowed());
        for _ in 0..20 {
            let here = Here::now(allowed);
            here.send_away(pid);
            here.give_way();
            assert!(of(raw(pid)) == ours && of(own()) == ours);
        }
        // Also who was caught while his parent was on its way.
        let mut fewer = ours;
        if number(ours) > 1 {
            fewer.unset(sched_getcpu().expect("processor")).expect("a processor");
        }
        sched_setaffinity(raw(pid), &fewer).expect("bind");
        Here::now(allowed).send_away(pid);
        assert!(of(raw(pid)) == ours);
        send_off(pid, allowed);
        assert_eq!(number(of(raw(pid))), if number(ours) > 1 { number(ours) - 1 } else { 1 });
        sleep.kill().and_then(|()| sleep.wait()).expect("end sleep");
    }

    #[test]
    fn who_is_bound_stays_so() {
        let mut one = CpuSet::new();
        one.set(sched_getcpu().expect("processor")).expect("a processor");
        // Of this thread alone, and of what it starts.
        sched_setaffinity(own(), &one).expect("bind");
        let (mut sleep, pid) = child();
        let here = Here::now(Processors::allowed());
        here.send_away(pid);
        here.give_way();
        send_off(pid, Processors::allowed());
        assert!(of(raw(pid)) == one && of(own()) == one);
        sleep.kill().and_then(|()| sleep.wait()).expect("end sleep");
    }
}
