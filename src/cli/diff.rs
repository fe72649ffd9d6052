//! `sandbox diff`.

use std::process::ExitCode;

use super::args::Common;
use super::output::{Ink, ink, print, print_json};
use super::report::Outcome;
use super::trash;
use crate::fault::printable;
use crate::ops::diff::{Sides, diff};
use crate::tree::change::{Change, ChangeKind};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Letters: A added, M content modified, D deleted, T another type, m metadata only

Examples:
  sandbox diff                   what the head changed
  sandbox diff devel             what `devel` changed
  sandbox diff postinit devel    all that lies between the two")]
pub(super) struct Args {
    /// [A] B: the snapshots to compare; B's parent and the head if left out
    #[arg(value_name = "SNAPSHOT", num_args = 0..=2)]
    snapshots: Vec<String>,

    /// What a kept run has changed
    #[arg(long, value_name = "RUN", conflicts_with = "snapshots")]
    run: Option<String>,
}

/// Prints the paths that differ, sorted.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    let sides = match (args.snapshots.as_slice(), args.run.as_deref()) {
        (_, Some(run)) => Sides::Run(run),
        ([], None) => Sides::Of("head"),
        ([to], None) => Sides::Of(to),
        ([from, to, ..], None) => Sides::Between(from, to),
    };
    let difference = diff(&store, &common.box_name()?, &sides)?;
    if common.json {
        print_json(&difference)?;
    } else {
        let color = common.color.on_stdout();
        print(&difference.changes.iter().map(|change| line(change, color)).collect::<String>())?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

/// A change as one line.
pub(super) fn line(change: &Change, color: bool) -> String {
    let (letter, colour) = match change.kind {
        ChangeKind::Added => ("A", Ink::Green),
        ChangeKind::Modified => ("M", Ink::Yellow),
        ChangeKind::Deleted => ("D", Ink::Red),
        ChangeKind::Type => ("T", Ink::Yellow),
        ChangeKind::Metadata => ("m", Ink::Yellow),
    };
    // The root itself is `.`.
    let path = if change.path == b"." { String::new() } else { name(&change.path) };
    format!("{} /{path}\n", ink(letter, colour, color))
}

/// A path for a terminal: control characters and bytes that are not UTF-8 escaped, and the backslash, so
/// that two different names never look the same.
fn name(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(&printable(&chunk.valid().replace('\\', "\\\\")));
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let cases: &[(&[u8], &str)] = &[
            (b"etc/passwd", "etc/passwd"),
            ("ä".as_bytes(), "ä"),
            (b"a\nb\x1b[31m", "a\\nb\\u{1b}[31m"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"a\\n", "a\\\\n"),
        ];
        for (path, expected) in cases {
            assert_eq!(name(path), *expected);
        }
    }
}
