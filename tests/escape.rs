//! Ways out of a sandbox that others have had, tried with the program itself. Each case fails closed: the
//! run is refused or sees nothing of the host, and a canary on the host is as it was. docs/security.md has
//! the list of them, and [`list`] looks whether each name in it is there.
//!
//! `SANDBOX_BIN` is the program (the debug build otherwise), `SANDBOX_TEST_IDS` the id mode of the boxes
//! (what this user gets by default otherwise); integration/test.sh runs these tests in every id mode. The
//! programs inside are the machine's own, by a read-only bind of /usr. `SANDBOX_ESCAPE_ROUNDS=N` is how often
//! a race is run (20 otherwise).

#![expect(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, unused_imports, reason = "the escapes need a part of it")]
mod common;

#[path = "escape/answer.rs"]
mod answer;
#[path = "escape/archives.rs"]
mod archives;
#[path = "escape/calls.rs"]
mod calls;
#[path = "escape/choices.rs"]
mod choices;
#[path = "escape/host.rs"]
mod host;
#[path = "escape/join.rs"]
mod join;
#[path = "escape/list.rs"]
mod list;
#[path = "escape/mounts.rs"]
mod mounts;
#[path = "escape/out.rs"]
mod out;
#[path = "escape/proc.rs"]
mod proc;
#[path = "escape/races.rs"]
mod races;
#[path = "escape/store.rs"]
mod store;
#[path = "escape/terminal.rs"]
mod terminal;
#[path = "escape/users.rs"]
mod users;
#[path = "escape/wall.rs"]
mod wall;
