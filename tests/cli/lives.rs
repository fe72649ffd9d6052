//! Many at once, and ends at any moment: nothing half-done is ever seen, and nothing stays.

use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::tree::{Tar, tiny_source};
use crate::common::{Env, left};

const SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL];

/// Starts a command and ends it by each signal after more and more time, until it was quicker.
fn end_at_every_moment(
    env: &Env,
    mut command: impl FnMut(usize) -> crate::common::Cmd,
    mut check: impl FnMut(usize, bool),
) {
    let mut number = 0;
    for signal in SIGNALS {
        for step in 0..7 {
            let mut child = command(number).start();
            sleep(Duration::from_millis(step * 12));
            kill_process(Pid::from_child(&child), signal).unwrap();
            drop(child.stdin.take());
            let done = child.wait_with_output().unwrap();
            left::eventually("processes", || left::processes(env.dir()));
            left::no_mount(env.dir());
            check(number, done.status.success());
            number += 1;
        }
    }
}

#[test]
fn a_run_that_is_ended_at_any_moment() {
    let env = Env::filled();
    let name = |number: usize| format!("n{number}");
    let command =
        |number: usize| env.line(&["--commit", &name(number)], "mkdir /d && touch /d/file");
    end_at_every_moment(&env, command, |number, success| {
        let there = env.snapshots().contains(&name(number));
        // Exit 0 means that it is there; what is there is whole.
        assert!(there || !success, "run {number}: exit 0 and no snapshot");
        if there {
            let out = env.sandbox(&["run", "--from", &name(number), "--", "ls", "/d/file"]).run();
            drop(out.ok().stdout("/d/file\n"));
        }
    });
    drop(env.sandbox(&["gc"]).run().ok());
    // What nothing names is gone, what is named is there.
    assert_eq!(env.entries("layers").len(), env.snapshots().len());
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn an_init_that_is_ended_at_any_moment() {
    let env = Env::filled();
    let mut tar = Tar::new();
    for number in 0..400 {
        tar.dir(&format!("d{number}/"), 0o755, 0, 0);
        tar.file(&format!("d{number}/file"), 0o644, 1, 5, &[7; 4000]);
    }
    let content = tar.end();
    let source = format!("tar:{}", env.path("many.tar").display());
    let name = |number: usize| format!("n{number}");
    let command = |number: usize| {
        // Changed a moment ago, so that none takes the layer of another.
        env.file("many.tar", &content);
        env.init(&[&name(number), "--from", &source])
    };
    end_at_every_moment(&env, command, |number, success| {
        // Either it was made, or it can be made now.
        let out = env.init(&[&name(number), "--from", &source]).run().ok();
        let unchanged = out.text().contains("nothing changed");
        drop(out.check(unchanged || !success, "exit 0 and no box"));
    });
    drop(env.sandbox(&["gc"]).run().ok());
    assert_eq!(env.entries("layers").len(), env.entries("boxes").len());
    assert_eq!(env.entries("boxes").len(), 29);
}

#[test]
fn many_at_once() {
    let env = Env::filled();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let env = &env;
            scope.spawn(move || {
                for turn in 0..4 {
                    let name = format!("w{worker}-{turn}");
                    let line = format!("echo {name} >/name");
                    drop(env.line(&["--commit", &name], &line).run().ok());
                    let out = env.sandbox(&["run", "--from", &name, "--", "cat", "/name"]).run();
                    drop(out.ok().stdout(&format!("{name}\n")));
                    if turn % 2 == 0 {
                        drop(env.sandbox(&["rm", "--wait=60", &name]).run().ok());
                    }
                }
            });
        }
        for _ in 0..6 {
            drop(env.sandbox(&["gc", "--all", "--wait=60"]).run().ok());
        }
    });
    assert_eq!(env.snapshots().len(), 9);
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 9);
}

/// Of two that want the same name one gets it; the other one's changes are kept, and it says how to get
/// them.
#[test]
fn two_commits_of_one_name() {
    let env = Env::filled();
    let wait =
        |who: &str| env.line(&["--commit", "one"], &format!("echo {who} >/who; read line; exit 0"));
    let mut children = [wait("a").start(), wait("b").start()];
    // Both are past the check of the name when both have a run.
    left::eventually("a run is missing", || {
        let there = env.entries("runs").iter().filter(|name| name.starts_with("r-")).count();
        if there == 2 { Vec::new() } else { vec![there.to_string()] }
    });
    sleep(Duration::from_millis(100));
    for child in &mut children {
        use std::io::Write;
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let outs = children.map(|child| child.wait_with_output().unwrap());
    let mut codes = outs.each_ref().map(|out| out.status.code().unwrap());
    codes.sort_unstable();
    let texts = outs.each_ref().map(|out| String::from_utf8_lossy(&out.stderr).into_owned());
    assert_eq!(codes, [0, 125], "{texts:?}");
    let lost =
        texts.iter().find(|text| text.contains("recover")).unwrap_or_else(|| panic!("{texts:?}"));
    let run = env.entries("runs").pop().unwrap();
    assert!(lost.contains(&run), "{lost}");
    drop(env.sandbox(&["recover", &run, "--as", "two"]).run().ok());
    let who =
        |name: &str| env.sandbox(&["run", "--from", name, "--", "cat", "/who"]).run().ok().text();
    let mut both = [who("one"), who("two")];
    both.sort();
    assert_eq!(both, ["a\n", "b\n"]);
}

#[test]
fn inits_of_many_boxes_at_once() {
    let env = Env::empty();
    let source = tiny_source();
    let names = ["a", "b", "c"];
    let children = names.map(|name| env.init(&[name, "--from", &source]).start());
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(env.entries("boxes"), names);
}
