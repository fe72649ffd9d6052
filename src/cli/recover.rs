//! `sandbox recover`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{count, print, print_json, size};
use super::report::Outcome;
use super::trash;
use crate::ops::budget;
use crate::ops::recover::recover;
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run
    run: String,

    /// The name of the new snapshot, in the box of the run
    #[arg(long = "as", value_name = "NAME")]
    name: SnapshotName,
}

/// Makes the snapshot.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    if let Some(warning) = budget::check(&store)? {
        common.note(&warning);
    }
    let run = store.run_id(&args.run)?;
    let recovered = common.patiently(|| recover(&store, &run, &args.name))?;
    if common.json {
        print_json(&recovered)?;
    } else if !common.quiet {
        let found = match recovered.changed {
            true => {
                let files = count(recovered.files, "entry", "entries");
                format!("{} in {files}", size(recovered.own_bytes))
            }
            false => "nothing had changed".to_owned(),
        };
        let layer = short(&recovered.layer.to_string());
        print(&format!("{}: {layer}: {found}\n", recovered.name))?;
    }
    common.note("every file was read; disk errors from before the run ended cannot be known");
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}
