//! `sandbox rollback` and `sandbox clean`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::Outcome;
use super::trash;
use crate::fault::Result;
use crate::ops::rollback::{Moved, clean, rollback};
use crate::store::{BoxName, Store};

/// The arguments of `rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What was kept since has no name any more, unless a snapshot names it; `sandbox undo` takes the
rollback back. Runs that go on are not touched.")]
pub(super) struct Args {
    /// Snapshot, or the beginning of a layer's id (`sandbox log --graph` shows them)
    snapshot: String,
}

/// The arguments of `clean`: none of its own.
#[derive(Debug, clap::Args)]
pub(super) struct CleanArgs {}

/// Sets head and current.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    both(common, |store, box_name| rollback(store, box_name, &args.snapshot))
}

/// Sets head back to current.
pub(super) fn run_clean(_: &CleanArgs, common: &Common) -> Outcome {
    both(common, clean)
}

fn both(common: &Common, job: impl Fn(&Store, &BoxName) -> Result<Moved>) -> Outcome {
    let (store, box_name) = (common.store()?, common.box_name()?);
    let moved = common.patiently(|| job(&store, &box_name))?;
    if common.json {
        print_json(&moved)?;
    } else if !common.quiet {
        let head = short(moved.head.as_str());
        print(&match (moved.changed, moved.old) {
            (false, _) => format!("head is {head} already: nothing changed\n"),
            (true, Some(old)) if old != moved.head => {
                format!("head is {head}, was {}\n", short(old.as_str()))
            }
            (true, _) => format!("head is {head}\n"),
        })?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}
