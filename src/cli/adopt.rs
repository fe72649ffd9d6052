//! `sandbox adopt`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::Outcome;
use super::trash;
use crate::ops::adopt::adopt;
use crate::ops::budget;
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run, by its name or the beginning of its id: kept, or killed
    run: String,

    /// Put PREFIX and a dash before the names
    #[arg(long = "as", value_name = "PREFIX")]
    prefix: Option<SnapshotName>,
}

/// Takes them in.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    if let Some(warning) = budget::check(&store)? {
        common.note(&warning);
    }
    let run = store.run_id(&args.run)?;
    let adopted = common.patiently(|| adopt(&store, &run, args.prefix.as_ref()))?;
    if common.json {
        print_json(&adopted)?;
    } else if !common.quiet {
        for taken in &adopted.snapshots {
            let layer = short(&taken.layer.to_string());
            print(&format!("{}: {layer}: made inside as {}\n", taken.name, taken.inside))?;
        }
    }
    adopted.left.iter().for_each(|line| common.note(line));
    if adopted.snapshots.is_empty() {
        common.note("nothing new was made inside");
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}
