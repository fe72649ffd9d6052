//! How fast a command's output comes out: as it is, counted by `--output-limit`, and by way of a terminal. The peers are the
//! same writer on a bare pipe and on a bare terminal. Prints Markdown.
//!
//! The writer is dd, from /dev/zero by 64 KiB. `SANDBOX_BENCH_OUTPUTS` (7 rounds), `SANDBOX_BENCH_MIB` (4096, by pipe),
//! `SANDBOX_BENCH_TERMINAL_MIB` (256: a terminal is that much slower).
#![expect(clippy::print_stdout, reason = "the tables are its output")]
#[expect(dead_code, reason = "the other benchmarks need the rest")]
mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Result, Sandbox, Scratch, Times, number, quiet};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

/// Of the speed of a bare pipe.
const COUNTED_BAR: f64 = 0.9;
const TERMINAL_BAR: f64 = 0.5;

fn main() -> Result<()> {
    let scratch = Scratch::new("output")?;
    let rounds = number("SANDBOX_BENCH_OUTPUTS", 7)?;
    let by_pipe = number("SANDBOX_BENCH_MIB", 4096)?;
    let by_terminal = number("SANDBOX_BENCH_TERMINAL_MIB", 256)?;
    let sandbox = Sandbox::new(scratch.path());
    if let Some(sandbox) = &sandbox {
        sandbox.init("default", "auto")?;
    }
    println!("## Output of a command, {rounds} rounds\n");
    println!(
        "| what | lower quartile, MB/s | median, MB/s | to a bare pipe | to a bare terminal |\n\
         | --- | --- | --- | --- | --- |"
    );
    let rivals = rivals(sandbox.as_ref(), [by_pipe, by_terminal]);
    let mut times = vec![Times::default(); rivals.len()];
    for round in 0..rounds {
        for turn in 0..rivals.len() {
            let at = (turn + round) % rivals.len();
            times[at].add(rivals[at].time()?);
        }
    }
    for (rival, own) in rivals.iter().zip(&times) {
        rival.row(own, &rivals, &times);
    }
    if sandbox.is_some() {
        let speed = |at: usize| rivals[at].speed(times[at].quartile());
        verdict("counted: at least", COUNTED_BAR, speed(COUNTED) / speed(PIPE));
        verdict("by a terminal: at least", TERMINAL_BAR, speed(OURS) / speed(PIPE));
    }
    Ok(())
}

fn verdict(what: &str, bar: f64, got: f64) {
    let word = if got >= bar { "reached" } else { "not reached" };
    println!("\n{what} {bar} of a bare pipe: {word}, {got:.2}.");
}

/// Places among the rivals.
const PIPE: usize = 0;
const TERMINAL: usize = 1;
const COUNTED: usize = 3;
const OURS: usize = 4;

/// How the output gets to the reader, which is this program.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Pipe,
    /// All three standard descriptors are a terminal, whose master side is read.
    Terminal,
}

#[derive(Debug)]
struct Rival<'a> {
    name: &'static str,
    way: Way,
    sandbox: Option<(&'a Sandbox, &'static [&'static str])>,
    mib: usize,
}

fn rivals<'a>(sandbox: Option<&'a Sandbox>, [pipe, terminal]: [usize; 2]) -> Vec<Rival<'a>> {
    let bare = |name, way, mib| Rival { name, way, sandbox: None, mib };
    let mut all = vec![
        bare("a bare pipe", Way::Pipe, pipe),
        bare("a bare terminal", Way::Terminal, terminal),
    ];
    let Some(sandbox) = sandbox else { return all };
    let ours = |name, way, flags, mib| Rival { name, way, sandbox: Some((sandbox, flags)), mib };
    all.push(ours("sandbox run, a pipe", Way::Pipe, &[], pipe));
    let limit = &["--output-limit", "1T"];
    all.push(ours("sandbox run --output-limit, a pipe", Way::Pipe, limit, pipe));
    all.push(ours("sandbox run, a terminal", Way::Terminal, &[], terminal));
    all
}

impl Rival<'_> {
    fn command(&self) -> Command {
        let count = format!("count={}", self.mib * 16);
        let words = ["dd", "if=/dev/zero", "bs=64k", &count, "status=none"];
        let Some((sandbox, flags)) = self.sandbox else {
            let mut command = Command::new(words[0]);
            quiet(command.args(&words[1..]));
            return command;
        };
        sandbox.command(["run"].iter().chain(flags).chain(&["--"]).chain(&words))
    }

    /// From the start until all has arrived and the command is reaped.
    fn time(&self) -> Result<Duration> {
        let mut command = self.command();
        let start = Instant::now();
        let (reader, mut child) = match self.way {
            Way::Pipe => {
                let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
                (reader, command.stdout(Stdio::from(writer)).spawn()?)
            }
            Way::Terminal => {
                let (master, side) = terminal()?;
                command
                    .stdin(Stdio::from(side.try_clone()?))
                    .stderr(Stdio::from(side.try_clone()?));
                (master, command.stdout(Stdio::from(side)).spawn()?)
            }
        };
        // It holds our copies of the other side.
        drop(command);
        let arrived = drain(&reader)?;
        let status = child.wait()?;
        let took = start.elapsed();
        if !status.success() || arrived < self.mib << 20 {
            return Err(format!("{}: {status}, {arrived} bytes arrived", self.name).into());
        }
        Ok(took)
    }

    fn speed(&self, time: Duration) -> f64 {
        (self.mib << 20) as f64 / 1e6 / time.as_secs_f64()
    }

    fn row(&self, own: &Times, rivals: &[Self], times: &[Times]) {
        let ratio = |at: usize| self.speed(own.quartile()) / rivals[at].speed(times[at].quartile());
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} |",
            self.name,
            self.speed(own.quartile()),
            self.speed(own.median()),
            ratio(PIPE),
            ratio(TERMINAL)
        );
    }
}

/// A new terminal: the master side, and the other one.
fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let side = ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, side))
}

/// Reads until the other side is closed by all.
fn drain(reader: &OwnedFd) -> Result<usize> {
    let (mut buffer, mut arrived) = (vec![0; 64 << 10], 0);
    loop {
        match rustix::io::read(reader.as_fd(), &mut *buffer) {
            // EIO: the end of a terminal.
            Ok(0) | Err(Errno::IO) => return Ok(arrived),
            Ok(bytes) => arrived += bytes,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
