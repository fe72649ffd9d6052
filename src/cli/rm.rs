//! `sandbox rm`.

use std::process::ExitCode;

use serde_json::json;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::Outcome;
use super::trash;
use crate::ops::rm::rm;
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names to remove; the layers stay as long as anything needs them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<SnapshotName>,
}

/// Removes names: all of them, or none if one is unknown.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let (store, box_name) = (common.store()?, common.box_name()?);
    let removed = common.patiently(|| rm(&store, &box_name, &args.names))?;
    if common.json {
        print_json(&json!({"box": box_name, "removed": removed}))?;
    } else if !common.quiet {
        let line = |gone: &crate::ops::rm::Removed| {
            let layer = gone.layer.as_ref();
            let layer = layer.map_or_else(|| "unreadable".to_owned(), |id| short(id.as_str()));
            format!("removed {}: it was {layer}\n", gone.name)
        };
        print(&removed.iter().map(line).collect::<String>())?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}
