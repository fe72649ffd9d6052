//! `sandbox rm`.

use std::process::ExitCode;

use serde_json::json;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::Outcome;
use super::trash;
use crate::fault::Result;
use crate::ops::rm::{Ended, Removed, rm};
use crate::store::{RunId, SnapshotName, Store};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sandbox rm devel                   only the name; `sandbox undo` takes it back
  sandbox rm --run r-0h2k4m6p8r0t2   what a run has changed that was kept; it does not come back")]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
pub(super) struct Args {
    /// Names to remove; the layers stay as long as anything needs them
    #[arg(value_name = "NAME", group = "what")]
    names: Vec<SnapshotName>,

    /// A kept run to throw away, or what is left of one that is over, by name or id; may be given several times
    #[arg(long = "run", value_name = "RUN", group = "what")]
    runs: Vec<String>,
}

/// Removes names and kept runs: all of them, or none if one is unknown.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    let (runs, removed) = common.patiently(|| remove(&store, args, common))?;
    if common.json {
        let mut told = json!({"removed": removed});
        if !args.names.is_empty() {
            told["box"] = json!(common.box_name()?);
        }
        if !args.runs.is_empty() {
            told["runs"] = json!(runs);
        }
        print_json(&told)?;
    } else if !common.quiet {
        let line = |gone: &Removed| {
            let layer = gone.layer.as_ref();
            let layer = layer.map_or_else(|| "unreadable".to_owned(), |id| short(id.as_str()));
            format!("removed {}: it was {layer}\n", gone.name)
        };
        let runs = runs.iter().map(|run| format!("removed run {run}\n"));
        print(&removed.iter().map(line).chain(runs).collect::<String>())?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn remove(store: &Store, args: &Args, common: &Common) -> Result<(Vec<RunId>, Vec<Removed>)> {
    let held = Ended::hold(store, &args.runs)?;
    let removed = match args.names.as_slice() {
        [] => Vec::new(),
        names => rm(store, &common.box_name()?, names)?,
    };
    Ok((held.discard(store)?, removed))
}
