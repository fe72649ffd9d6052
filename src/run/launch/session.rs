//! The end of all that a command has started that joined a run: no pid namespace goes with it.

use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sys::process::{Stat, stat};

/// How often it is looked whether somebody is left, and how long between: what is killed takes a moment, and may just
/// have started another.
const ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// Sends SIGKILL to all of the session of the command that `minder` minds, until none is left. It is the minder's own, or
/// one that the command leads.
///
/// The owner of a user namespace may do that whatever users they are inside, and sees their numbers outside, by which
/// the kernel does not take one for another.
pub(super) fn kill(minder: Pid) {
    let own = minder.as_raw_nonzero().get();
    let mut sessions = vec![own];
    for _ in 0..ROUNDS {
        let all = processes();
        sessions
            .extend(all.iter().filter(|(_, stat)| stat.parent == own).map(|(pid, _)| raw(*pid)));
        let is_of = |stat: &Stat| sessions.contains(&stat.session) && !b"ZX".contains(&stat.state);
        let left = all.iter().filter(|(pid, stat)| *pid != minder && is_of(stat));
        let mut found = false;
        for (pid, _) in left {
            found = true;
            let Ok(pidfd) = pidfd_open(*pid, PidfdFlags::empty()) else { continue };
            // The number may be another's by now: it is not once there is a descriptor.
            if stat(*pid).as_ref().is_some_and(is_of) {
                pidfd_send_signal(&pidfd, Signal::KILL).ok();
            }
        }
        if !found {
            return;
        }
        sleep(PAUSE);
    }
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// All that there are; none where /proc is not there.
pub(in crate::run) fn processes() -> Vec<(Pid, Stat)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    #[test]
    fn who_leads_a_session_of_another_is_left() {
        // Of a process that minds nobody: nothing happens.
        let mut other = Command::new("sleep").arg("100").process_group(0).spawn().expect("sleep");
        let pid = Pid::from_raw(other.id() as i32).expect("pid");
        kill(pid);
        assert!(other.try_wait().expect("wait").is_none());
        other.kill().expect("kill");
        assert_eq!(other.wait().expect("wait").signal(), Some(9));
    }

    #[test]
    fn a_whole_session_ends() {
        let line = "sleep 100 & sleep 100 & wait";
        let mut minder = Command::new("sh");
        let mut minder =
            minder.args(["-c", &format!("setsid sh -c '{line}'; true")]).spawn().expect("sh");
        let pid = Pid::from_raw(minder.id() as i32).expect("pid");
        let of =
            |session| processes().into_iter().filter(|(_, stat)| stat.session == session).count();
        let leader = loop {
            let found = processes()
                .into_iter()
                .find(|(one, stat)| stat.parent == raw(pid) && stat.session == raw(*one));
            match found {
                Some((leader, _)) if of(raw(leader)) == 3 => break raw(leader),
                _ => sleep(PAUSE),
            }
        };
        kill(pid);
        minder.wait().expect("wait");
        // Zombies are left to whoever reaps.
        let live = |stat: &Stat| stat.session == leader && stat.state != b'Z';
        assert_eq!(processes().iter().filter(|(_, stat)| live(stat)).count(), 0);
    }
}
