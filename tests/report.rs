//! What a command finds around itself, all of it, per profile, with a terminal and without: compared with the
//! reports in `tests/golden/report`. Whoever changes what a run can see or do changes one of these files, and
//! a reader of the change sees what.
//!
//! This binary is bound into the sandbox and tells what is there ([`inside`]); outside it compares. Its own harness,
//! because a test harness has threads, descriptors and words of its own. `UPDATE_GOLDEN=1` writes the reports (into
//! `SANDBOX_GOLDEN`, if that is set): of what differs by id mode the section of the mode it is run in;
//! integration/report.sh does so in all of them.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "this program is its own test harness")]

#[allow(dead_code, unused_imports, reason = "the reports need a part of it")]
mod common;
#[allow(dead_code, reason = "the reports need a part of it")]
#[path = "escape/host.rs"]
mod host;
#[path = "report/inside.rs"]
mod inside;
#[path = "report/mounts.rs"]
mod mounts;
#[path = "report/outside.rs"]
mod outside;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((first, rest)) if first == "--inside" => {
            inside::tell(rest);
            ExitCode::SUCCESS
        }
        _ => outside::compare_all(&words),
    }
}
