//! `sandbox fsck`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::Common;
use super::output::{Ink, count, ink, print, print_json};
use super::report::Outcome;
use super::trash;
use crate::fault::{Kind, printable};
use crate::ops::fsck::{Report, Request, fsck};
use crate::store::{Damage, DamageKind, LayerId};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Records, names and what may be in a layer are always checked; every file is where there are digests:
of layers made with `run --digest`, or after `fsck --seal`.

Exit code: 0 whole (or mended), 7 damaged")]
pub(super) struct Args {
    /// Mend what can be mended; what cannot goes, with the snapshots that need it
    #[arg(long)]
    repair: bool,

    /// Make digests of layers that are whole and have none
    #[arg(long)]
    seal: bool,

    /// Look into the tree of this layer only
    #[arg(long, value_name = "ID")]
    layer: Option<LayerId>,
}

/// Checks the store.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store_of_all()?;
    let request = Request { repair: args.repair, seal: args.seal, layer: args.layer };
    let home = common.box_name()?;
    // The store waits for others itself, a moment in any case.
    let moment = Duration::from_secs(5);
    let report = common.patiently(|| fsck(&store, &home, request, moment))?;
    if common.json {
        print_json(&report)?;
    } else if !common.quiet || !report.damage.is_empty() {
        print(&text(&report, common.verbose, common.color.on_stdout()))?;
    }
    if !report.ok && !common.json {
        common.note(match args.repair {
            false => "hint: `sandbox fsck --repair` mends it: what is damaged goes, with the snapshots named",
            true => "hint: what a run still mounts goes when that has ended (`sandbox ps`); where the disk cannot read, check its file system first (e2fsck, xfs_repair); then `sandbox fsck --repair` again",
        });
    }
    trash::tidy(&store, common);
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(Kind::Damaged.exit_code()) })
}

fn text(report: &Report, verbose: bool, color: bool) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        text.push_str(&line(damage, color));
    }
    if verbose {
        for note in &report.notes {
            text.push_str(&format!("note: {}: {}\n", printable(&note.path), note.detail));
        }
    }
    for action in &report.repaired {
        let path = String::from_utf8_lossy(&action.path);
        text.push_str(&format!("repair: {}: {}\n", printable(&path), action.done));
    }
    let layers = count(report.layers as u64, "layer", "layers");
    let verdict = match (report.ok, report.damage.is_empty()) {
        (true, true) => ink("whole", Ink::Green, color),
        (true, false) => ink("repaired", Ink::Yellow, color),
        (false, _) => ink("damaged", Ink::Red, color),
    };
    text.push_str(&format!("{verdict}: {layers}, {} with digests\n", report.sealed));
    text
}

/// `content: layer 01m7...: /etc/passwd: size was 3, is 4; needed by devel, other/x`.
fn line(damage: &Damage, color: bool) -> String {
    let kind = match damage.kind {
        DamageKind::Missing => "missing",
        DamageKind::Extra => "extra",
        DamageKind::Content => "content",
        DamageKind::Metadata => "metadata",
        DamageKind::Record => "record",
    };
    let path = String::from_utf8_lossy(&damage.path);
    let place = match damage.layer {
        Some(layer) if damage.kind != DamageKind::Record => {
            format!("layer {layer}: /{}", printable(path.strip_prefix('.').unwrap_or(&path)))
        }
        _ => printable(&path),
    };
    let mut line = format!("{}: {place}: {}", ink(kind, Ink::Red, color), damage.detail);
    let runs = damage.runs.iter().map(ToString::to_string);
    let needed: Vec<_> = damage.snapshots.iter().cloned().chain(runs).collect();
    if !needed.is_empty() {
        line.push_str(&format!("; needed by {}", needed.join(", ")));
    }
    line.push('\n');
    line
}
