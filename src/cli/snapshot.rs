//! `sandbox snapshot`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::Outcome;
use super::trash;
use crate::ops::snapshot::{Done, Named, Request, snapshot};
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
No layer is made: several names may stand for one. For a name that stands for another layer,
--protect and --unprotect change that only, and --force moves it; `sandbox undo` takes that back.")]
pub(super) struct Args {
    /// The name
    name: SnapshotName,

    /// What to say about it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Refuse to remove or move the name from now on
    #[arg(long, conflicts_with = "unprotect")]
    protect: bool,

    /// Allow it again
    #[arg(long)]
    unprotect: bool,

    /// Move the name if it stands for another layer
    #[arg(long)]
    force: bool,
}

/// Names the head and makes it current.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let (store, box_name) = (common.store()?, common.box_name()?);
    let request = Request {
        name: args.name.clone(),
        message: args.message.clone(),
        protect: (args.protect || args.unprotect).then_some(args.protect),
        force: args.force,
    };
    let named = common.patiently(|| snapshot(&store, &box_name, &request))?;
    if common.json {
        print_json(&named)?;
    } else if !common.quiet {
        print(&text(&named))?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn text(named: &Named) -> String {
    let protected = if named.protected { ", protected" } else { "" };
    let done = match named.done {
        Done::Created => "",
        Done::Moved => ": moved",
        Done::Changed => ": changed",
        Done::Unchanged => ": nothing changed",
    };
    format!("{}: {}{protected}{done}\n", named.name, short(named.layer.as_str()))
}
