//! `sandbox shell`.

use std::io::IsTerminal;

use super::args::Common;
use super::diff::line;
use super::output::note;
use super::report::Outcome;
use super::run::execute;
use super::runflags::RunFlags;
use crate::fault::Fault;
use crate::ops::run::{Ask, RunOptions, bring_cwd};
use crate::store::SnapshotName;
use crate::tree::change::Change;

/// The best shell inside: only there can it be looked for.
/// Without a history file, which would be a change of every shell.
const SHELL: &str = "HISTFILE=; export HISTFILE; command -v bash >/dev/null && exec bash; exec sh";

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The working directory is bound read-write and entered, unless it is the home directory, one of the
system or one of settings: what the shell changes there lasts. Its .git is read-only (for others:
--bind $PWD/.git:$PWD/.git:rw). All other changes are shown at the end; on a terminal it is asked whether to keep them, else they are dropped. The profile is `dev`,
with the host's network, unless --profile or --net say otherwise.

Examples:
  sandbox shell                          on the head of the box
  sandbox shell --from devel --net none
  sandbox shell --run r-...              look at what a failed run left (run --keep-on-failure)")]
pub(super) struct Args {
    /// Snapshot to start from [default: head]
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "run")]
    from: Option<String>,

    /// A run that was kept, to go on where it ended
    #[arg(long, value_name = "RUN")]
    run: Option<String>,

    #[command(flatten)]
    flags: RunFlags,
}

/// How many changes are shown at the end.
const SHOWN: usize = 20;

/// Opens the shell; the exit code is its own.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let dry_run = args.flags.dry_run;
    let argv = ["/bin/sh", "-c", SHELL].map(Into::into).to_vec();
    let options = args.flags.options("dev", argv)?;
    let ask = if common.quiet { None } else { Some(ask as Ask) };
    let mut options = RunOptions { from: args.from, kept_run: args.run, ask, ..options };
    let store = common.store_for_run(options.upper)?;
    if let Some(word) = &mut options.kept_run {
        *word = store.run_id(word)?.to_string();
    }
    let box_name = common.box_name()?;
    if options.kept_run.is_none() {
        // A snapshot that is not there is the first thing to say.
        store.resolve(&box_name, options.from.as_deref().unwrap_or("head"))?;
    }
    if let Err(line) = bring_cwd(&store, &mut options) {
        common.note(&line);
    }
    execute(&store, &box_name, options, dry_run, common)
}

/// Shows what the shell changed and, on a terminal, asks whether to keep it.
fn ask(changes: &[Change]) -> Option<SnapshotName> {
    let shown: String = changes.iter().take(SHOWN).map(|change| line(change, false)).collect();
    let rest = match changes.len().saturating_sub(SHOWN) {
        0 => String::new(),
        rest => format!("... and {rest} more\n"),
    };
    note(format!("changed:\n{shown}{rest}").trim_end());
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    loop {
        note("keep it as a snapshot? its name, or nothing to drop it:");
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer) {
            Ok(bytes) if bytes > 0 && !answer.trim().is_empty() => {}
            _ => return None,
        }
        match answer.trim() {
            "n" | "N" | "no" | "No" | "NO" => return None,
            "y" | "Y" | "yes" | "Yes" | "YES" => continue,
            _ => {}
        }
        match answer.trim().parse() {
            Ok(name) => return Some(name),
            Err(fault) => note(&Fault::to_string(&fault)),
        }
    }
}
