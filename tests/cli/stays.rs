//! Runs that stay: started, found, asked, ended.

use crate::common::{Env, left};

#[test]
fn a_command_that_cannot_be_executed_is_told_by_start_itself() {
    let env = Env::filled();
    let start = |words: &[&str]| env.sandbox(&["start"]).args(words).run();
    drop(start(&["--", "nosuch"]).fault(127, "nosuch: command not found", ""));
    drop(start(&["--", "/etc/passwd"]).fault(126, "not executable", ""));
    drop(start(&["--workdir", "/nowhere", "--", "true"]).fault(125, "/nowhere", ""));
    drop(start(&["--from", "nosuch", "--", "true"]).fault(125, "nosuch", ""));
    drop(start(&["--name", "r-x", "--", "true"]).fault(125, "ids of runs begin so", ""));
    drop(start(&["--name", "-", "--", "true"]).fault(125, "run name", ""));
    drop(start(&["--log-limit", "0", "--", "true"]).fault(125, "must be more than 0", ""));
    drop(start(&["--commit", "postinit", "--", "true"]).fault(125, "postinit", "another name"));
    drop(start(&["--dry-run", "--", "true"]).ok().says("argv"));
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn what_ends_by_itself_is_committed_as_it_was_told() {
    let env = Env::filled();
    let out = env.sandbox(&["start", "--commit", "made", "--", "touch", "/file"]).run().ok();
    assert!(out.line().starts_with("r-"), "{out:?}");
    left::eventually("the run", || env.entries("runs"));
    assert_eq!(env.snapshots(), ["postinit", "made"]);
    drop(env.sandbox(&["run", "--from", "made", "--", "ls", "/file"]).run().ok());
    let out = env.sandbox(&["start", "--json", "--name", "n", "--", "false"]).run().ok().json();
    assert_eq!(out["name"], "n");
    left::eventually("the run", || env.entries("runs"));
}
