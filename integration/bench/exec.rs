//! What it costs to join a run that stays: `sandbox exec` of `true` against `sandbox run` of it, in the single and in
//! the sub-id mode. Prints Markdown. `SANDBOX_BENCH_ROUNDS` (300).
#![expect(clippy::print_stdout, reason = "the tables are its output")]
#![expect(dead_code, reason = "what the benchmarks have in common is more than one of them needs")]

mod common;

use common::{Result, Sandbox, Scratch, Times, number, time};

/// Of the lower quartile of a fresh run.
const BAR: f64 = 0.6;

fn main() -> Result<()> {
    let scratch = Scratch::new("exec")?;
    let rounds = number("SANDBOX_BENCH_ROUNDS", 300)?;
    let Some(sandbox) = Sandbox::new(scratch.path()) else {
        println!("SANDBOX_BIN is not set: nothing to compare.");
        return Ok(());
    };
    println!("## A command in a run that stays, {rounds} rounds\n");
    println!("| what | lower quartile, ms | median, ms | ratios |\n| --- | --- | --- | --- |");
    let mut missed = Vec::new();
    for ids in ["single", "subuid"] {
        sandbox.init(ids, ids)?;
        sandbox.call(&format!("--box {ids} start --name stays-{ids} -- sleep 100000"))?;
        let (mut fresh, mut joined) = (Times::default(), Times::default());
        for round in 0..rounds {
            for turn in 0..2 {
                if (turn + round) % 2 == 0 {
                    let words = ["--box", ids, "run", "--", "/bin/true"];
                    fresh.add(time(&mut sandbox.command(words))?);
                } else {
                    let run = format!("stays-{ids}");
                    joined.add(time(&mut sandbox.command(["exec", &run, "--", "/bin/true"]))?);
                }
            }
        }
        sandbox.call(&format!("stop --discard -t 0 stays-{ids}"))?;
        println!("{}", fresh.row(&format!("sandbox run, {ids}"), None));
        println!("{}", joined.row(&format!("sandbox exec, {ids} (to run)"), Some(&fresh)));
        if joined.quartile() > fresh.quartile().mul_f64(BAR) {
            missed.push(ids);
        }
    }
    println!(
        "\nThe bar is {BAR} of a run: {}.",
        match missed.as_slice() {
            [] => "reached".to_owned(),
            missed => format!("not reached: {}", missed.join(", ")),
        }
    );
    Ok(())
}
