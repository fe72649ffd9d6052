//! Which functions of a program a command runs, by taking it and every process that it makes through one instruction at a
//! time.
//!
//! ```text
//! order PROGRAM ARGS...     a line for each function, in the order of their addresses: its symbol
//! ```
//!
//! Another program that one of them executes goes on by itself.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, ..] = &words[..] else {
        eprintln!("use: order PROGRAM ARGS...");
        return ExitCode::FAILURE;
    };
    match functions(Path::new(program), &words) {
        Ok(names) => {
            names.iter().for_each(|name| println!("{name}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("order: {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn functions(program: &Path, words: &[String]) -> Result<Vec<String>> {
    let symbols = symbols(program)?;
    let places = trace(program, words)?;
    let mut found = BTreeSet::new();
    for place in places {
        let next = symbols.partition_point(|(start, _, _)| *start <= place);
        if let Some((start, size, _)) = next.checked_sub(1).map(|at| &symbols[at])
            && place < start + size
        {
            found.insert(next - 1);
        }
    }
    Ok(found.into_iter().map(|at| symbols[at].2.clone()).collect())
}

/// Start, size in bytes and name of each function, as nm(1) tells them.
fn symbols(program: &Path) -> Result<Vec<(u64, u64, String)>> {
    let out =
        Command::new("nm").args(["-S", "-n"]).arg(program).stderr(Stdio::inherit()).output()?;
    let mut found = Vec::new();
    for line in String::from_utf8(out.stdout)?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [start, size, kind, name] = words[..]
            && "tTwW".contains(kind)
        {
            let number = |text| u64::from_str_radix(text, 16);
            found.push((number(start)?, number(size)?, name.to_owned()));
        }
    }
    Ok(found)
}

/// The places in the program where an instruction was run, as nm(1) counts them.
fn trace(program: &Path, words: &[String]) -> Result<BTreeSet<u64>> {
    let program = program.canonicalize()?;
    // Stopped before its exec, so that none of its own instructions is missed.
    let child =
        Command::new("sh").args(["-c", r#"kill -STOP $$; exec "$@""#, "sh"]).args(words).spawn()?;
    let first = Pid::from_raw(child.id().try_into()?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    ptrace::attach(first)?;
    waitpid(first, None)?;
    // Not what it makes by vfork(2), which executes newuidmap and newgidmap: traced, they are not set-user-ID (execve(2)).
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(first, options)?;
    kill(first, Signal::SIGCONT)?;
    ptrace::cont(first, None)?;

    let mut places = BTreeSet::new();
    let mut map = None;
    loop {
        let (process, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => return Ok(places),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
            Ok(WaitStatus::PtraceEvent(process, _, event)) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 {
                    if map.is_some() {
                        ptrace::detach(process, None)?;
                        continue;
                    }
                    map = Some(mapped(process, &program)?);
                }
                (process, None)
            }
            Ok(WaitStatus::Stopped(process, Signal::SIGTRAP)) => {
                if let (Some((base, end)), Some(place)) = (map, place(process))
                    && (base..end).contains(&place)
                {
                    places.insert(place - base);
                }
                (process, None)
            }
            // A process that is just made, or the end of our own stop.
            Ok(WaitStatus::Stopped(process, Signal::SIGSTOP | Signal::SIGCONT)) => (process, None),
            Ok(WaitStatus::Stopped(process, signal)) => (process, Some(signal)),
            Ok(WaitStatus::Exited(process, code)) if process == first && code != 0 => {
                return Err(format!("it ended with {code}").into());
            }
            Ok(_) => continue,
        };
        let on = if map.is_some() { ptrace::step } else { ptrace::cont };
        // It may have been killed meanwhile.
        on(process, signal).ok();
    }
}

/// Where a process is.
#[cfg(target_arch = "x86_64")]
fn place(process: Pid) -> Option<u64> {
    ptrace::getregs(process).ok().map(|registers| registers.rip)
}

#[cfg(not(target_arch = "x86_64"))]
fn place(_: Pid) -> Option<u64> {
    None
}

/// From where to where it is in memory.
fn mapped(process: Pid, program: &Path) -> Result<(u64, u64)> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let lines = maps.lines().filter(|line| line.ends_with(&*program.to_string_lossy()));
    let mut range: Option<(u64, u64)> = None;
    for line in lines {
        let (start, rest) = line.split_once('-').ok_or("a line of maps without a range")?;
        let end = rest.split(' ').next().unwrap_or_default();
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        range = Some((range.map_or(start, |(first, _)| first), end));
    }
    range.ok_or_else(|| "it is not mapped".into())
}
