//! The command line: arguments in, text or JSON out, and the exit code. One file per command; what the
//! commands do is in `ops`.

mod adopt;
mod args;
mod attach;
mod boxes;
mod changeflags;
mod completions;
mod cp;
mod df;
mod diff;
mod doctor;
mod exec;
mod fsck;
mod gc;
mod graph;
mod init;
mod kill;
mod limitflags;
mod list;
mod log;
mod logs;
mod man;
mod netflags;
mod output;
mod parse;
mod profile;
mod ps;
mod quick;
mod recover;
mod rename;
mod report;
mod rm;
mod rollback;
mod run;
mod runflags;
mod scrub;
mod shell;
mod show;
mod snapshot;
mod start;
mod stop;
mod trash;
mod undo;
mod unshare;
mod wait;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use rustix::fs::Mode;

use args::Common;
use output::Color;
use report::{Codes, Outcome};

const EXAMPLES: &str = "\
Examples:
  sandbox init --from tar:rootfs.tar.xz             fill the box `default`
  sandbox run --bind a.rpm:/a.rpm -- rpm -i /a.rpm  try it, nothing is kept
  sandbox run --commit devel -- useradd builder     keep the changes as `devel`
  sandbox shell --from devel                        a disposable shell on top
  sandbox diff devel                                what `devel` changed
  sandbox doctor                                    what this machine can do";

/// Run commands on snapshots of a root file system, without root and without a daemon
#[derive(Debug, Parser)]
#[command(
    name = "sandbox",
    bin_name = "sandbox",
    version,
    after_help = EXAMPLES,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a box from a root file system and take the snapshot `postinit`
    Init(init::Args),
    /// Run a command on a snapshot; keep its changes or throw them away
    Run(Box<run::Args>),
    /// Open a disposable shell on a snapshot
    Shell(Box<shell::Args>),
    /// Start a command that runs on in the background, until it ends or is stopped
    #[command(after_help = start::EXAMPLES)]
    Start(Box<start::Args>),
    /// Run one more command in a run that stays
    Exec(exec::Args),
    /// List the runs: those that live, were kept or were killed
    Ps(ps::Args),
    /// Show what the command of a run has written
    Logs(logs::Args),
    /// Show the output of a run as it comes, and type to its command
    Attach(attach::Args),
    /// Wait for the end of a run; the exit code is its own
    Wait(wait::Args),
    /// End runs, and keep or drop what they changed
    Stop(stop::Args),
    /// Send the command of runs a signal
    Kill(kill::Args),
    /// Copy files into and out of snapshots and runs
    Cp(cp::Args),
    /// Run a program of this machine with the ids of a box; no sandbox
    Unshare(unshare::Args),
    /// List the snapshots of a box
    List(list::Args),
    /// Show all about one snapshot
    Show(show::Args),
    /// List what was done to a box, or draw the tree of its layers
    Log(log::Args),
    /// Name the head of the box and make it current
    Snapshot(snapshot::Args),
    /// Go back to a snapshot: it becomes head and current
    Rollback(rollback::Args),
    /// Go back to the current snapshot: it becomes head
    Clean(rollback::CleanArgs),
    /// Remove snapshots
    Rm(rm::Args),
    /// Give a snapshot another name
    Rename(rename::Args),
    /// Take back the last change of snapshots, head or current
    Undo(undo::Args),
    /// List the paths that differ between two snapshots
    Diff(diff::Args),
    /// Make a snapshot of what a kept run has left
    Recover(recover::Args),
    /// Take in the snapshots that a sandbox inside a kept run has made
    Adopt(adopt::Args),
    /// Remove the snapshots or caches of a box, or the box itself
    Scrub(scrub::Args),
    /// List boxes, show one, or change its defaults
    #[command(name = "box")]
    Boxes(boxes::Args),
    /// Free the space of what nothing needs any more
    Gc(gc::Args),
    /// Show what takes space in the store
    Df(df::Args),
    /// Look for damage in the store, and mend it
    Fsck(fsck::Args),
    /// Try what this machine can do and say how to get the rest
    Doctor(doctor::Args),
    /// List the profiles, print one, or check a file
    Profile(profile::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print a page of the manual
    Man(man::Args),
}

