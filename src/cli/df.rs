//! `sandbox df`.

use std::process::ExitCode;

use super::args::Common;
use super::output::{Table, print, print_json, size};
use super::parse;
use super::report::Outcome;
use super::trash;
use crate::fault::Result;
use crate::ops::df::{Space, df};
use crate::store::{BoxName, Budget, Store};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
OWN is the layer of a snapshot alone, SHARED what lies beneath it, RECLAIMABLE what
`rm` of this name alone and `gc --all` would free.")]
pub(super) struct Args {
    /// Tell of this box only [default: all]
    #[arg(value_name = "BOX", conflicts_with = "box_name")]
    name: Option<BoxName>,

    /// Set how many bytes all layers may have: 50G, or `none` for what the file system has
    #[arg(long, value_name = "SIZE", value_parser = budget)]
    budget: Option<Limit>,

    /// Set from which percentage on commits warn [at first: 75]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    warn: Option<u8>,

    /// Set from which percentage on commits are refused, never at 100 [at first: 90]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    refuse: Option<u8>,
}

/// The value of `--budget`; a type of its own, because clap reads a bare `Option` as "flag may be absent".
#[derive(Debug, Clone, Copy)]
struct Limit(Option<u64>);

fn budget(text: &str) -> Result<Limit> {
    match text {
        "none" => Ok(Limit(None)),
        text => Ok(Limit(Some(parse::size(text)?))),
    }
}

/// Changes what was said, and leaves the rest.
fn settle(args: &Args, store: &Store) -> Result<()> {
    if args.budget.is_none() && args.warn.is_none() && args.refuse.is_none() {
        return Ok(());
    }
    let old = store.budget()?;
    store.set_budget(&Budget {
        size: args.budget.map_or(old.size, |limit| limit.0),
        warn: args.warn.unwrap_or(old.warn),
        refuse: args.refuse.unwrap_or(old.refuse),
    })
}

/// Measures the store.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store_of_all()?;
    settle(args, &store)?;
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
    let of = space.budget.size.map_or("the file system".to_owned(), size);
    text.push_str(&format!(
        "budget: {} % of {of} used; warns at {} %, refuses at {} %\n",
        space.load.percent, space.budget.warn, space.budget.refuse
    ));
    text
}
