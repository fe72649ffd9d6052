//! `sandbox init`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::OsStringValueParser;

use super::args::Common;
use super::list::short;
use super::output::{aimed, count, print, print_json, size};
use super::parse;
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
  tar:FILE                         an archive, plain or gzip, xz, zstd; `tar:-` is stdin
  mmdebstrap:SUITE[?include=a,b]   a Debian or Ubuntu system, made by mmdebstrap
  scratch                          nothing")]
pub(super) struct Args {
    /// The box [default: the one of --box]
    #[arg(value_name = "BOX", conflicts_with = "box_name")]
    name: Option<BoxName>,

    /// Where the root file system comes from; of a box that is made anew, where it came from before
    #[arg(long, value_name = "SOURCE", value_parser = OsStringValueParser::new())]
    from: Option<OsString>,

    /// Make the first layer of a box anew: `postinit` moves, and head if it stood there
    #[arg(long)]
    refresh: bool,

    /// The same if `postinit` is older than T (7d, 12h), unless its archive is unchanged
    #[arg(long, value_name = "T", value_parser = parse::time)]
    max_age: Option<Duration>,

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
    let source = |text: OsString| {
        let text = text.to_str().ok_or_else(|| Fault::usage("--from: the source is not UTF-8"))?;
        text.parse()
    };
    let request = Request {
        box_name,
        source: args.from.map(source).transpose()?,
        ids: args.ids.0,
        refresh: args.refresh,
        max_age: args.max_age,
    };
    common.verbose(|| format!("store: {}", base_dir.display()));
    let done = common.patiently(|| init(&base_dir, &request))?;
    if let Some(refused) = &done.ids_refused {
        common.note(&one_id_only(refused));
    }
    if common.json {
        print_json(&done)?;
    } else if !common.quiet {
        print(&text(&done))?;
    }
    trash::tidy(&Store::open(&base_dir)?, common);
    Ok(ExitCode::SUCCESS)
}

fn one_id_only(refused: &Fault) -> String {
    let way = refused.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("ids: single, though /etc/subuid gives more: {}{way}", refused.message)
}

fn text(done: &Initialised) -> String {
    if !done.created && done.refreshed.is_none() {
        return format!(
            "box {}: already made from {}: nothing changed\n",
            done.box_name, done.source
        );
    }
    let totals = done.totals.unwrap_or_default();
    let content = match &done.shared_with {
        Some(donor) => format!("the same layer as in box {donor}"),
        None => {
            format!("{} in {}", size(totals.bytes), count(totals.files, "entry", "entries"))
        }
    };
    let mut text = format!(
        "box {}: postinit is {}: {content}, ids: {}\n",
        done.box_name,
        short(done.layer.as_str()),
        done.id_map.mode,
    );
    if done.refreshed.is_some_and(|refreshed| !refreshed.head_moved) {
        let line = format!(
            "head stays where it was; to go over: `sandbox --box {} rollback postinit`\n",
            done.box_name
        );
        text.push_str(&aimed(&line));
    }
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
    let what = "left empty: other mounts, or this store";
    say(totals.mounts, "directory of the source", "directories of the source", what);
    say(totals.xattrs_lost, "attribute", "attributes", "refused by this file system");
    text
}
