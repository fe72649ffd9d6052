//! Ranges of /etc/subuid that a box was made with and that cannot be had now: every command says so in the same words.

use std::ffi::OsString;

use crate::common::{Cmd, Env, Ids, ids};

/// A command of ours in a user namespace that holds nobody but the caller, under the caller's own number.
fn alone(env: &Env, command: Cmd) -> Cmd {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let gid = rustix::process::getegid().as_raw().to_string();
    let options = ["--user", "--map-user", &uid, "--map-group", &gid, "--"].map(OsString::from);
    env.program("unshare").args(options).args(command.words())
}

#[test]
fn a_namespace_around_that_lacks_the_range_is_told_by_all() {
    if ids() != Ids::Subuid {
        return;
    }
    let env = Env::filled();
    let why = "the user namespace around does not hold ";
    let hint = "give the container more ids (/proc/self/uid_map";
    drop(alone(&env, env.sandbox(&["run", "--", "true"])).run().fault(125, why, hint));
    drop(alone(&env, env.sandbox(&["diff", "postinit"])).run().fault(6, why, hint));
    let other = env.init(&["other", "--from", "scratch"]);
    drop(alone(&env, other).run().fault(6, why, hint));
    let doctor = alone(&env, env.sandbox(&["doctor"])).run();
    let text = doctor.text();
    assert!(text.contains(why) && text.contains(&format!("remedy: {hint}")), "{doctor:?}");
    assert_eq!(env.entries("runs"), [""; 0]);
}
