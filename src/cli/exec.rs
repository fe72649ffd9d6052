//! `sandbox exec`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::builder::OsStringValueParser;

use super::args::Common;
use super::report::Outcome;
use super::runflags::{variables, words};
use super::{parse, report};
use crate::fault::Result;
use crate::ops;
use crate::ops::exec::ExecOptions;
use crate::ops::in_time::{self, Until};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command has the run's capabilities, filter, limits, environment, user and working directory.
It ends when the run ends. Its output is not in the run's log. Your terminal never gets inside: the command
has one of its own or, with --no-tty, pipes, which end with it (what it leaves behind reads and writes no more).

Examples:
  sandbox exec web -- ps aux               one more command
  sandbox exec web sh                      a shell; any number of them
  sandbox exec -e DEBUG=1 web 'ls | wc'    one word with blanks: a line for the shell

Exit code: the command's own; 128+n for signal n (137 too if the run has ended);
127 not found; 126 not executable; 125 anything of sandbox")]
pub(super) struct Args {
    /// Set a variable, or copy it from the caller
    #[arg(short, long, value_name = "K[=V]", value_parser = OsStringValueParser::new())]
    env: Vec<OsString>,

    /// Set the variables of a file of K=V lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Working directory inside [default: the run's]
    #[arg(short, long, value_name = "DIR", value_parser = words(parse::workdir))]
    workdir: Option<PathBuf>,

    /// User (and group) inside, by name or number [default: the run's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Insist on a terminal for the command [default: one if ours is one]
    #[arg(short, long, conflicts_with = "no_tty")]
    tty: bool,

    /// No terminal for the command, even if ours is one: pipes stand in for it
    #[arg(short = 'T', long)]
    no_tty: bool,

    /// Give up when the command has not begun after a time (0: wait for as long as it takes) [default: 30s]
    #[arg(long, value_name = "T", value_parser = parse::setup_timeout)]
    setup_timeout: Option<Duration>,

    /// The run, by name or id
    run: String,

    /// The command; one word with blanks in it is a line for /bin/sh
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "CMD",
        value_parser = OsStringValueParser::new()
    )]
    command: Vec<OsString>,
}

impl Args {
    fn options(self) -> Result<ExecOptions> {
        let terminal = match (self.tty, self.no_tty) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        // As with `run`, only if asked for.
        let until = Until::setup(Instant::now(), self.setup_timeout);
        Ok(ExecOptions {
            run: self.run,
            argv: parse::command(self.command),
            env: variables(&self.env_file, &self.env, until)?,
            workdir: self.workdir,
            user: self.user,
            setup_timeout: in_time::setup(self.setup_timeout),
            terminal,
        })
    }
}

/// Runs the command; the exit code is its own.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let options = args.options()?;
    let done = ops::exec::exec(&common.store()?, &options)?;
    for message in &done.messages {
        common.note(message);
    }
    if let Some(fault) = &done.fault {
        report::tell(fault, common.json);
    }
    Ok(ExitCode::from(done.code))
}
