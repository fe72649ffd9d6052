//! What it costs to start a command: `sandbox run -- true` on three layers against bubblewrap on a plain
//! directory, the sub-id mode against the single mode and the helpers it has to call, long chains against a
//! short one, system calls before the payload's exec, and the memory of the supervisor. Prints Markdown.
//! More system calls than there were is a failure.
//!
//! The rivals take turns within one loop, so that whatever else the machine does hits all of them alike.
//! `SANDBOX_BENCH_ROUNDS` (300), `SANDBOX_BENCH_LAYERS` (3, and for example `3,100`: against bubblewrap),
//! `SANDBOX_BENCH_CHAINS` (64,100,400: against a chain of 3).
#![expect(clippy::print_stdout, reason = "the tables are its output")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Result, Sandbox, Scratch, Times, has, number, output, quiet, time, variable};

fn main() -> Result<()> {
    let scratch = Scratch::new("start")?;
    let tree = unpacked(scratch.path())?;
    let rounds = number("SANDBOX_BENCH_ROUNDS", 300)?;
    let Some(sandbox) = Sandbox::new(scratch.path()) else {
        println!("SANDBOX_BIN is not set: bubblewrap alone.\n");
        return starts(rounds, &tree, None);
    };
    sandbox.init("single", "single")?;
    sandbox.init("subuid", "subuid")?;
    let depths = variable("SANDBOX_BENCH_LAYERS").unwrap_or_else(|_| "3".to_owned());
    for depth in depths.split(',') {
        let depth: usize = depth.trim().parse()?;
        let tip = stack(&sandbox, "single", depth, true)?;
        let sub = stack(&sandbox, "subuid", depth, true)?;
        println!("## Start of `true`, {depth} layers, {rounds} rounds\n");
        starts(rounds, &tree, Some((&sandbox, &tip, &sub)))?;
    }
    chains(&sandbox, rounds)?;
    let tip = stack(&sandbox, "single", 3, true)?;
    println!("\n## System calls and memory\n\n| what | figure |\n| --- | --- |");
    // Some calls depend on who comes first: the least of several tries is what a start takes.
    let mut tries = Vec::new();
    for _ in 0..5 {
        let log = traced(&sandbox, &tip, scratch.path())?;
        tries.push((calls(&log)?, processes(&log)));
    }
    let (count, processes) = *tries.iter().min().ok_or("no try")?;
    println!("| system calls of all processes before the payload's exec | {count} |");
    println!("| processes, from first to last | {processes} |");
    let after_true = high_water(&sandbox, &tip, "true")?;
    println!("| supervisor's VmHWM after `true` | {after_true} |");
    let after_output = high_water(&sandbox, &tip, "head -c 1073741824 /dev/zero")?;
    println!("| supervisor's VmHWM after 1 GiB of output | {after_output} |");
    if count > MOST_CALLS {
        return Err(format!("{count} system calls before the exec, not {MOST_CALLS}").into());
    }
    if processes > MOST_PROCESSES {
        return Err(format!("{processes} processes, not {MOST_PROCESSES}").into());
    }
    Ok(())
}

/// How many system calls a start may take at most: what it took when this was last looked at, by the static
/// binary and on a tree with rpm. Twenty-nine of them empty the bounding set, five are for remembered owners and a keyring
/// of its own, eight and at most six more send the processes to different processors, thirteen build the wall of Landlock.
/// Goes down when the start gets better; the goal is 150.
const MOST_CALLS: usize = 298;

/// The supervisor, PID 1 and the payload.
const MOST_PROCESSES: usize = 3;

/// The test tree as a directory of the caller's own, which is what bubblewrap starts from.
fn unpacked(folder: &Path) -> Result<String> {
    let tree = folder.join("tree");
    fs::create_dir(&tree)?;
    let mut tar = Command::new("tar");
    tar.args(["--no-same-owner", "--exclude=./dev/*", "-xf"]).arg(variable("SANDBOX_TEST_TREE")?);
    output(tar.arg("-C").arg(&tree))?;
    Ok(tree.to_string_lossy().into_owned())
}

