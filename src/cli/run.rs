//! `sandbox run`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::OsStringValueParser;

use super::args::Common;
use super::output::{note, print, print_json};
use super::quick::Plain;
use super::report::Outcome;
use super::runflags::RunFlags;
use super::{parse, report, trash};
use crate::fault::{Fault, Result};
use crate::ops;
use crate::ops::run::{After, Finished, RunOptions};
use crate::store::{BoxName, SnapshotName, Store};

/// The arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sandbox run --bind a.rpm:/a.rpm -- rpm -i /a.rpm   on the head, nothing is kept
  sandbox run --from a --commit b -- useradd builder keep it as `b` if the command succeeds
  sandbox run --bind .:/src:rw 'cd /src && make'     one word: a line for the shell

Exit code: the command's own; 128+n for signal n; 127 not found;
126 not executable; 125 anything of sandbox")]
pub(super) struct Args {
    /// Snapshot to start from [default: head]
    #[arg(long, value_name = "SNAPSHOT")]
    from: Option<String>,

    /// On exit 0, keep the changes as a new snapshot
    #[arg(long, value_name = "NAME", conflicts_with = "keep")]
    commit: Option<SnapshotName>,

    /// On exit 0, keep the changes on the head of the box; =force also from another snapshot
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, value_enum, hide_possible_values = true)]
    keep: Option<Option<Keep>>,

    /// On failure, keep the changes for `shell --run` and `diff --run`
    #[arg(long)]
    keep_on_failure: bool,

    /// With --commit or --keep: make digests of all files, for `fsck` and --verify
    #[arg(long)]
    digest: bool,

    #[command(flatten)]
    flags: RunFlags,

    /// The command; one word with blanks in it is a line for /bin/sh
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "CMD",
        value_parser = OsStringValueParser::new()
    )]
    command: Vec<OsString>,
}

/// The value of `--keep=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Keep {
    Force,
}

impl Args {
    #[cfg(test)]
    pub(super) fn words(&self) -> &[OsString] {
        &self.command
    }

    /// Of a plain line; nothing if a value cannot be right.
    pub(super) fn plain(plain: Plain) -> Option<Self> {
        let text = |word: OsString| word.into_string().ok();
        let commit = match plain.commit {
            Some(name) => Some(text(name)?.parse().ok()?),
            None => None,
        };
        let from = match plain.from {
            Some(from) => Some(text(from)?),
            None => None,
        };
        let flags = RunFlags::default();
        Some(Self {
            from,
            commit,
            keep: None,
            keep_on_failure: false,
            digest: false,
            flags,
            command: plain.command,
        })
    }

    /// Whether nothing is to be done.
    pub(super) fn is_dry(&self) -> bool {
        self.flags.dry_run
    }

    /// What was typed, resolved.
    ///
    /// # Errors
    /// Usage for flags that contradict each other.
    pub(super) fn options(self) -> Result<RunOptions> {
        let after = match (self.commit, self.keep) {
            (Some(name), _) => After::Commit(name),
            (None, Some(None)) => After::Keep,
            (None, Some(Some(Keep::Force))) => After::KeepForce,
            (None, None) => After::Discard,
        };
        if self.keep_on_failure || !matches!(after, After::Discard) {
            self.flags.can_keep()?;
        }
        let options = self.flags.options("build", parse::command(self.command))?;
        if self.digest && matches!(after, After::Discard) {
            return Err(Fault::usage("--digest: nothing is kept of this run")
                .hint("add --commit NAME or --keep"));
        }
        let (keep_on_failure, digest) = (self.keep_on_failure, self.digest);
        Ok(RunOptions { from: self.from, after, keep_on_failure, digest, ..options })
    }
}

