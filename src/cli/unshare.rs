//! `sandbox unshare`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::OsStringValueParser;
use rustix::fs::Mode;

use super::args::Common;
use super::report::Outcome;
use super::{report, trash};
use crate::fault::Result;
use crate::ops;
use crate::ops::unshare::UnshareOptions;
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command is a program of this machine and sees its files, processes and network: this is no
sandbox. In it you are root of the box's ids, and the snapshot's tree is at $SANDBOX_ROOT. Changes
of the tree are dropped, or kept with --commit; all other changes are real. What the command has
started and left behind goes on, but cannot write to the tree unless it mounts that anew.

Examples:
  sandbox unshare --from devel -- sh -c 'du -sh $SANDBOX_ROOT/usr'
  sandbox unshare --commit two -- sh -c 'cp -a fixtures/. $SANDBOX_ROOT/srv'
  sandbox unshare -- sh                  look around

Exit code: the command's own; 128+n for signal n; 127 not found;
126 not executable; 125 anything of sandbox, also a snapshot that does not exist")]
pub(super) struct Args {
    /// Snapshot whose tree is shown [default: head]
    #[arg(long, value_name = "SNAPSHOT")]
    from: Option<String>,

    /// On exit 0, keep the changes of the tree as a new snapshot
    #[arg(long, value_name = "NAME")]
    commit: Option<SnapshotName>,

    /// The command
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "CMD",
        value_parser = OsStringValueParser::new()
    )]
    command: Vec<OsString>,
}

/// Runs the command, with the umask of the caller; the exit code is its own.
pub(super) fn run(args: Args, common: &Common, umask: Mode) -> Outcome {
    let options =
        UnshareOptions { from: args.from, commit: args.commit, umask, argv: args.command };
    let store = common.store_for_run(ops::run::Upper::Disk)?;
    if options.commit.is_some()
        && let Some(warning) = ops::budget::check(&store)?
    {
        common.note(&warning);
    }
    let answer: Result<_> = ops::unshare::unshare(&store, &common.box_name()?, &options);
    trash::tidy(&store, common);
    let done = answer?;
    if let Some(fault) = &done.fault {
        report::tell(fault, common.json);
    }
    match (&options.commit, &done.committed) {
        (Some(name), Some(layer)) => common.note(&format!("{name} -> {layer}")),
        (Some(_), None) if done.code != 0 => {
            common.note(&format!("nothing kept: the command ended with {}", done.code));
        }
        _ => {}
    }
    Ok(ExitCode::from(done.code))
}
