//! `sandbox df`.

use std::process::ExitCode;

use super::args::Common;
use super::output::{Table, print, print_json, size};
use super::report::Outcome;
use super::trash;
use crate::ops::df::{Space, df};
use crate::store::BoxName;

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
OWN is the layer of a snapshot alone, SHARED what lies beneath it, RECLAIMABLE what
`rm` of this name alone and `gc --all` would free.")]
pub(super) struct Args {
    /// Tell of this box only [default: all]
    #[arg(value_name = "BOX", conflicts_with = "box_name")]
    name: Option<BoxName>,
}

/// Measures the store.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    let space = df(&store, args.name.as_ref())?;
    if common.json {
        print_json(&space)?;
    } else {
        print(&text(&space))?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn text(space: &Space) -> String {
    let mut table = Table::new(&["BOX", "SNAPSHOT", ">OWN", ">SHARED", ">RECLAIMABLE"]);
    for one in &space.boxes {
        for snapshot in &one.snapshots {
            table.row(&[
                one.box_name.as_str(),
                snapshot.name.as_str(),
                &size(snapshot.own),
                &size(snapshot.shared),
                &size(snapshot.reclaimable),
            ]);
        }
    }
    let mut text = table.text();
    let parts = [
        ("layers", space.layers),
        ("runs", space.runs),
        ("cache", space.cache),
        ("trash", space.trash),
        ("records", space.records),
    ];
    let parts: Vec<_> =
        parts.iter().map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
    text.push_str(&format!("{} in all: {}\n", size(space.total), parts.join(", ")));
    if space.unused > 0 {
        text.push_str(&format!("{} in layers that no name needs\n", size(space.unused)));
    }
    text
}
