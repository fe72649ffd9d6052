//! Patience with others who hold a lock.

use std::fs::File;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::common::Env;

/// A lock of the store, held by this process.
fn held(env: &Env, lock: &str) -> File {
    let file = File::open(env.base().join(lock)).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    file
}

fn release(lock: File) {
    // By hand: a child that another test starts at this moment shares it.
    flock(&lock, FlockOperation::Unlock).unwrap();
}

#[test]
fn a_box_that_somebody_holds_is_busy() {
    let env = Env::filled();
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    let state = env.state();
    let lock = held(&env, "boxes/default/lock");
    for words in [&["snapshot", "x"][..], &["rm", "postinit"]] {
        let out = env.sandbox(words).arg("--wait=100ms").run();
        drop(out.fault(5, "box default: busy: ", "--wait"));
    }
    let json = env.sandbox(&["--json", "--wait=1ms", "snapshot", "x"]).run().code(5).json();
    assert_eq!(json["error"]["kind"], "busy");
    // Neither does another box wait, nor who only looks.
    drop(env.sandbox(&["-b", "other", "snapshot", "x", "--wait=1ms"]).run().ok());
    drop(env.sandbox(&["list", "--wait=1ms"]).run().ok());
    drop(env.sandbox(&["run", "--wait=1ms", "--", "true"]).run().ok());
    drop(env.sandbox(&["-b", "other", "rm", "x"]).run().ok());
    release(lock);
    assert_eq!(env.state(), state);
}

#[test]
fn without_the_flag_it_waits_a_while() {
    let env = Env::filled();
    let lock = held(&env, "boxes/default/lock");
    let start = Instant::now();
    drop(env.sandbox(&["snapshot", "x"]).run().fault(5, "box default: busy: ", "--wait"));
    assert!(start.elapsed() >= Duration::from_secs(5), "{:?}", start.elapsed());
    release(lock);
}

#[test]
fn it_goes_on_when_the_lock_is_free() {
    let env = Env::filled();
    for (number, flag) in ["--wait", "--wait=100", "--quiet"].iter().enumerate() {
        let lock = held(&env, "boxes/default/lock");
        scope(|scope| {
            let name = format!("x{number}");
            let waits = scope.spawn({
                let env = &env;
                move || drop(env.sandbox(&["snapshot", &name, flag]).run().ok())
            });
            sleep(Duration::from_millis(300));
            assert!(!waits.is_finished());
            release(lock);
        });
    }
    assert_eq!(env.snapshots().len(), 4);
}

/// What a run has changed is not lost because somebody holds the box at its end.
#[test]
fn a_commit_that_finds_the_box_busy_keeps_the_run() {
    let env = Env::filled();
    let lock = held(&env, "boxes/default/lock");
    let out = env.line(&["--commit", "x", "--wait=50ms"], "echo 1 >/one").run();
    let run = env.entries("runs").pop().unwrap();
    drop(out.fault(125, "box default: busy: ", &format!("sandbox recover {run} --as ")));
    release(lock);
    drop(env.sandbox(&["recover", &run, "--as", "x"]).run().ok());
    drop(env.sandbox(&["run", "--from", "x", "--", "cat", "/one"]).run().ok().stdout("1\n"));
}

/// gc holds the store while it marks.
#[test]
fn a_store_that_somebody_holds_is_busy() {
    let env = Env::filled();
    let lock = held(&env, "lock");
    for words in [&["list"][..], &["snapshot", "x"], &["gc"]] {
        drop(env.sandbox(words).arg("--wait=50ms").run().code(5).stdout("").warns("lock store"));
    }
    release(lock);
}
