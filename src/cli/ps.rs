//! `sandbox ps`.

use std::process::ExitCode;

use super::args::Common;
use super::output::{Table, print, print_json, time};
use super::report::Outcome;
use crate::ops::stay::{Listing, State, list};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also those that are over, and of which the log and the exit code are left
    #[arg(short, long)]
    all: bool,
}

/// Lists the runs of all boxes, the oldest first. Unlike other commands it removes nothing of what was killed, so
/// that it can be seen, and recovered.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let listing = list(&common.store_of_all()?, args.all)?;
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
        let state = match (run.state, run.exit) {
            (State::Running, _) => "running".to_owned(),
            (State::Kept, _) => "kept".to_owned(),
            (State::Dead, _) => "dead".to_owned(),
            (State::Ended, code) => format!("ended ({})", code.unwrap_or_default()),
        };
        table.row(&[
            &run.run.to_string(),
            run.name.as_ref().map_or("", |name| name.as_str()),
            run.box_name.as_str(),
            &run.from,
            &state,
            &time(run.started),
            &run.argv.join(" "),
        ]);
    }
    table.text()
}
