//! `sandbox stop`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::Common;
use super::output::print_json;
use super::parse;
use super::report::Outcome;
use super::wait::Told;
use crate::fault::Result;
use crate::ops::budget;
use crate::ops::stay::{self, Verdict};
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --commit, --keep or --discard the run is dealt with as it was started to be: its command has
been ended by a signal, so what it changed is dropped, or with --keep-on-failure kept as a run.

Examples:
  sandbox stop web
  sandbox stop web --commit served
  sandbox stop -t 0 web              at once, by SIGKILL")]
pub(super) struct Args {
    /// The runs, by name or id
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,

    /// Keep the changes as a new snapshot
    #[arg(long, value_name = "NAME", conflicts_with_all = ["keep", "discard"])]
    commit: Option<SnapshotName>,

    /// Keep the changes on the head of the box; =force also of a run that started from another snapshot
    #[arg(
        long,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        value_enum,
        hide_possible_values = true,
        conflicts_with = "discard"
    )]
    keep: Option<Option<Keep>>,

    /// Drop the changes, whatever it was started with
    #[arg(long)]
    discard: bool,

    /// How long the command may take after SIGTERM, before all is killed
    #[arg(short, long, value_name = "T", default_value = "10s", value_parser = grace)]
    time: Duration,
}

/// The value of `--keep=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Keep {
    Force,
}

/// A time that may be none.
fn grace(text: &str) -> Result<Duration> {
    if text.trim_end_matches('s') == "0" { Ok(Duration::ZERO) } else { parse::time(text) }
}

/// Ends the runs, one after the other, and waits until their changes are dealt with.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let store = common.store()?;
    let verdict = match (args.commit, args.keep, args.discard) {
        (Some(name), ..) => Some(Verdict::Commit(name)),
        (_, Some(None), _) => Some(Verdict::Keep),
        (_, Some(Some(Keep::Force)), _) => Some(Verdict::KeepForce),
        (.., true) => Some(Verdict::Discard),
        (.., false) => None,
    };
    if !matches!(verdict, None | Some(Verdict::Discard))
        && let Some(warning) = budget::check(&store)?
    {
        common.note(&warning);
    }
    for word in &args.runs {
        let ending = stay::stop(&store, word, verdict.clone(), args.time)?;
        ending.messages.iter().for_each(|line| common.note(line));
        match ending.fault {
            Some(fault) => return Err(fault.into()),
            None if common.json => print_json(&Told::of(&ending))?,
            None => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_a_time() {
        for text in ["0", "0s"] {
            assert_eq!(grace(text).unwrap(), Duration::ZERO);
        }
        assert_eq!(grace("2s").unwrap(), Duration::from_secs(2));
        assert!(grace("").is_err() && grace("s").is_err() && grace("-1").is_err());
    }
}
