//! Kills and failures before and after each step that changes the store, in a child process that does one
//! of everything; then [`Disk`], which shares no code with the store, says whether it is whole.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use super::disk::Disk;
use super::failpoint::STEPS;
use super::scenario::{self, Acknowledged};
use super::*;

/// Steps that only real commands reach, in a user namespace: `tests/faults/sweep.rs`.
const ELSEWHERE: &[&str] = &[
    "nest.make",
    "nest.folder",
    "nest.file",
    "nest.chown",
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
];

/// Steps that only root reaches, in a box whose root inside is somebody else.
const ROOT_ONLY: &[&str] = &["cache.chown", "run.chown"];

#[test]
fn child() {
    let Some(path) = std::env::var_os("SANDBOX_TEST_CRASH") else { return };
    let failed = scenario::act(Path::new(&path));
    crate::sys::process::exit_now(if failed == 0 { 0 } else { 3 });
}

/// Runs the scenario in a child that fails as `wish` says, in a store of its own, and looks at what is left.
fn suffer(wish: &str) -> Output {
    let folder = folder();
    let path = folder.path();
    scenario::prepare(path);
    let seen = path.join("seen");
    let orders = [
        ("SANDBOX_TEST_CRASH", path.as_os_str()),
        ("SANDBOX_FAIL", OsStr::new(wish)),
        ("SANDBOX_FAIL_SEEN", seen.as_os_str()),
    ];
    let mut output = again("crash::child", &orders).output().expect("run");
    check(path, wish);
    output.stdout = fs::read(seen).unwrap_or_default();
    output
}

/// What must hold whenever a command was killed or failed.
fn check(path: &Path, at: &str) {
    let base = path.join("store");
    let acknowledged = Acknowledged::read(path);
    let whole = |disk: &Disk| {
        for (name, layer) in &disk.boxes["first"].refs {
            let content = disk.file(layer, "file");
            assert_eq!(content.as_deref(), Some("hello"), "{at}: {name}");
        }
        acknowledged.hold(disk, at);
    };
    whole(&Disk::read(&base).sound(at));
    // The next commands work, and nothing stays behind but what somebody named or kept.
    let store = Store::open(&base).expect(at);
    store.runs().expect(at);
    store.gc(&strict_gc()).expect(at);
    drain(&store).expect(at);
    whole(&Disk::read(&base).clean(at));
    mend::check(&path.join("broken"), at);
    drop(Store::create(path.join("new/store")).expect(at));
    drop(Store::create(path.join("wide")).expect(at));
    let first = store.open_box(&box_name("first")).expect(at);
    let user = first.record().settings.user.as_deref();
    assert!(user.is_none_or(|user| user == "1"), "{at}");
    drop(store.use_cache(
        &store.lock_shared().expect(at),
        first.name(),
        &snapshot("cache"),
        &map(),
    ));
    commit_as(&store, &first, None, "after").expect(at);
}

/// Whether this one is tried: one of four, each time others, or all with `SANDBOX_SOAK` set.
fn chosen() -> bool {
    let mut byte = [0];
    let random = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    std::env::var_os("SANDBOX_SOAK").is_some() || random.is_err() || byte[0] % 4 == 0
}

/// Each step by its name, at each of its places. Those that are reached more than once fail every time.
fn each_step(places: &[&str], how: &str, expected: impl Fn(&Output) -> bool) {
    let root = rustix::process::geteuid().is_root();
    let unreached = |step: &&str| ELSEWHERE.contains(step) || (!root && ROOT_ONLY.contains(step));
    for step in STEPS.iter().filter(|step| !unreached(step)) {
        for place in places.iter().filter(|_| how == "kill" || chosen()) {
            let wish = format!("{step}.{place}:{how}");
            let output = suffer(&wish);
            assert!(expected(&output), "{wish}: {output:?}");
        }
    }
}

/// The first, the second, ... step of all: killed before it, or failing there and, with `more`, ever after.
fn each_time(more: &str, how: &str) {
    let seen = suffer("nowhere.before:kill").stdout;
    let count = seen.iter().filter(|byte| **byte == b'\n').count();
    assert!(count > 100, "{count}");
    for number in (1..=count).filter(|_| chosen()) {
        let wish = format!("*.before#{number}{more}:{how}");
        let output = suffer(&wish);
        let killed = output.status.signal() == Some(9);
        // An error may be nobody's business.
        let failed = matches!(output.status.code(), Some(0 | 3));
        assert!(if how == "kill" { killed } else { failed }, "{wish}: {output:?}");
    }
}

#[test]
fn killed_at_each_step() {
    // Every point is reached: each child dies of the signal.
    each_step(&["before", "after"], "kill", |output| output.status.signal() == Some(9));
}

#[test]
fn ended_at_each_step() {
    each_step(&["before", "after"], "exit", |output| output.status.code() == Some(99));
}

#[test]
fn each_error_at_each_step() {
    // Not after: no system call does its work and then fails.
    for how in ["ENOSPC", "EIO", "EDQUOT", "EMFILE"] {
        each_step(&["before"], how, |output| matches!(output.status.code(), Some(0 | 3)));
    }
}

#[test]
fn killed_at_each_time() {
    each_time("", "kill");
}

#[test]
fn one_error_at_each_time() {
    each_time("", "EIO");
}

#[test]
fn read_only_from_some_time_on() {
    each_time("+", "EROFS");
}

#[test]
fn full_from_some_time_on() {
    each_time("+", "ENOSPC");
}

#[test]
fn without_failure_all_steps_are_reached() {
    let output = suffer("nowhere.before:kill");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let seen = String::from_utf8(output.stdout).expect("names");
    let seen: BTreeSet<_> = seen.lines().collect();
    let root = rustix::process::geteuid().is_root();
    let missed = STEPS.iter().filter(|step| !seen.contains(**step));
    let missed: Vec<_> = missed.filter(|step| root || !ROOT_ONLY.contains(step)).collect();
    assert_eq!(missed, ELSEWHERE.iter().collect::<Vec<_>>(), "see scenario.rs");
}
