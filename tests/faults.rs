//! What may go wrong around a run, for real: signals, killed processes, terminals, full disks, hosts that
//! refuse, many at once. After each case nothing may be left: no process, mount, lock, half-made thing.
//!
//! A program of its own, one case after the other, because it looks at all processes and mounts. The
//! environment is that of `integration/test.sh`; arguments choose cases by a part of their name.
//! `SANDBOX_SOAK=N` makes the loops N times as long.

#![expect(clippy::print_stdout, reason = "this program is its own test harness")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

#[path = "faults/acts.rs"]
mod acts;
#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/discard.rs"]
mod discard;
#[path = "common/disk.rs"]
mod disk;
#[path = "faults/disks.rs"]
mod disks;
#[path = "faults/frozen.rs"]
mod frozen;
#[path = "faults/full.rs"]
mod full;
#[path = "faults/host.rs"]
mod host;
#[path = "faults/jobs.rs"]
mod jobs;
#[path = "faults/joins.rs"]
mod joins;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/nested.rs"]
mod nested;
#[path = "faults/pty.rs"]
mod pty;
#[path = "faults/race.rs"]
mod race;
#[path = "faults/signals.rs"]
mod signals;
#[path = "faults/soak.rs"]
mod soak;
#[path = "faults/stays.rs"]
mod stays;
#[path = "faults/sweep.rs"]
mod sweep;
#[path = "faults/swept.rs"]
mod swept;
#[path = "faults/terminal.rs"]
mod terminal;
#[path = "faults/watch.rs"]
mod watch;
#[path = "faults/weaker.rs"]
mod weaker;
#[path = "faults/world.rs"]
mod world;

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = nested::helper(&words) {
        return code;
    }
    let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let groups: &[(&str, &[Case])] = &[
        ("signals", signals::CASES),
        ("kills", kills::CASES),
        ("joins", joins::CASES),
        ("terminal", terminal::CASES),
        ("jobs", jobs::CASES),
        ("full", full::CASES),
        ("frozen", frozen::CASES),
        ("limits", limits::CASES),
        ("host", host::CASES),
        ("weaker", weaker::CASES),
        ("race", race::CASES),
        ("discard", discard::CASES),
        ("disks", disks::CASES),
        ("stays", stays::CASES),
        ("sweep", sweep::CASES),
        ("soak", soak::CASES),
        ("crowd", crowd::CASES),
    ];
    let (mut passed, mut failed) = (0, 0);
    for (group, cases) in groups {
        for (name, case) in *cases {
            let name = format!("{group}::{name}");
            if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
                continue;
            }
            let begun = Instant::now();
            let verdict = match catch_unwind(AssertUnwindSafe(case)) {
                Ok(()) => {
                    passed += 1;
                    "ok"
                }
                Err(_) => {
                    failed += 1;
                    "FAILED"
                }
            };
            println!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
        }
    }
    world::fell();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}
