//! `sandbox cp`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::builder::OsStringValueParser;

use super::args::Common;
use super::output::print_json;
use super::report::Outcome;
use super::trash;
use crate::fault::Fault;
use crate::ops;
use crate::ops::cp::{CopyOptions, Place};
use crate::ops::words::amount;
use crate::store::SnapshotName;

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
SRC and DST are a path of the host; NAME:PATH of a snapshot or a run; or -, a tar on stdin or stdout.
One of them is NAME:PATH. As with docker cp: what DST names is copied into if it is a directory, and
made if it is not there; DIR/. is what is in DIR; symbolic links are copied as such. What is copied in
belongs to root inside, what is copied out to you; a tar has the owners of the inside.

Examples:
  sandbox cp devel:/etc/os-release .          out of a snapshot
  sandbox cp web:/var/log/app - | tar -t      out of a run, while it runs
  sandbox cp site.conf web:/etc/              into a run that stays
  sandbox cp conf/. devel:/etc --as devel2    into a snapshot: a new one")]
pub(super) struct Args {
    /// The name of the new snapshot, for a copy into a snapshot
    #[arg(long = "as", value_name = "NAME")]
    name: Option<SnapshotName>,

    /// Copy what SRC leads to if it is a symbolic link
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// What is copied
    #[arg(value_name = "SRC", value_parser = OsStringValueParser::new())]
    from: OsString,

    /// Where to
    #[arg(value_name = "DST", value_parser = OsStringValueParser::new())]
    to: OsString,
}

/// Copies, and says how much.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let options = CopyOptions {
        from: ops::cp::place(&args.from)?,
        to: ops::cp::place(&args.to)?,
        name: args.name,
        follow: args.follow_link,
    };
    let to_stdout = options.to == Place::Stream;
    if to_stdout && common.json {
        return Err(Fault::usage("copy: -: an archive and JSON do not go to one place").into());
    }
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Fault::usage("copy: -: a terminal cannot show an archive")
            .hint("send it somewhere: `sandbox cp NAME:PATH - | tar -t`")
            .into());
    }
    let store = common.store_for_run(ops::run::Upper::Disk)?;
    if options.name.is_some()
        && let Some(warning) = ops::budget::check(&store)?
    {
        common.note(&warning);
    }
    let answer = ops::cp::copy(&store, &common.box_name()?, &options);
    trash::tidy(&store, common);
    let copied = answer?;
    for note in &copied.notes {
        common.note(note);
    }
    if common.json {
        print_json(&copied)?;
        return Ok(ExitCode::SUCCESS);
    }
    match (&copied.name, &copied.layer) {
        (Some(name), Some(layer)) => common
            .note(&format!("{name} -> {layer}: copied {}", amount(copied.entries, copied.bytes))),
        _ => common.note(&format!("copied {}", amount(copied.entries, copied.bytes))),
    }
    Ok(ExitCode::SUCCESS)
}
