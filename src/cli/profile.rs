//! `sandbox profile`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::Common;
use super::output::{Table, print, print_json};
use super::report::Outcome;
use crate::fault::{Fault, printable};
use crate::ops;
use crate::ops::profile::{Checked, Listed};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the built-in profiles
    List,
    /// Print a profile, as JSON to begin one of your own with
    Show {
        /// build, dev, strict or a JSON file
        #[arg(value_name = "PROFILE")]
        name: String,
    },
    /// Say whether a file can be used for run --profile or run --seccomp
    Check {
        /// A profile, or a seccomp file of OCI, Docker or podman
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Lists, prints or checks.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    match args.action.as_ref().unwrap_or(&Action::List) {
        Action::List => {
            let profiles = ops::profile::list()?;
            if common.json {
                print_json(&serde_json::json!({ "profiles": profiles }))?;
            } else {
                print(&table(&profiles))?;
            }
        }
        Action::Show { name } => {
            let text = ops::profile::show(name)?;
            if common.json {
                let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
                    Fault::failed(format!("profile: {}: {error}", printable(name)))
                })?;
                print_json(&value)?;
            } else {
                print(&text)?;
            }
        }
        Action::Check { file } => {
            let checked = ops::profile::check(file)?;
            if common.json {
                print_json(&checked)?;
            } else {
                print(&verdict(&checked))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(profiles: &[Listed]) -> String {
    let mut table = Table::new(&["NAME", "FOR"]);
    profiles.iter().for_each(|profile| table.row(&[&profile.name, &profile.description]));
    table.text()
}

fn verdict(checked: &Checked) -> String {
    let what = match checked.kind {
        "profile" => "a profile, for run --profile",
        _ => "a seccomp file, for run --seccomp",
    };
    let mut text = format!(
        "{}: {what}; {} system calls are allowed\n",
        printable(&checked.file),
        checked.allowed
    );
    for note in &checked.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}
