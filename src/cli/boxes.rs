//! `sandbox box`.

use std::process::ExitCode;

use super::args::Common;
use super::list::short;
use super::output::{Table, count, print, print_json, size, time};
use super::report::{self, Outcome};
use super::trash;
use crate::fault::{Kind, printable};
use crate::ops::boxes::{self, CacheSize, Overview, Shown};
use crate::ops::settings::{self, Edit, Key};
use crate::store::BoxName;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the boxes of the store
    List,
    /// Show all about a box: its ids, defaults, caches and runs
    Show(ShowArgs),
    /// Change the defaults of the runs in a box
    Set(SetArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The box [default: the one of --box]
    #[arg(value_name = "BOX", conflicts_with = "box_name")]
    name: Option<BoxName>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Settings, for `run` and `shell` where no flag says otherwise:
  profile=PROFILE            as --profile
  user=USER[:GROUP]          as --user
  env=NAME=VALUE             as --env; a list
  bind=SRC[:DST][:MODE]      as --bind; a list
  copy_up=PATH               as --copy-up; a list
  touch_rpmdb=WHEN           as --touch-rpmdb
and for the box itself:
  undo_age=TIME              how long a move can be taken back
  undo_size=SIZE             how large the log of moves may grow
  max_age=TIME               `init` again makes `postinit` anew when it is older

A list is set as a whole by KEY=VALUE, once for each item; KEY+=VALUE adds to it, KEY-=NAME takes away
what has this variable, target or path.

Examples:
  sandbox box set profile=strict env=LANG=C.UTF-8 env=MAKEFLAGS=-j8
  sandbox box set fedora bind+=/srv/mirror:/mirror max_age=7d
  sandbox box set fedora bind-=/mirror --unset env")]
struct SetArgs {
    /// The box [default: the one of --box], then KEY=VALUE, KEY+=VALUE or KEY-=NAME
    #[arg(value_name = "BOX | KEY=VALUE")]
    words: Vec<String>,

    /// Forget a setting
    #[arg(long, value_name = "KEY")]
    unset: Vec<Key>,
}

/// Does one of them.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    match &args.action {
        Action::List => list(common),
        Action::Show(args) => show(args, common),
        Action::Set(args) => set(args, common),
    }
}

fn list(common: &Common) -> Outcome {
    let store = common.store_of_all()?;
    let all = boxes::list(&store)?;
    if common.json {
        print_json(&all)?;
    } else {
        print(&list_text(&all))?;
        all.damaged.iter().for_each(|one| report::tell(&one.error, false));
    }
    trash::tidy(&store, common);
    Ok(damaged(all.damaged.is_empty()))
}

/// What was whole is shown; that not all was is for the exit code.
pub(super) fn damaged(none: bool) -> ExitCode {
    if none { ExitCode::SUCCESS } else { ExitCode::from(Kind::Damaged.exit_code()) }
}

fn list_text(all: &Overview) -> String {
    let mut table = Table::new(&["BOX", ">SNAPSHOTS", "HEAD", "IDS", "CREATED", "SOURCE"]);
    for one in &all.boxes {
        table.row(&[
            one.name.as_str(),
            &one.snapshots.to_string(),
            &one.head.map_or_else(|| "-".to_owned(), |head| short(&head.to_string())),
            &one.ids.to_string(),
            &time(one.created),
            &one.source,
        ]);
    }
    table.text()
}

fn show(args: &ShowArgs, common: &Common) -> Outcome {
    let store = common.store()?;
    let shown = boxes::show(&store, &common.box_named(args.name.clone())?)?;
    if common.json {
        print_json(&shown)?;
    } else {
        print(&show_text(&shown))?;
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}

fn show_text(shown: &Shown) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        text.push_str(&format!("{:<11}{}\n", format!("{key}:"), printable(value)));
    };
    let layer = |id: Option<crate::store::LayerId>| id.map_or("-".to_owned(), |id| id.to_string());
    line("box", shown.name.as_str());
    line("source", &shown.source);
    line("created", &time(shown.created));
    line("ids", &shown.id_map.mode.to_string());
    line("snapshots", &shown.snapshots.to_string());
    line("head", &layer(shown.head));
    line("current", &layer(shown.current));
    settings::lines(&shown.settings).iter().for_each(|one| line("setting", one));
    shown.caches.iter().for_each(|one| line("cache", &cache_text(one)));
    for run in &shown.runs {
        line("run", &format!("{} ({})", run.run, state(run.state)));
    }
    text
}

fn state(state: crate::store::RunState) -> &'static str {
    match state {
        crate::store::RunState::Running => "running",
        crate::store::RunState::Kept => "kept",
        crate::store::RunState::Dead => "dead",
    }
}

fn cache_text(cache: &CacheSize) -> String {
    match (cache.in_use, cache.files, cache.bytes) {
        (true, ..) => format!("{}: in use", cache.name),
        (_, Some(files), Some(bytes)) => {
            format!("{}: {} in {}", cache.name, size(bytes), count(files, "entry", "entries"))
        }
        _ => format!("{}: of unknown size", cache.name),
    }
}

fn set(args: &SetArgs, common: &Common) -> Outcome {
    let (box_name, words) = match args.words.split_first() {
        Some((first, rest)) if !first.contains('=') => (Some(first.parse()?), rest),
        _ => (None, &args.words[..]),
    };
    let mut edits: Vec<Edit> = args.unset.iter().map(|key| Edit::Unset(*key)).collect();
    for word in words {
        edits.push(word.parse()?);
    }
    if edits.is_empty() {
        let fault = crate::fault::Fault::usage("set box: nothing to set");
        return Err(fault
            .hint("KEY=VALUE or --unset KEY; `sandbox box set --help` lists the keys")
            .into());
    }
    let store = common.store()?;
    let box_name = common.box_named(box_name)?;
    let now = common.patiently(|| settings::set(&store, &box_name, &edits))?;
    if common.json {
        print_json(&serde_json::json!({"box": box_name, "settings": now}))?;
    } else if !common.quiet {
        let lines = settings::lines(&now);
        match lines.is_empty() {
            true => print(&format!("box {box_name}: nothing is set\n"))?,
            false => print(
                &lines.iter().map(|line| format!("{}\n", printable(line))).collect::<String>(),
            )?,
        }
    }
    trash::tidy(&store, common);
    Ok(ExitCode::SUCCESS)
}
