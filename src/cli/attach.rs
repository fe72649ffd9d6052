//! `sandbox attach`.

use std::process::ExitCode;
use std::str::FromStr;

use super::args::Common;
use super::report::Outcome;
use crate::ops::stay::{Keys, Left, Manner, attach, line};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows the output from the last line on. What is typed goes to the command if it was started with
--interactive or --tty; so do ^C and ^\\ in any case. Several may be attached at once.

Exit code: that of the run, if it ends; 0 if the keys were typed; 125 anything of sandbox")]
pub(super) struct Args {
    /// The run, by name or id
    run: String,

    /// Only look: nothing is typed, and a signal ends `attach` alone
    #[arg(long)]
    no_stdin: bool,

    /// The keys to leave by while the run goes on, where its command has a terminal
    #[arg(
        long,
        value_name = "KEYS",
        default_value = "ctrl-p,ctrl-q",
        value_parser = Keys::from_str
    )]
    detach_keys: Keys,
}

/// Attaches the standard descriptors; the exit code is that of the run.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let line = line(&common.store()?, &args.run)?;
    let id = line.run();
    let manner = if args.no_stdin { Manner::Looks } else { Manner::Types(args.detach_keys) };
    match attach(line, manner, false)? {
        Left::Ended(ending) => {
            // The log of one that is left has said it.
            if !ending.is_left() {
                ending.messages.iter().for_each(|line| common.note(line));
            }
            Ok(ExitCode::from(ending.code))
        }
        Left::Detached => {
            common.note(&format!("detached from {id}, which runs on"));
            Ok(ExitCode::SUCCESS)
        }
        Left::Signal(number) => Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))),
    }
}
