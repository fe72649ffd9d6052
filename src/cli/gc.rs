//! `sandbox gc`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::Common;
use super::output::{count, print, print_json, size};
use super::report::Outcome;
use crate::ops::gc::{Request, gc};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,

    /// Also what only an undo would need
    #[arg(long)]
    all: bool,
}

/// Removes dead runs and layers that nothing needs, and empties the trash.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store_of_all()?;
    // The store waits for others itself, a moment in any case.
    let moment = Duration::from_secs(5);
    let request = Request { dry_run: args.dry_run, all: args.all };
    let collected = common.patiently(|| gc(&store, request, moment))?;
    if common.json {
        print_json(&collected)?;
    } else if !common.quiet {
        let (removed, freed) = match args.dry_run {
            true => ("would remove", "would free"),
            false => ("removed", "freed"),
        };
        print(&format!(
            "{removed} {}, {}; {freed} {}\n",
            count(collected.layers.len() as u64, "layer", "layers"),
            count(collected.runs.len() as u64, "run", "runs"),
            size(collected.freed),
        ))?;
    }
    common.verbose(|| {
        let hold = collected.longest_hold.as_secs_f64() * 1000.0;
        format!("store lock: held {} times, at most {hold:.1} ms", collected.holds)
    });
    Ok(ExitCode::SUCCESS)
}
