//! The program of the virtual machines: a tree whose every state is known by its number, and the log of a
//! dm-log-writes device.
//!
//! ```text
//! vm-guest fill DIR N                   from state N-1, or from nothing, to state N
//! vm-guest check DIR N                  DIR is state N, no more and no less
//! vm-guest plan LOG TORN                every state the disk may have had: lines `tear ...`, `apply ...`
//! vm-guest apply LOG DEVICE FROM TO     the writes of these entries, TO not included
//! vm-guest tear LOG DEVICE FROM TO SEED what a disk may hold when power goes during the last of them
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output")]

#[path = "guest/log.rs"]
mod log;
#[path = "guest/tree.rs"]
mod tree;

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match act(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm-guest: {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn act(words: &[&str]) -> Result<()> {
    match words {
        ["fill", dir, state] => tree::fill(Path::new(dir), state.parse()?),
        ["check", dir, state] => tree::check(Path::new(dir), state.parse()?),
        ["plan", log, torn] => log::Log::open(log)?.plan(torn.parse()?),
        ["apply", log, device, from, to] => {
            log::Log::open(log)?.apply(device, from.parse()?, to.parse()?)
        }
        ["tear", log, device, from, to, seed] => {
            log::Log::open(log)?.tear(device, from.parse()?, to.parse()?, seed.parse()?)
        }
        _ => Err("no such command".into()),
    }
}

/// Numbers that look random and are the same every time (xorshift).
struct Numbers(u64);

impl Numbers {
    /// `seed` may be anything.
    fn new(seed: u64) -> Self {
        let mut numbers = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            numbers.next();
        }
        numbers
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
