//! `sandbox ps`.

use std::process::ExitCode;

use super::args::Common;
use super::output::{Table, print, print_json, time};
use super::report::Outcome;
use crate::ops::stay::{Listing, list};
use crate::store::RunState;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Lists the runs of all boxes, the oldest first. Unlike other commands it removes nothing of what was killed, so
/// that it can be seen, and recovered.
pub(super) fn run(_: &Args, common: &Common) -> Outcome {
    let listing = list(&common.store()?)?;
    if common.json {
        print_json(&listing)?;
    } else {
        print(&text(&listing))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(listing: &Listing) -> String {
    let mut table = Table::new(&["RUN", "NAME", "BOX", "FROM", "STATE", "STARTED", "COMMAND"]);
    for run in &listing.runs {
        let state = match run.state {
            RunState::Running => "running",
            RunState::Kept => "kept",
            RunState::Dead => "dead",
        };
        table.row(&[
            &run.run.to_string(),
            run.name.as_ref().map_or("", |name| name.as_str()),
            run.box_name.as_str(),
            &run.from,
            state,
            &time(run.started),
            &run.argv.join(" "),
        ]);
    }
    table.text()
}
