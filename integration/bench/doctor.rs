//! How long `doctor` takes, which remembers nothing of an earlier one, and that a start tries nothing: what trying makes (user
//! namespaces, files of its own) is counted in both by strace. More in a start than its own namespace is a failure. Prints
//! Markdown.
//!
//! `SANDBOX_BENCH_DOCTORS` (40 rounds).
#![expect(clippy::print_stdout, reason = "the tables are its output")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Result, Sandbox, Scratch, Times, has, number, quiet, time};

/// Milliseconds.
const BAR: u128 = 300;

fn main() -> Result<()> {
    let scratch = Scratch::new("doctor")?;
    let rounds = number("SANDBOX_BENCH_DOCTORS", 40)?;
    let Some(mut sandbox) = Sandbox::new(scratch.path()) else {
        println!("SANDBOX_BIN is not set: there is no other to measure.");
        return Ok(());
    };
    sandbox.init("default", "single")?;
    let run = ["run", "--", "/bin/true"];
    let tries =
        [traced(&sandbox, &["doctor"], scratch.path())?, traced(&sandbox, &run, scratch.path())?];
    let store = sandbox.base_dir.clone();
    let (mut used, mut new, mut start) = (Times::default(), Times::default(), Times::default());
    for round in 0..rounds {
        used.add(time(&mut sandbox.command(["doctor"]))?);
        start.add(time(&mut sandbox.command(run))?);
        // A place where nothing has been yet.
        sandbox.base_dir = scratch.path().join(format!("none{round}"));
        new.add(time(&mut sandbox.command(["doctor"]))?);
        sandbox.base_dir.clone_from(&store);
    }
    println!("## doctor, {rounds} rounds\n");
    println!("| what | lower quartile, ms | median, ms | |\n| --- | --- | --- | --- |");
    println!("{}", start.row("sandbox run -- true, for comparison", None));
    println!("{}", used.row("doctor, of a store", None));
    println!("{}", new.row("doctor, where no store is", None));
    let word =
        if new.median().max(used.median()).as_millis() < BAR { "reached" } else { "not reached" };
    println!("| bar: {BAR} ms | | | {word} |");
    println!("\n| made | by doctor | by a run |\n| --- | --- | --- |");
    println!("| user namespaces | {} | {} |", tries[0].namespaces, tries[1].namespaces);
    println!("| calls that name a file of doctor's | {} | {} |", tries[0].files, tries[1].files);
    if tries[1].namespaces != 1 || tries[1].files != 0 || tries[0].files == 0 {
        return Err(format!("a run that tries something: {:?}", tries[1]).into());
    }
    Ok(())
}

/// What is made to try something.
#[derive(Debug, Default)]
struct Tries {
    /// New user namespaces.
    namespaces: usize,
    /// Calls that name one of its places for tries, `.doctor-*`.
    files: usize,
}

/// A command under strace.
fn traced(sandbox: &Sandbox, words: &[&str], folder: &Path) -> Result<Tries> {
    if !has("strace") {
        return Err("strace is not installed: `integration/setup.sh bench`".into());
    }
    let log = folder.join("strace");
    let plain = sandbox.command(words);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log).arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    time(quiet(&mut command))?;
    let mut tries = Tries::default();
    for line in fs::read_to_string(&log)?.lines() {
        // A call in two pieces is one, and its arguments are in the first.
        if line.contains(" resumed>") || line.contains(" execve(") {
            continue;
        }
        let makes = ["clone(", "clone3(", "unshare("].iter().any(|call| line.contains(call));
        tries.namespaces += usize::from(makes && line.contains("CLONE_NEWUSER"));
        tries.files += usize::from(line.contains(".doctor-"));
    }
    Ok(tries)
}
