//! `sandbox list`.

use std::process::ExitCode;

use super::args::Common;
use super::output::{Ink, Table, ink, print, print_json, size, time};
use super::report::Outcome;
use super::trash;
use crate::ops::list::{Listing, list};

/// The arguments: none of its own.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Lists the snapshots, the oldest first; a star marks those that name the current layer.
pub(super) fn run(_: Args, common: &Common) -> Outcome {
    let store = common.store()?;
    let listing = list(&store, &common.box_name()?)?;
    if common.json {
        print_json(&listing)?;
    } else {
        print(&text(&listing, common.color.on_stdout()))?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn text(listing: &Listing, color: bool) -> String {
    let mut table = Table::new(&["NAME", "LAYER", "CREATED", ">SIZE", ""]);
    for snapshot in &listing.snapshots {
        table.row(&[
            &snapshot.name.to_string(),
            &short(&snapshot.layer.to_string()),
            &time(snapshot.created),
            &size(snapshot.own_bytes),
            if snapshot.current { "*" } else { "" },
        ]);
    }
    let text = table.text();
    if !color {
        return text;
    }
    text.lines()
        .map(|line| match line.strip_suffix('*') {
            Some(rest) => format!("{rest}{}\n", ink("*", Ink::Green, true)),
            None => format!("{line}\n"),
        })
        .collect()
}

/// The beginning of a layer's id, long enough to be told apart by an eye. Ids begin with the time.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}
