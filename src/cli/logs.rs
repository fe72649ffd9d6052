//! `sandbox logs`.

use std::io::Write;
use std::process::ExitCode;

use super::args::Common;
use super::report::Outcome;
use crate::fault::{Context, Kind};
use crate::ops::stay::{self, Manner, Reader, attach};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run, by name or id
    run: String,

    /// Go on until the run ends
    #[arg(short, long)]
    follow: bool,
}

/// Shows what a run has written, on both of its outputs, as it came.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    if args.follow {
        match stay::line(&store, &args.run) {
            Ok(line) => {
                attach(line, Manner::Looks, true)?;
                return Ok(ExitCode::SUCCESS);
            }
            // It has ended: what it has left is all there is.
            Err(fault) if fault.kind == Kind::NotFound => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    show(stay::log(&store, &args.run)?)
}

fn show(mut reader: Reader) -> Outcome {
    let (mut out, mut buffer) = (std::io::stdout().lock(), vec![0; 64 * 1024]);
    loop {
        let count = reader.next(&mut buffer).context("read", "the log")?;
        if count == 0 {
            return Ok(out.flush().map(|()| ExitCode::SUCCESS)?);
        }
        out.write_all(&buffer[..count])?;
    }
}