impl Command {
    fn codes(&self) -> Codes {
        match self {
            Self::Run(_)
            | Self::Shell(_)
            | Self::Start(_)
            | Self::Exec(_)
            | Self::Unshare(_)
            | Self::Attach(_)
            | Self::Wait(_) => Codes::Payload,
            _ => Codes::Own,
        }
    }
}

/// The program: reads the arguments of this process, does what they say and gives the exit code.
pub fn main() -> ExitCode {
    // A limit on the size of files is an error to tell, not a reason to die half-way.
    crate::sys::signal::ignore(nix::sys::signal::Signal::SIGXFSZ).ok();
    // Whoever has started us may reap no children (daemons do so), and we could not wait for ours.
    crate::sys::signal::default(nix::sys::signal::Signal::SIGCHLD).ok();
    let umask = keep_own_rights();
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match quick::parse(&words) {
        Some(cli) => cli,
        None => match with_stack(|| parse(&words)) {
            Ok(cli) => cli,
            Err((error, typed)) => {
                return report::clap(error, &typed.command, typed.codes, typed.json);
            }
        },
    };
    if let Some(dir) = cli.common.given_dir() {
        output::aim(dir);
    }
    let codes = cli.command.codes();
    match refuse_set_id().and_then(|()| dispatch(cli.command, &cli.common, umask)) {
        Ok(code) => code,
        Err(stop) => report::stop(&stop, codes, cli.common.json),
    }
}

/// What the flags of all commands need to be built, and their help to be made.
const PARSER_STACK: usize = 4 << 20;

/// Does `job` where there is stack enough, whatever the limit on that of the process is (`ulimit -s`). The thread that it takes
/// for that is gone afterwards: whoever makes namespaces is alone.
fn with_stack<T: Send>(job: impl Fn() -> T + Sync) -> T {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    if limit.is_none_or(|limit| limit >= PARSER_STACK as u64) {
        return job();
    }
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK);
        thread.spawn_scoped(scope, &job).ok()?.join().ok()
    });
    done.unwrap_or_else(job)
}

/// Parses a line that is not among the plainest.
fn parse(words: &[OsString]) -> Result<Cli, (clap::Error, Typed)> {
    if let Some(cli) = parse_alone(words) {
        return Ok(cli);
    }
    let typed = Typed::of(words.get(1..).unwrap_or_default());
    Cli::command()
        .color(typed.color)
        .try_get_matches_from(words)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| (error, typed))
}

/// A correct line of `run` or `exec`, by a parser that knows no other command: to build the flags of all commands
/// takes longer than some runs. What it does not take (another command, a mistake, `--help`) is for the
/// whole parser, which also tells what is wrong.
fn parse_alone(words: &[OsString]) -> Option<Cli> {
    let name = words.iter().find(|word| *word == "run" || *word == "exec")?;
    let command = match name == "run" {
        true => <run::Args as clap::Args>::augment_args(clap::Command::new("run")),
        false => <exec::Args as clap::Args>::augment_args(clap::Command::new("exec")),
    };
    let sandbox = <Common as clap::Args>::augment_args(clap::Command::new("sandbox"));
    let matches = sandbox.subcommand(command).try_get_matches_from(words).ok()?;
    Cli::from_arg_matches(&matches).ok()
}

/// Gives the umask of the caller, of which what it takes from the caller itself no longer holds for us: nobody could read
/// what we write to the store. What it takes from others stays, for what we make outside of the store.
fn keep_own_rights() -> Mode {
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(umask - Mode::RWXU);
    umask
}

/// Whoever could reach us would act in our owner's store (CVE-2020-5291, CVE-2026-41163).
fn refuse_set_id() -> Result<(), report::Stop> {
    if !crate::sys::process::is_set_id() {
        return Ok(());
    }
    let fault = crate::fault::Fault::host(
        "start: sandbox: the program has set-id bits or file capabilities",
    );
    Err(fault.hint("take them away; it needs none").into())
}

