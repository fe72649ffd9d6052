//! `sandbox show`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::args::Common;
use super::output::{count, print, print_json, size, time};
use super::report::Outcome;
use super::trash;
use crate::fault::{printable, quoted};
use crate::ops::show::{Shown, show};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Snapshot, BOX/SNAPSHOT, the beginning of a layer's id, `head` or `current`
    #[arg(default_value = "head", hide_default_value = true)]
    snapshot: String,
}

/// Prints all about one snapshot.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    let shown = show(&store, &common.box_name()?, &args.snapshot)?;
    if common.json {
        print_json(&shown)?;
    } else {
        print(&text(&shown))?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn text(shown: &Shown) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<10}{}", format!("{key}:"), printable(value));
    };
    if let Some(name) = &shown.name {
        line("name", &name.to_string());
    }
    line("layer", &shown.layer.to_string());
    if let Some(parent) = &shown.parent {
        line("parent", &parent.to_string());
    }
    line("layers", &shown.chain.len().to_string());
    line("created", &time(shown.created));
    if !shown.argv.is_empty() {
        line("command", &command_line(&shown.argv));
    }
    if let Some(exit) = shown.exit {
        line("exit", &exit.to_string());
    }
    let files = count(shown.files, "entry", "entries");
    line("size", &format!("{} in {files}", size(shown.own_bytes)));
    if shown.remembered > 0 {
        let files = count(shown.remembered, "entry", "entries");
        line("owners", &format!("{files} with an owner or device that is remembered"));
    }
    line("ids", &shown.id_map.mode.to_string());
    line("source", &shown.source);
    text
}

/// A command as it would be typed.
pub(super) fn command_line(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