/// Runs the command; the exit code is its own.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    let dry_run = args.flags.dry_run;
    let options = args.options()?;
    let (store, box_name) = (common.store_for_run(options.upper)?, common.box_name()?);
    if let (true, After::Commit(name)) = (dry_run, &options.after) {
        ops::snapshot::refuse_taken(&store, &box_name, name)?;
    }
    execute(&store, &box_name, options, dry_run, common)
}

/// What `run` and `shell` have in common once their options are known.
pub(super) fn execute(
    store: &Store,
    box_name: &BoxName,
    options: RunOptions,
    dry_run: bool,
    common: &Common,
) -> Outcome {
    let options = RunOptions { warn: (!common.quiet).then_some(note), ..options };
    if dry_run {
        let plan = ops::run::plan(store, box_name, &options)?;
        if common.json {
            print_json(&plan)?;
        } else {
            print(&plan_text(
                &serde_json::to_value(&plan)
                    .map_err(|error| Fault::failed(format!("print the plan: {error}")))?,
            ))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let answer = ops::run::run(store, box_name, options);
    if let Ok(finished) = &answer {
        tell(finished, common);
    }
    if common.wait_trash {
        ops::run::may_be_ended();
    }
    // A run that could not begin may have left something, too.
    if !answer.as_ref().is_ok_and(|finished| finished.tidy) {
        trash::tidy(store, common);
    }
    let finished = answer?;
    Ok(ExitCode::from(finished.code))
}

fn tell(finished: &Finished, common: &Common) {
    for message in &finished.messages {
        common.note(message);
    }
    if let Some(fault) = &finished.fault {
        report::tell(fault, common.json);
    }
}

/// One line for each thing of the plan, lists beneath their heading.
fn plan_text(plan: &serde_json::Value) -> String {
    let line = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => crate::fault::printable(text),
        other => other.to_string(),
    };
    let mut text = String::new();
    for (key, value) in plan.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Array(items) => {
                text.push_str(&format!("{key}:\n"));
                text.extend(items.iter().map(|item| format!("  {}\n", line(item))));
            }
            serde_json::Value::Object(fields) => {
                text.push_str(&format!("{key}:\n"));
                let lines = fields.iter().map(|(name, item)| format!("  {name}: {}\n", line(item)));
                text.extend(lines);
            }
            other => text.push_str(&format!("{key}: {}\n", line(other))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    fn options(words: &[&str]) -> Result<RunOptions> {
        let words = ["run"].iter().chain(words).chain(&["--", "true"]);
        Alone::try_parse_from(words).expect("parses").args.options()
    }

    #[test]
    fn what_happens_after() {
        assert!(matches!(options(&[]).unwrap().after, After::Discard));
        assert!(matches!(options(&["--keep"]).unwrap().after, After::Keep));
        assert!(matches!(options(&["--keep=force"]).unwrap().after, After::KeepForce));
        let options = options(&["--commit", "x", "--keep-on-failure"]).unwrap();
        assert!(matches!(options.after, After::Commit(name) if name.to_string() == "x"));
        assert!(options.keep_on_failure);
    }

    #[test]
    fn changes_in_memory_cannot_be_kept() {
        for flags in [&["--commit", "x"][..], &["--keep"], &["--keep-on-failure"]] {
            let words = [flags, &["--upper", "tmpfs:1G"]].concat();
            assert_eq!(options(&words).unwrap_err().kind, crate::fault::Kind::Usage);
        }
        assert!(options(&["--upper", "tmpfs"]).is_ok());
    }

    #[test]
    fn reserved_names_are_refused_while_parsing() {
        for name in ["head", "host", "../x", ""] {
            assert!(Alone::try_parse_from(["run", "--commit", name, "--", "true"]).is_err());
        }
    }

    #[test]
    fn a_plan_is_one_line_for_each_thing() {
        let plan = serde_json::json!({"argv": ["a", "b\n"], "id_map": {"mode": "single"}, "n": 1});
        assert_eq!(plan_text(&plan), "argv:\n  a\n  b\\n\nid_map:\n  mode: single\nn: 1\n");
    }
}
