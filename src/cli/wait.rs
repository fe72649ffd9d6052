//! `sandbox wait`.

use std::process::ExitCode;

use serde::Serialize;

use super::args::Common;
use super::output::print_json;
use super::report::{self, Outcome};
use crate::ops::stay::{self, Ending};
use crate::store::{LayerId, RunId};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
How a run ended that is over already is known for a week, of the 20 that ended last, and until
another run is started under its name. A --report of `start` stays.

Exit code: that of the run, as `run` would give it; 125 anything of sandbox")]
pub(super) struct Args {
    /// The run, by name or id
    run: String,
}

/// What is told of the end of a run.
#[derive(Debug, Serialize)]
pub(super) struct Told<'a> {
    run: Option<RunId>,
    exit: u8,
    committed: Option<LayerId>,
    kept: bool,
    messages: &'a [String],
    error: Option<&'a str>,
}

impl<'a> Told<'a> {
    /// What is told of this one.
    pub(super) fn of(ending: &'a Ending) -> Self {
        Self {
            run: ending.run,
            exit: ending.code,
            committed: ending.committed,
            kept: ending.kept,
            messages: &ending.messages,
            error: ending.fault.as_ref().map(|fault| fault.message.as_str()),
        }
    }
}

/// Waits for the end; the exit code is that of the run.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let ending = stay::wait(&common.store()?, &args.run)?;
    ending.messages.iter().for_each(|line| common.note(line));
    if common.json {
        print_json(&Told::of(&ending))?;
    } else if let Some(fault) = &ending.fault {
        report::tell(fault, false);
    }
    Ok(ExitCode::from(ending.code))
}
