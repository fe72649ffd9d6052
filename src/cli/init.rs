//! `sandbox init`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::OsStringValueParser;

use super::args::Common;
use super::list::short;
use super::output::{count, print, print_json, size};
use super::report::Outcome;
use super::trash;
use crate::fault::{Fault, Result};
use crate::ids::Mode;
use crate::ops::init::{Initialised, Request, init};
use crate::store::{BoxName, Store};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Sources:
  DIRECTORY                        a root file system that lies there
  tar:FILE                         an archive, plain or gzip, xz, zstd
  mmdebstrap:SUITE[?include=a,b]   a Debian or Ubuntu system, made by mmdebstrap
  scratch                          nothing")]
pub(super) struct Args {
    /// The box [default: the one of --box]
    #[arg(value_name = "BOX", conflicts_with = "box_name")]
    name: Option<BoxName>,

    /// Where the root file system comes from
    #[arg(long, value_name = "SOURCE", value_parser = OsStringValueParser::new())]
    from: OsString,

    /// How ids are mapped: auto, subuid, range, identity, single
    #[arg(
        long,
        value_name = "MODE",
        default_value = "auto",
        hide_default_value = true,
        value_parser = mode
    )]
    ids: Ids,
}

/// The id mode asked for; none is the best that works.
type Ids = Requested;

/// See [`Ids`]; a type of its own, because clap reads a bare `Option` as "flag may be absent".
#[derive(Debug, Clone, Copy)]
struct Requested(Option<Mode>);

fn mode(text: &str) -> Result<Requested> {
    match text {
        "auto" => Ok(Requested(None)),
        text => Ok(Requested(Some(Mode::from_str(text)?))),
    }
}

/// Fills the box.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let box_name = match args.name {
        Some(name) => name,
        None => common.box_name()?,
    };
    let base_dir = common.base_dir()?;
    let source = args
        .from
        .to_str()
        .ok_or_else(|| Fault::usage("--from: the source is not UTF-8"))?
        .parse()?;
    let request = Request { box_name, source, ids: args.ids.0 };
    common.verbose(|| format!("store: {}", base_dir.display()));
    let done = common.patiently(|| init(&base_dir, &request))?;
    if common.json {
        print_json(&done)?;
    } else if !common.quiet {
        print(&text(&done))?;
    }
    trash::tidy(&Store::open(&base_dir)?, common);
    Ok(ExitCode::SUCCESS)
}

fn text(done: &Initialised) -> String {
    if !done.created {
        return format!(
            "box {}: already made from {}: nothing changed\n",
            done.box_name, done.source
        );
    }
    let totals = done.totals.unwrap_or_default();
    let mut text = format!(
        "box {}: postinit is {}: {} in {}, ids: {}\n",
        done.box_name,
        short(&done.layer.to_string()),
        size(totals.bytes),
        count(totals.files, "entry", "entries"),
        done.id_map.mode,
    );
    let mut say = |number: u64, one: &str, many: &str, what: &str| {
        if number > 0 {
            text.push_str(&format!("{} {what}\n", count(number, one, many)));
        }
    };
    let remembered = done.remembered as u64;
    let what = "owners or devices that this map cannot hold: kept in `owners`";
    say(remembered, "file has", "files have", what);
    let lost = (totals.unmapped + totals.devices).saturating_sub(remembered);
    say(lost, "file has", "files have", "owners that this map does not know: now of root inside");
    say(totals.sockets, "socket", "sockets", "left out");
    say(totals.mounts, "mount", "mounts", "in the source left empty");
    say(totals.xattrs_lost, "attribute", "attributes", "refused by this file system");
    text
}
