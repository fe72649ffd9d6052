//! `sandbox undo`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json, time};
use super::report::Outcome;
use super::show::command_line;
use super::trash;
use crate::fault::printable;
use crate::ops::undo::{Undone, undo};
use crate::store::{LayerId, Moved};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A move is a rollback, clean, snapshot, rm, rename, scrub --snapshots, or a run, shell or recover that
kept something. Again goes further back, as far as the log of the box goes (`sandbox log`) and gc has
left what is needed: a week, unless the box says otherwise.")]
pub(super) struct Args {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Takes back the last move.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let (store, box_name) = (common.store()?, common.box_name()?);
    let undone = common.patiently(|| undo(&store, &box_name, args.dry_run))?;
    if common.json {
        print_json(&undone)?;
    } else if !common.quiet {
        print(&text(&undone))?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn text(undone: &Undone) -> String {
    let done = if undone.dry_run { "would undo" } else { "undone" };
    let argv = match undone.argv.is_empty() {
        true => String::new(),
        false => format!(": {}", printable(&command_line(&undone.argv))),
    };
    let mut text = format!("{done}: {} of {}{argv}\n", undone.action, time(undone.time));
    for Moved { name, old, new } in &undone.changes {
        let layer = |layer: LayerId| short(layer.as_str());
        text.push_str(&match (old, new) {
            (old, Some(new)) if *old == Some(*new) => {
                format!("{name}: {}, its protection and message as before\n", layer(*new))
            }
            (Some(old), Some(new)) => format!("{name}: {}, was {}\n", layer(*new), layer(*old)),
            (None, Some(new)) => format!("{name}: {}\n", layer(*new)),
            (Some(old), None) => format!("{name}: removed, was {}\n", layer(*old)),
            (None, None) => format!("{name}: removed\n"),
        });
    }
    text
}
