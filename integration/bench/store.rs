//! Commands in a large store: 10,000 snapshots of 10,000 layers in 200 boxes. Each figure is the wall time of
//! a whole process, beside the bar that it must not pass. Prints Markdown.
//!
//! `SANDBOX_BENCH_BOXES` (200), `SANDBOX_BENCH_SNAPSHOTS` (50 a box), `SANDBOX_BENCH_ROUNDS` (40).
#![expect(clippy::print_stdout, reason = "the tables are its output")]

mod big;
#[expect(dead_code, reason = "the other benchmarks need the rest")]
mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{Result, Sandbox, Scratch, Times, number, quiet, time};

fn main() -> Result<()> {
    let scratch = Scratch::new("store")?;
    let Some(sandbox) = Sandbox::new(scratch.path()) else {
        println!("SANDBOX_BIN is not set: there is no other to measure.");
        return Ok(());
    };
    let boxes = number("SANDBOX_BENCH_BOXES", 200)?;
    let snapshots = number("SANDBOX_BENCH_SNAPSHOTS", 50)?;
    let rounds = number("SANDBOX_BENCH_ROUNDS", 40)?;
    big::make(&sandbox, big::Size { boxes, snapshots })?;
    println!("## {} snapshots in {boxes} boxes, {rounds} rounds\n", boxes * snapshots);
    println!("| what | lower quartile, ms | median, ms | bar, ms |\n| --- | --- | --- | --- |");
    looks(&sandbox, rounds)?;
    moves(&sandbox, rounds)?;
    collect(&sandbox, rounds.min(10))
}

/// A row with what the median must not pass.
fn row(name: &str, times: &Times, bar: u32) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("| {name} | {:.2} | {:.2} | {bar} |", ms(times.quartile()), ms(times.median()));
}

/// What only reads.
fn looks(sandbox: &Sandbox, rounds: usize) -> Result<()> {
    let looks = [
        ("`--version`, for comparison", "--version", 10),
        ("`list` of a box", "list --box box100", 10),
        ("`show` of a snapshot", "show --box box100 s25", 10),
        ("`box list`", "box list", 100),
        ("`list --all-boxes`", "list --all-boxes", 100),
        ("`list --all-boxes --json`", "list --all-boxes --json", 100),
    ];
    let mut times = vec![Times::default(); looks.len()];
    for _ in 0..rounds {
        for ((_, words, _), times) in looks.iter().zip(&mut times) {
            times.add(time(&mut sandbox.command(words.split(' ')))?);
        }
    }
    for ((name, _, bar), times) in looks.iter().zip(&times) {
        row(name, times, *bar);
    }
    Ok(())
}

/// What moves a name or head of a box.
fn moves(sandbox: &Sandbox, rounds: usize) -> Result<()> {
    let moves = ["snapshot n{}", "rollback s7", "rollback n{}", "clean", "rm n{}", "undo"];
    let mut times = vec![Times::default(); moves.len()];
    for round in 0..rounds {
        for (words, times) in moves.iter().zip(&mut times) {
            let words = words.replace("{}", &round.to_string());
            times.add(time(&mut sandbox.command(words.split(' ').chain(["--box", "box100"])))?);
        }
    }
    for (words, times) in moves.iter().zip(&times) {
        row(&format!("`{}`", words.replace("{}", "")), times, 10);
    }
    Ok(())
}

/// gc with a hundred dead layers of ten files, and for how long it keeps others from working.
fn collect(sandbox: &Sandbox, rounds: usize) -> Result<()> {
    let (mut whole, mut locked) = (Times::default(), Times::default());
    for _ in 0..rounds {
        big::dead_layers(sandbox, 100, 10)?;
        let start = Instant::now();
        let mut command = sandbox.command(["gc", "--all"]);
        let held = watch(quiet(&mut command), &sandbox.base_dir.join("lock"))?;
        whole.add(start.elapsed());
        locked.add(held);
    }
    row("`gc` with 100 dead layers of 10 files", &whole, 1000);
    row("the exclusive lock in it", &locked, 50);
    Ok(())
}

/// For how long a command has a file locked exclusively, by looking at the kernel's list again and again.
fn watch(command: &mut Command, lock: &Path) -> Result<Duration> {
    let inode = format!(":{} ", fs::metadata(lock)?.ino());
    let mut child: Child = command.spawn()?;
    let (mut held, mut last) = (Duration::ZERO, None);
    while child.try_wait()?.is_none() {
        let locks = fs::read_to_string("/proc/locks")?;
        let exclusive =
            |line: &str| line.contains("WRITE") && !line.contains("->") && line.contains(&inode);
        let now = Instant::now();
        if locks.lines().any(exclusive) {
            held += last.map_or(Duration::ZERO, |last| now - last);
            last = Some(now);
        } else {
            last = None;
        }
    }
    match child.wait()?.success() {
        true => Ok(held),
        false => Err(format!("{command:?} failed").into()),
    }
}
