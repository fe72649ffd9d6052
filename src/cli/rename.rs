//! `sandbox rename`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::Outcome;
use super::trash;
use crate::ops::rm::rename;
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name
    old: SnapshotName,

    /// The name it shall have; time, message and protection stay
    new: SnapshotName,
}

/// Gives a snapshot another name.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let (store, box_name) = (common.store()?, common.box_name()?);
    let renamed = common.patiently(|| rename(&store, &box_name, &args.old, &args.new))?;
    if common.json {
        print_json(&renamed)?;
    } else if !common.quiet {
        let layer = short(renamed.layer.as_str());
        print(&match args.old == args.new {
            true => format!("{}: {layer}: nothing changed\n", args.new),
            false => format!("{}: {layer}, was {}\n", args.new, args.old),
        })?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}
