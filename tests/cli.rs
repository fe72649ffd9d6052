//! The program end to end, as a user meets it: exit code, stdout, stderr, and what is left behind.
//!
//! `SANDBOX_BIN` is the program (the debug build otherwise), `SANDBOX_TEST_IDS` the id mode of the boxes
//! (what this user gets by default otherwise), `SANDBOX_TEST_TREE` a tar of a Debian tree with rpm.
//! integration/test.sh runs these tests in every id mode. An ability that this machine lacks fails a test;
//! where an id mode lacks it by nature, the test asserts the refusal that is documented instead.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

#[path = "cli/archives.rs"]
mod archives;
#[path = "cli/as_user.rs"]
mod as_user;
#[path = "cli/basedir.rs"]
mod basedir;
#[path = "cli/binds.rs"]
mod binds;
#[path = "cli/boxes.rs"]
mod boxes;
#[path = "cli/copyup.rs"]
mod copyup;
#[path = "cli/cp.rs"]
mod cp;
#[path = "cli/df.rs"]
mod df;
#[path = "cli/diff.rs"]
mod diff;
#[path = "cli/docker_profile.rs"]
mod docker_profile;
#[path = "cli/events.rs"]
mod events;
#[path = "cli/exec.rs"]
mod exec;
#[path = "cli/fixture.rs"]
mod fixture;
#[path = "cli/fold.rs"]
mod fold;
#[path = "cli/forms.rs"]
mod forms;
#[path = "cli/from_mock.rs"]
mod from_mock;
#[path = "cli/fsck.rs"]
mod fsck;
#[path = "cli/gc.rs"]
mod gc;
#[path = "cli/hidden.rs"]
mod hidden;
#[path = "cli/hostile.rs"]
mod hostile;
#[path = "cli/init.rs"]
mod init;
#[path = "cli/isolation.rs"]
mod isolation;
#[path = "cli/keep.rs"]
mod keep;
#[path = "cli/limits.rs"]
mod limits;
#[path = "cli/lives.rs"]
mod lives;
#[path = "cli/log.rs"]
mod log;
#[path = "cli/missing.rs"]
mod missing;
#[path = "cli/moves.rs"]
mod moves;
#[path = "cli/names.rs"]
mod names;
#[path = "cli/nest.rs"]
mod nest;
#[path = "cli/nest_hostile.rs"]
mod nest_hostile;
#[path = "cli/network.rs"]
mod network;
#[path = "cli/owners.rs"]
mod owners;
#[path = "cli/packages.rs"]
mod packages;
#[path = "cli/profiles.rs"]
mod profiles;
#[path = "cli/refresh.rs"]
mod refresh;
#[path = "cli/rename.rs"]
mod rename;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/scrub.rs"]
mod scrub;
#[path = "cli/settings.rs"]
mod settings;
#[path = "cli/shell.rs"]
mod shell;
#[path = "cli/stays.rs"]
mod stays;
#[path = "cli/subids.rs"]
mod subids;
#[path = "cli/undo.rs"]
mod undo;
#[path = "cli/unshare.rs"]
mod unshare;
#[path = "cli/user.rs"]
mod user;
#[path = "cli/wait.rs"]
mod wait;

/// A file that is in no `mod` line would never be run.
#[test]
fn no_file_is_forgotten() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/tests/cli.rs")).unwrap();
    for name in common::left::names(format!("{root}/tests/cli").as_ref()) {
        assert!(text.contains(&format!("cli/{name}")), "{name}");
    }
}
