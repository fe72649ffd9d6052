//! What must not be left over when a test ends.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// Long enough for the background remover at idle priority on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// No mount in our namespace, no process, no run, no trash, no lock.
#[track_caller]
pub(crate) fn nothing(dir: &Path, base: &Path) {
    no_mount(dir);
    assert_eq!(names(&base.join("runs")), [""; 0], "runs are left over");
    eventually("processes and trash", || {
        let mut there = processes(dir);
        there.extend(names(&base.join("trash")));
        there
    });
    no_lock(base);
}

#[track_caller]
pub(crate) fn no_mount(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let dir = dir.to_str().expect("UTF-8");
    let ours: Vec<_> = mounts.lines().filter(|line| line.contains(dir)).collect();
    assert_eq!(ours, [""; 0], "mounts are left over");
}

/// Command lines that name the directory, and PID 1 of runs, which does not show what it was started with, if it has
/// outlived its supervisor.
pub(crate) fn processes(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        // Gone meanwhile, or no process.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let dir = dir.as_os_str().as_bytes();
        if line.windows(dir.len()).any(|part| part == dir) || is_orphan(&entry.path(), &line) {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("{}: {line}", entry.file_name().display()));
        }
    }
    found
}

/// Whether a process is a PID 1 of ours whose parent is none of us.
fn is_orphan(process: &Path, line: &[u8]) -> bool {
    let parent = || {
        let status = fs::read_to_string(process.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
        fs::read_to_string(Path::new("/proc").join(parent).join("comm")).ok()
    };
    line == b"sandbox\0" && parent().is_some_and(|name| name.trim() != "sandbox")
}

/// The names in a directory, sorted; none if it is not there.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[track_caller]
pub(crate) fn eventually(what: &str, left: impl Fn() -> Vec<String>) {
    let start = Instant::now();
    loop {
        let there = left();
        if there.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what} are left over: {there:#?}");
        sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn no_lock(base: &Path) {
    let boxes = names(&base.join("boxes")).into_iter().map(|name| format!("boxes/{name}/lock"));
    for lock in boxes.chain(["lock".to_owned()]) {
        let Ok(file) = fs::File::open(base.join(&lock)) else { continue };
        let free = flock(&file, FlockOperation::NonBlockingLockExclusive);
        assert!(free.is_ok(), "{lock} is held");
        // Explicitly: a child that another test is just starting has this descriptor for a moment.
        flock(&file, FlockOperation::Unlock).expect("unlock");
    }
}
