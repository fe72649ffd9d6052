//! `sandbox scrub`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{print, print_json};
use super::report::{self, Outcome};
use super::trash;
use crate::ops::scrub::{Caches, Request, Scrubbed, scrub, scrub_all};
use crate::store::{BoxName, RunId, SnapshotName, Store};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs that go on are not touched. What nothing needs any more is freed by `sandbox gc`, when
`undo` may no longer need it.

Examples:
  sandbox scrub --snapshots          back to `postinit`; `sandbox undo` takes it back
  sandbox scrub fedora --cache=dnf   one cache that `run --cache dnf:DIR` has filled
  sandbox scrub fedora --all         the whole box
  sandbox scrub --all-boxes          all of them")]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
pub(super) struct Args {
    /// The box [default: the one of --box]
    #[arg(value_name = "BOX", conflicts_with_all = ["box_name", "all_boxes"])]
    name: Option<BoxName>,

    /// Remove all names but `postinit`, and return head and current to it
    #[arg(long, group = "what")]
    snapshots: bool,

    /// Remove what runs keep in caches; =NAME only one
    #[arg(long, group = "what", value_name = "NAME", num_args = 0..=1, require_equals = true)]
    cache: Option<Option<SnapshotName>>,

    /// Remove the box with all its snapshots and caches; it does not come back
    #[arg(long, group = "what")]
    all: bool,

    /// The same with all boxes, or --snapshots or --cache of all boxes
    #[arg(long, group = "what", conflicts_with = "box_name")]
    all_boxes: bool,

    /// Also protected snapshots; with the box also its kept runs
    #[arg(long)]
    force: bool,
}

impl Args {
    fn request(&self) -> Request {
        let part = self.snapshots || self.cache.is_some();
        Request {
            snapshots: self.snapshots,
            caches: match &self.cache {
                None => Caches::None,
                Some(None) => Caches::All,
                Some(Some(name)) => Caches::Named(vec![name.clone()]),
            },
            all: self.all || (self.all_boxes && !part),
            force: self.force,
        }
    }
}

/// Scrubs a box, or all.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    let request = args.request();
    let code = match args.all_boxes {
        true => all_boxes(&store, &request, common)?,
        false => {
            let name = common.box_named(args.name.clone())?;
            let done = common.patiently(|| scrub(&store, &name, &request))?;
            tell(&done, &done_text(&done), common)?;
            ExitCode::SUCCESS
        }
    };
    trash::tidy(&store, common);
    Ok(code)
}

fn all_boxes(store: &Store, request: &Request, common: &Common) -> Outcome {
    let all = scrub_all(store, request)?;
    let text = match all.boxes.is_empty() && all.failed.is_empty() {
        true => "there is no box: nothing to do\n".to_owned(),
        false => all.boxes.iter().map(done_text).collect(),
    };
    tell(&all, &text, common)?;
    if !common.json {
        all.failed.iter().for_each(|one| report::tell(&one.error, false));
    }
    let first = all.failed.first().map(|one| one.error.kind.exit_code());
    Ok(ExitCode::from(first.unwrap_or(0)))
}

fn tell(value: &impl serde::Serialize, text: &str, common: &Common) -> Result<(), report::Stop> {
    match (common.json, common.quiet) {
        (true, _) => print_json(value),
        (false, true) => Ok(()),
        (false, false) => print(text),
    }
}

fn done_text(done: &Scrubbed) -> String {
    let name = &done.box_name;
    let mut text = String::new();
    let mut say = |what: &str| text.push_str(&format!("box {name}: {what}\n"));
    let list = |names: &[SnapshotName]| {
        names.iter().map(SnapshotName::as_str).collect::<Vec<_>>().join(", ")
    };
    let ids = |runs: &[RunId]| runs.iter().map(RunId::to_string).collect::<Vec<_>>().join(", ");
    if !done.snapshots.is_empty() {
        say(&format!("removed {}", list(&done.snapshots)));
    }
    if let Some(head) = &done.head {
        say(&format!("head is back at postinit, {}", short(head.as_str())));
    }
    if !done.caches.is_empty() {
        say(&format!("removed the caches {}", list(&done.caches)));
    }
    if !done.runs.is_empty() {
        say(&format!("removed the kept runs {}", ids(&done.runs)));
    }
    if done.removed {
        say("is gone");
    }
    if done.is_nothing() {
        say("nothing to do");
    }
    if !done.running.is_empty() {
        say(&format!("runs go on: {}", ids(&done.running)));
    }
    if !done.kept.is_empty() {
        say(&format!("kept runs are still there: {}", ids(&done.kept)));
    }
    text
}
