//! `sandbox snapshot`.

use std::process::ExitCode;

use serde_json::json;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::Outcome;
use super::trash;
use crate::ops::snapshot::snapshot;
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The new name
    name: SnapshotName,
}

/// Names the head and makes it current.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let (store, box_name) = (common.store()?, common.box_name()?);
    let layer = common.patiently(|| snapshot(&store, &box_name, &args.name))?;
    if common.json {
        print_json(&json!({"box": box_name, "name": args.name, "layer": layer}))?;
    } else if !common.quiet {
        print(&format!("{}: {}\n", args.name, short(&layer.to_string())))?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}