/// Puts layers onto the postinit of a box until it has `depth`; gives the name of the topmost. Folded as always, or not
/// at all.
fn stack(sandbox: &Sandbox, name: &str, depth: usize, folded: bool) -> Result<String> {
    let letter = if folded { "l" } else { "u" };
    let tip = |layer: usize| match layer {
        1 => "postinit".to_owned(),
        _ => format!("{letter}{layer}"),
    };
    for layer in 2..=depth {
        let new = tip(layer);
        // Already there from a smaller stack.
        if sandbox.call(&format!("--box {name} show {new}")).is_err() {
            let from = tip(layer - 1);
            let line = format!("--box {name} run --from {from} --commit {new} -- touch /srv/{new}");
            let mut command = sandbox.command(line.split_whitespace());
            if !folded {
                command.env("SANDBOX_LONGEST_CHAIN", "400");
            }
            output(&mut command)?;
        }
    }
    Ok(tip(depth))
}

/// The loop: each rival once a round, in an order that turns.
fn starts(rounds: usize, tree: &str, ours: Option<(&Sandbox, &str, &str)>) -> Result<()> {
    let with_bwrap = has("bwrap");
    let mut bwrap = Times::default();
    let (mut single, mut subuid, mut helpers) = (bwrap.clone(), bwrap.clone(), bwrap.clone());
    for round in 0..rounds {
        for turn in 0..4 {
            match (turn + round) % 4 {
                0 if with_bwrap => bwrap.add(time(&mut bubblewrap(tree))?),
                1 => helpers.add(maps()?),
                2 => {
                    if let Some((sandbox, tip, _)) = ours {
                        single.add(time(&mut run(sandbox, "single", tip))?);
                    }
                }
                3 => {
                    if let Some((sandbox, _, tip)) = ours {
                        subuid.add(time(&mut run(sandbox, "subuid", tip))?);
                    }
                }
                _ => {}
            }
        }
    }
    println!("| what | lower quartile, ms | median, ms | ratios |\n| --- | --- | --- | --- |");
    let peer = with_bwrap.then_some(&bwrap);
    if with_bwrap {
        println!("{}", bwrap.row("bwrap --unshare-all --bind", None));
    } else {
        println!("| bwrap is not installed | | | |");
    }
    println!("{}", helpers.row("newuidmap and newgidmap at once", None));
    if ours.is_some() {
        println!("{}", single.row("sandbox run, single (to bwrap)", peer));
        println!("{}", subuid.row("sandbox run, subuid (to bwrap)", peer));
        let bar = single.quartile() + helpers.quartile().mul_f64(1.15);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "| subuid's bar: single + 1.15 x helpers | {:.2} | | {:.2} |",
            ms(bar),
            ms(subuid.quartile()) / ms(bar)
        );
    }
    Ok(())
}

/// Chains of the single box against one of three layers, by the kernel's best way to take layers and, the
/// longest, by the oldest.
fn chains(sandbox: &Sandbox, rounds: usize) -> Result<()> {
    let depths = variable("SANDBOX_BENCH_CHAINS").unwrap_or_else(|_| "64,100,400".to_owned());
    let base = stack(sandbox, "single", 3, true)?;
    let mut rivals = vec![("3 layers".to_owned(), run(sandbox, "single", &base))];
    let mut deepest = 0;
    for depth in depths.split(',').filter(|depth| !depth.is_empty()) {
        let depth: usize = depth.trim().parse()?;
        deepest = depth.max(deepest);
        let tip = stack(sandbox, "single", depth, true)?;
        rivals.push((format!("{depth} layers"), run(sandbox, "single", &tip)));
        let old =
            ["--box", "single", "run", "--from", &tip, "--overlay-way", "mount", "--", "/bin/true"];
        rivals.push((format!("{depth} layers, by mount(2)"), sandbox.command(old)));
    }
    // What folding saves.
    if deepest > 0 {
        let tip = stack(sandbox, "single", deepest, false)?;
        rivals.push((format!("{deepest} layers, not folded"), run(sandbox, "single", &tip)));
    }
    let mut times = vec![Times::default(); rivals.len()];
    for round in 0..rounds {
        for turn in 0..rivals.len() {
            let at = (turn + round) % rivals.len();
            times[at].add(time(&mut rivals[at].1)?);
        }
    }
    println!("\n## Long chains, {rounds} rounds\n");
    println!("| what | lower quartile, ms | median, ms | ratios |\n| --- | --- | --- | --- |");
    for (at, (what, _)) in rivals.iter().enumerate() {
        println!("{}", times[at].row(what, (at > 0).then_some(&times[0])));
    }
    Ok(())
}

