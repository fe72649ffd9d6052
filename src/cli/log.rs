//! `sandbox log`.

use std::process::ExitCode;

use super::args::Common;
use super::graph::draw;
use super::list::short;
use super::output::{Table, count, print, print_json, size, time};
use super::report::Outcome;
use super::show::command_line;
use super::trash;
use crate::fault::printable;
use crate::ops::log::{Entry, Log, Node, Request, log};
use crate::store::{LayerId, Moved};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sandbox log -n 5       the last five moves: what, from where to where, by which command
  sandbox log --graph    the layers of the box as a tree; a star marks the current one")]
pub(super) struct Args {
    /// Draw the tree of layers instead of listing the moves
    #[arg(long)]
    graph: bool,

    /// No more than N, the newest
    #[arg(short = 'n', long = "limit", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// Lists what was done to the box, the newest first.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let (store, box_name) = (common.store()?, common.box_name()?);
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok());
    let log = log(&store, &box_name, Request { limit, graph: args.graph })?;
    if common.json {
        print_json(&log)?;
    } else if let Some(layers) = &log.layers {
        print(&draw(layers, describe))?;
    } else {
        print(&text(&log))?;
    }
    if log.unreadable > 0 {
        let lines = count(log.unreadable as u64, "line", "lines");
        let file = store.path().join(format!("boxes/{box_name}/log"));
        common.note(&format!("{}: {lines} cannot be read, and not be undone", file.display()));
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn text(log: &Log) -> String {
    let mut table = Table::new(&["TIME", "ACTION", "NAME", "LAYER", "COMMAND"]);
    for entry in &log.entries {
        let mut lead = (time(entry.time), action(entry), command_line(&entry.argv));
        for moved in rows(entry) {
            let layers = format!("{} -> {}", layer(moved.old, entry), layer(moved.new, entry));
            table.row(&[&lead.0, &lead.1, &moved.name, &layers, &lead.2]);
            lead = Default::default();
        }
    }
    table.text()
}

fn action(entry: &Entry) -> String {
    let mut action = entry.action.clone();
    if let Some(taken_back) = entry.undoes.as_ref().and_then(|undoes| undoes.action.as_ref()) {
        action.push_str(&format!(" ({taken_back})"));
    }
    if entry.undone {
        action.push_str(" (undone)");
    }
    action
}

/// A row for each name; of head and current only what no name tells.
fn rows(entry: &Entry) -> Vec<Moved> {
    let is_head = |moved: &Moved| matches!(moved.name.as_str(), "head" | "current");
    let (heads, names): (Vec<Moved>, Vec<Moved>) = entry.changes.iter().cloned().partition(is_head);
    let said = match &entry.name {
        Some(name) if names.is_empty() => name.to_string(),
        _ => heads.first().map_or_else(|| "head".to_owned(), |moved| moved.name.clone()),
    };
    match (names.is_empty(), heads.into_iter().next()) {
        (true, Some(head)) => vec![Moved { name: said, ..head }],
        (true, None) => vec![Moved { name: said, old: entry.old, new: entry.new }],
        // What a snapshot makes current is what it names.
        (false, Some(head)) if head.name == "head" && entry.action != "init" => {
            names.into_iter().chain([head]).collect()
        }
        (false, _) => names,
    }
}

fn layer(layer: Option<LayerId>, entry: &Entry) -> String {
    match layer {
        None => "-".to_owned(),
        Some(layer) if entry.gone.contains(&layer) => format!("{} (gone)", short(layer.as_str())),
        Some(layer) => short(layer.as_str()),
    }
}

fn describe(node: &Node) -> String {
    let mut words = vec![short(node.layer.as_str())];
    let mut names: Vec<String> = Vec::new();
    names.extend(node.head.then(|| "head".to_owned()));
    names.extend(node.names.iter().map(ToString::to_string));
    let star = if node.current { " *" } else { "" };
    if !names.is_empty() || node.current {
        words.push(format!("({}){star}", names.join(", ")));
    }
    match node.created {
        None => words.push("gone".to_owned()),
        Some(created) => {
            words.extend([time(created), size(node.own_bytes), command_line(&node.argv)]);
        }
    }
    printable(words.join("  ").trim_end())
}
