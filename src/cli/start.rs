//! `sandbox start`.

use std::process::ExitCode;

use super::args::Common;
use super::output::{note, print, print_json};
use super::report::{self, Outcome};
use super::run::{self, execute};
use super::{parse, trash};
use crate::fault::{Context, Fault, Result};
use crate::ops;
use crate::ops::run::{After, RunOptions, Stay};
use crate::ops::start::{Started, start};
use crate::store::{RunId, RunName};
use crate::sys;

/// The arguments.
#[derive(Debug, clap::Args)]
#[group(id = "start")]
pub(super) struct Args {
    /// Name of the run, to ask for it by
    #[arg(long, value_name = "NAME")]
    name: Option<RunName>,

    /// Leave the input of the command open, for `attach`
    #[arg(short, long)]
    interactive: bool,

    /// Give the command a terminal, for `attach`
    #[arg(short, long)]
    tty: bool,

    /// Keep at least so much of the output for `logs`; older output is dropped
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse::size)]
    log_limit: u64,

    #[command(flatten)]
    run: run::Args,
}

/// What stands at the end of the help.
pub(super) const EXAMPLES: &str = "\
The command runs on when its caller, his terminal or his connection is gone, until it ends or `stop`
ends it. When it ends by itself, --commit, --keep and --keep-on-failure decide, as with `run`.

Examples:
  sandbox start --name web -- httpd -f       prints the id of the run
  sandbox start --keep-on-failure 'make -j4'
  sandbox logs -f web
  sandbox stop web --commit served

Exit code: 0 when the command is being executed; 127 not found; 126 not executable; 125 anything
of sandbox";

/// Starts the run and prints its id.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let dry_run = args.run.is_dry();
    let stay = Stay {
        name: args.name,
        input: args.interactive,
        terminal: args.tty,
        log_limit: args.log_limit,
    };
    let options = args.run.options()?;
    if !dry_run {
        let_go(&options)?;
    }
    let (store, box_name) = (common.store_for_run(ops::run::Upper::Disk)?, common.box_name()?);
    if let After::Commit(name) = &options.after {
        ops::snapshot::refuse_taken(&store, &box_name, name)?;
    }
    if dry_run {
        return execute(&store, &box_name, options, true, common);
    }
    let options = RunOptions { warn: (!common.quiet).then_some(note), ..options };
    if (options.nest || !matches!(options.after, After::Discard))
        && let Some(warning) = ops::budget::check(&store)?
    {
        common.note(&warning);
    }
    let started = start(&store, &box_name, options, stay);
    match started? {
        Started::Running(running) if common.json => {
            print_json(&running).map_err(|stop| goes_on(stop, &running.run))?;
        }
        Started::Running(running) => {
            print(&format!("{}\n", running.run)).map_err(|stop| goes_on(stop, &running.run))?;
        }
        Started::Over(ending) => {
            trash::tidy(&store, common);
            ending.messages.iter().for_each(|line| common.note(line));
            if let Some(fault) = &ending.fault {
                report::tell(fault, common.json);
            }
            return Ok(ExitCode::from(ending.code));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Nobody has heard what the run is called.
fn goes_on(stop: report::Stop, run: &RunId) -> report::Stop {
    match stop {
        report::Stop::Fault(fault) => report::Stop::Fault(
            Fault { message: format!("{}; the run goes on: {run}", fault.message), ..fault }
                .hint(format!("`sandbox stop {run}` ends it")),
        ),
        closed @ report::Stop::ClosedPipe => closed,
    }
}

/// What else the caller has open (a lock of his, a pipe that somebody reads to its end) is not the run's to hold.
fn let_go(options: &RunOptions) -> Result<()> {
    let mut keep: Vec<_> = options.preserve_fds.iter().chain(&options.status_fd).copied().collect();
    keep.sort_unstable();
    keep.dedup();
    sys::exec::close_all_but(3, &keep).context("close", "the caller's descriptors")
}
