//! Looking at the machine: processes, mounts, locks.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

/// How long an event may take before it counts as never happening: the disk of a busy machine stands still for half a
/// minute at times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `found` finds something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: in vain");
        sleep(Duration::from_millis(2));
    }
}

/// A word that nobody else has in arguments or environment.
pub(crate) fn marker() -> String {
    format!("FAULTS_MARK_{:016x}", random())
}

pub(crate) fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags).expect("random");
    u64::from_ne_bytes(bytes)
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn contains(file: &str, word: &str) -> bool {
    let content = fs::read(file).unwrap_or_default();
    content.windows(word.len()).any(|part| part == word.as_bytes())
}

/// Processes with this word in arguments or environment; zombies have neither. Also any PID 1 of a sandbox that has
/// outlived its supervisor: it shows neither.
pub(crate) fn marked(word: &str) -> Vec<i32> {
    marked_since(i32::MAX, word)
}

/// The same among the processes that are younger than one that was just started.
pub(crate) fn marked_since(pid: i32, word: &str) -> Vec<i32> {
    // Numbers begin anew after the highest; close to it, ask all.
    let top = fs::read_to_string("/proc/sys/kernel/pid_max").expect("pid_max");
    let top: i32 = top.trim().parse().expect("a number");
    let oldest = if pid > top - 4096 { 0 } else { pid };
    let has = |pid: &i32| {
        ["cmdline", "environ"].iter().any(|file| contains(&format!("/proc/{pid}/{file}"), word))
            || is_orphan(*pid)
    };
    pids().into_iter().filter(|pid| *pid >= oldest).filter(has).collect()
}

fn is_orphan(pid: i32) -> bool {
    let of = |pid: &str, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    of(&pid.to_string(), "cmdline").is_ok_and(|line| line == "sandbox\0")
        && stat(pid)
            .and_then(|fields| of(&fields[1], "comm").ok())
            .is_some_and(|name| name.trim() != "sandbox")
}

/// Waits until no process has this word.
#[track_caller]
pub(crate) fn gone(word: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = marked(word);
        if left.is_empty() {
            return;
        }
        if Instant::now() > end {
            let told: Vec<_> =
                left.iter().map(|pid| (pid, state(*pid), wait_channel(*pid))).collect();
            panic!("processes are left: {told:?}");
        }
        sleep(Duration::from_millis(2));
    }
}

fn wait_channel(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default()
}

/// The fields of /proc/PID/stat from the state on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// The state letter of a process.
pub(crate) fn state(pid: i32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// User and system time used so far, in ticks.
pub(crate) fn ticks(pid: i32) -> u64 {
    let fields = stat(pid).expect("stat");
    fields[11].parse::<u64>().expect("number") + fields[12].parse::<u64>().expect("number")
}

/// The children of a process, by its ids.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    // Where the kernel has a list, that is much quicker than to ask all.
    if let Ok(list) = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        return list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    }
    let is_child = |pid: &i32| stat(*pid).is_some_and(|s| s[1] == parent.to_string());
    pids().into_iter().filter(is_child).collect()
}

/// Whether a process is in a pid namespace of its own.
pub(crate) fn is_inside(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("NSpid:")).unwrap_or_default();
    line.split_whitespace().count() > 2
}

/// PID 1 of the sandbox of a supervisor: its child in another pid namespace.
pub(crate) fn init_of(supervisor: i32) -> Option<i32> {
    children(supervisor).into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("NSpid:")).unwrap_or_default();
        line.split_whitespace().next_back() == Some("1")
    })
}

pub(crate) fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("pid"), signal).expect("kill");
}

/// The mounts of this process: their numbers and places.
pub(crate) fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let place = |line: &str| line.split(' ').take(5).collect::<Vec<_>>().join(" ");
    text.lines().map(place).collect()
}

/// The names in a directory, sorted; none if it is not there.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The locks of a store that somebody holds.
pub(crate) fn held(base: &Path) -> Vec<PathBuf> {
    let mut files = vec![base.join("lock"), base.join("trash")];
    files.extend(
        names(&base.join("boxes")).iter().map(|name| base.join("boxes").join(name).join("lock")),
    );
    files.extend(
        names(&base.join("runs")).iter().map(|name| base.join("runs").join(name).join("lock")),
    );
    let is_held = |path: &PathBuf| {
        let Ok(file) = fs::File::open(path) else { return false };
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    };
    files.into_iter().filter(is_held).collect()
}

/// Entries that were never finished, at any depth.
pub(crate) fn unfinished(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if name.starts_with(".new-") {
            found.push(path);
        } else if path.is_dir() {
            found.extend(unfinished(&path));
        }
    }
    found
}