fn dispatch(command: Command, common: &Common, umask: Mode) -> Outcome {
    match command {
        Command::Init(args) => init::run(args, common),
        Command::Run(args) => run::run(*args, common),
        Command::Shell(args) => shell::run(*args, common),
        Command::Start(args) => start::run(*args, common),
        Command::Exec(args) => exec::run(args, common),
        Command::Ps(args) => ps::run(&args, common),
        Command::Logs(args) => logs::run(&args, common),
        Command::Attach(args) => attach::run(args, common),
        Command::Wait(args) => wait::run(&args, common),
        Command::Stop(args) => stop::run(args, common),
        Command::Kill(args) => kill::run(&args, common),
        Command::Cp(args) => cp::run(args, common),
        Command::Unshare(args) => unshare::run(args, common, umask),
        Command::List(args) => list::run(args, common),
        Command::Show(args) => show::run(&args, common),
        Command::Log(args) => log::run(&args, common),
        Command::Snapshot(args) => snapshot::run(&args, common),
        Command::Rollback(args) => rollback::run(&args, common),
        Command::Clean(args) => rollback::run_clean(&args, common),
        Command::Rm(args) => rm::run(&args, common),
        Command::Rename(args) => rename::run(&args, common),
        Command::Undo(args) => undo::run(&args, common),
        Command::Diff(args) => diff::run(&args, common),
        Command::Adopt(args) => adopt::run(&args, common),
        Command::Recover(args) => recover::run(&args, common),
        Command::Scrub(args) => scrub::run(&args, common),
        Command::Boxes(args) => boxes::run(&args, common),
        Command::Gc(args) => gc::run(&args, common),
        Command::Df(args) => df::run(&args, common),
        Command::Fsck(args) => fsck::run(&args, common),
        Command::Doctor(args) => doctor::run(args, common),
        Command::Profile(args) => profile::run(&args, common),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(&args),
    }
}

/// What must be known of a command line even if the rest of it is wrong: how to tell the mistake.
struct Typed {
    /// `sandbox`, or `sandbox run`.
    command: String,
    codes: Codes,
    json: bool,
    color: ColorChoice,
}

impl Typed {
    fn of(words: &[OsString]) -> Self {
        let mut typed = Self {
            command: "sandbox".to_owned(),
            codes: Codes::Own,
            json: false,
            color: ColorChoice::Auto,
        };
        let mut command = false;
        let mut words = words.iter().map(OsString::as_os_str);
        while let Some(word) = words.next() {
            let text = word.to_str().unwrap_or_default();
            match text {
                "--" => break,
                "--json" => typed.json = true,
                "--color" => typed.paint(words.next()),
                "--base-dir" | "--box" | "-b" => drop(words.next()),
                _ if text.starts_with("--color=") => {
                    typed.paint(text.strip_prefix("--color=").map(OsStr::new));
                }
                // The first word without a dash is the command. Later ones may be values of its flags, so
                // the search for --json goes on up to `--`: at worst a mistake is told as JSON.
                _ if !command && !text.starts_with('-') => {
                    command = true;
                    if Cli::command().find_subcommand(text).is_some() {
                        typed.command = format!("sandbox {text}");
                    }
                    if matches!(
                        text,
                        "run" | "shell" | "start" | "attach" | "wait" | "exec" | "unshare"
                    ) {
                        typed.codes = Codes::Payload;
                    }
                }
                _ => {}
            }
        }
        typed
    }

    fn paint(&mut self, when: Option<&OsStr>) {
        let when = when.and_then(OsStr::to_str);
        let when = when.and_then(|text| <Color as clap::ValueEnum>::from_str(text, false).ok());
        self.color = match when {
            Some(Color::Always) => ColorChoice::Always,
            Some(Color::Never) => ColorChoice::Never,
            Some(Color::Auto) | None => ColorChoice::Auto,
        };
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
