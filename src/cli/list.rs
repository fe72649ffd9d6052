//! `sandbox list`.

use std::process::ExitCode;

use super::args::Common;
use super::boxes;
use super::output::{Ink, Table, ink, print, print_json, size, time};
use super::report::{self, Outcome};
use super::trash;
use crate::ops::list::{Everything, Listing, Snapshot, list, list_all};
use crate::store::Store;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The snapshots of all boxes
    #[arg(long, conflicts_with = "box_name")]
    all_boxes: bool,
}

/// Lists the snapshots, the oldest first; a star marks those that name the current layer.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    if args.all_boxes {
        return all_boxes(&common.store_of_all()?, common);
    }
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

fn all_boxes(store: &Store, common: &Common) -> Outcome {
    let all = list_all(store)?;
    if common.json {
        print_json(&all)?;
    } else {
        print(&all_text(&all, common.color.on_stdout()))?;
        all.damaged.iter().for_each(|one| report::tell(&one.error, false));
    }
    trash::tidy(store, common);
    Ok(boxes::damaged(all.damaged.is_empty()))
}

/// One table a box, each under the name of its box.
fn all_text(all: &Everything, color: bool) -> String {
    let table = |listing: &Listing| format!("box {}:\n{}", listing.box_name, text(listing, color));
    all.boxes.iter().map(table).collect::<Vec<_>>().join("\n")
}

fn text(listing: &Listing, color: bool) -> String {
    let said = listing.snapshots.iter().any(|snapshot| !note(snapshot).is_empty());
    let mut headings = vec!["NAME", "LAYER", "CREATED", ">SIZE", ""];
    headings.extend(said.then_some("MESSAGE"));
    let mut table = Table::new(&headings);
    for snapshot in &listing.snapshots {
        let mut cells = vec![
            snapshot.name.to_string(),
            short(snapshot.layer.as_str()),
            time(snapshot.created),
            size(snapshot.own_bytes),
            if snapshot.current { "*" } else { "" }.to_owned(),
        ];
        cells.extend(said.then(|| note(snapshot)));
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let text = table.text();
    // The star stands two blanks after the sizes, and what is before it is ASCII.
    let star = text.find("SIZE").map_or(0, |start| start + "SIZE".len() + 2);
    let lines = text.lines().map(|line| match (line.get(..star), line.get(star..)) {
        (Some(rest), Some(note)) if color && note.starts_with('*') => {
            format!("{rest}{}{}\n", ink("*", Ink::Green, true), &note[1..])
        }
        _ => format!("{line}\n"),
    });
    lines.collect::<String>() + &head(listing)
}

/// What the user said about a snapshot.
fn note(snapshot: &Snapshot) -> String {
    let protected = snapshot.protected.then_some("(protected)");
    let words: Vec<_> = protected.into_iter().chain(snapshot.message.as_deref()).collect();
    words.join(" ")
}

/// Where head is, if no star tells: it is not where `clean` would set it, or it has no name.
fn head(listing: &Listing) -> String {
    let Some(head) = listing.head else {
        return String::new();
    };
    let names = listing.snapshots.iter().filter(|snapshot| snapshot.layer == head);
    let names: Vec<_> = names.map(|snapshot| snapshot.name.as_str()).collect();
    if listing.head == listing.current && !names.is_empty() {
        return String::new();
    }
    let said = match names.as_slice() {
        [] => "no snapshot names it".to_owned(),
        names => names.join(", "),
    };
    format!("head is {}: {said}\n", short(head.as_str()))
}

/// The beginning of a layer's id, long enough to be told apart by an eye. Ids begin with the time.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}