fn run(sandbox: &Sandbox, name: &str, tip: &str) -> Command {
    sandbox.command(["--box", name, "run", "--from", tip, "--", "/bin/true"])
}

fn bubblewrap(tree: &str) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--uid", "0", "--gid", "0", "--bind", tree, "/"]);
    command.args(["--proc", "/proc", "--dev", "/dev", "/bin/true"]);
    quiet(&mut command);
    command
}

/// How long newuidmap and newgidmap take, started at the same time on one sleeping child in a new user
/// namespace: what no implementation of sub-ids can save.
fn maps() -> Result<Duration> {
    let mut sleeper = quiet(Command::new("unshare").args(["--user", "sleep", "60"])).spawn()?;
    let took = map(&sleeper);
    sleeper.kill()?;
    sleeper.wait()?;
    took
}

fn map(child: &Child) -> Result<Duration> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user"));
    let pid = child.id().to_string();
    while namespace(&pid)? == namespace("self")? {
        thread::sleep(Duration::from_micros(100));
    }
    let start = Instant::now();
    let mut helpers = Vec::new();
    for (helper, file, own) in [
        ("newuidmap", "/etc/subuid", rustix::process::getuid().as_raw()),
        ("newgidmap", "/etc/subgid", rustix::process::getgid().as_raw()),
    ] {
        let (first, count) = range(file)?;
        let words = format!("{pid} 0 {own} 1 1 {first} {count}");
        helpers.push(quiet(Command::new(helper).args(words.split(' '))).spawn()?);
    }
    for helper in &mut helpers {
        if !helper.wait()?.success() {
            return Err("newuidmap or newgidmap failed".into());
        }
    }
    Ok(start.elapsed())
}

/// The caller's range in /etc/subuid or /etc/subgid.
fn range(file: &str) -> Result<(String, String)> {
    let user = variable("USER")?;
    let text = fs::read_to_string(file)?;
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.len() == 3 && fields[0] == user);
    let fields = fields.ok_or_else(|| format!("{file}: no line for {user}"))?;
    Ok((fields[1].to_owned(), fields[2].to_owned()))
}

/// A whole run as strace sees it, one line a system call, with the process in front.
fn traced(sandbox: &Sandbox, tip: &str, folder: &Path) -> Result<String> {
    if !has("strace") {
        return Err("strace is not installed: `integration/setup.sh bench`".into());
    }
    let log = folder.join("strace");
    let plain = run(sandbox, "single", tip);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log).arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    time(quiet(&mut command))?;
    Ok(fs::read_to_string(&log)?)
}

/// How many processes there were.
fn processes(log: &str) -> usize {
    let pids = log.lines().filter_map(|line| line.split_whitespace().next());
    pids.collect::<std::collections::BTreeSet<_>>().len()
}

/// The system calls of every process until the payload's execve.
fn calls(log: &str) -> Result<usize> {
    let mut count = 0;
    let mut execs = 0;
    for line in log.lines() {
        // The first is our own. The payload's may be without names: strace cannot read the memory of a
        // process that is not dumpable.
        execs += u32::from(line.contains(" execve("));
        if execs == 2 {
            return Ok(count);
        }
        // A call that strace had to print in two pieces is one call; signals and exits are none.
        if !line.contains(" resumed>") && !line.contains(" --- ") && !line.contains(" +++ ") {
            count += 1;
        }
    }
    Err("strace saw no exec of the payload".into())
}

/// The most memory the supervisor ever had, read while the payload waits after its work. (What wait4 says
/// is the most of the supervisor and all that it waited for.)
fn high_water(sandbox: &Sandbox, tip: &str, work: &str) -> Result<String> {
    let script = format!("{work}; echo is-done >&2; read line");
    let mut command =
        sandbox.command(["--box", "single", "run", "--from", tip, "--", "sh", "-c", &script]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or("no pipe")?;
    let drain = thread::spawn(move || std::io::copy(&mut { stdout }, &mut std::io::sink()));
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().ok_or("no pipe")?);
    while !said.ends_with("is-done\n") {
        if stderr.read_line(&mut said)? == 0 {
            return Err(format!("{command:?}: {said}").into());
        }
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    drop(child.stdin.take());
    stderr.read_to_string(&mut said)?;
    child.wait()?;
    drain.join().map_err(|_| "the reader of the output failed")??;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.ok_or("/proc/PID/status has no VmHWM")?.trim().to_owned())
}
