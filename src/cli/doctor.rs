//! `sandbox doctor`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::args::Common;
use super::output::{Ink, ink, print, print_json};
use super::report::Outcome;
use crate::fault::{Kind, printable};
use crate::ops::doctor::{Findings, doctor};

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a seccomp profile for `docker run --security-opt seccomp=FILE` (also podman), and nothing else
    #[arg(long)]
    docker_profile: bool,
}

/// Docker's default and what a run needs.
const DOCKER_PROFILE: &str = include_str!("../../profiles/docker-nested.json");

/// Prints what works; exit 0 if a run would, else 6.
pub(super) fn run(args: Args, common: &Common) -> Outcome {
    if args.docker_profile {
        print(DOCKER_PROFILE)?;
        return Ok(ExitCode::SUCCESS);
    }
    let findings = doctor(&common.base_dir()?)?;
    if common.json {
        print_json(&findings)?;
    } else {
        print(&text(&findings, common.color.on_stdout(), common.quiet))?;
    }
    Ok(match findings.works() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Kind::Host.exit_code()),
    })
}

fn text(findings: &Findings, color: bool, quiet: bool) -> String {
    let mut text = String::new();
    for probe in findings.probes.iter().filter(|probe| !quiet || !probe.ok) {
        let (word, colour) = match (probe.ok, probe.needed) {
            (true, _) => ("ok", Ink::Green),
            (false, true) => ("no", Ink::Red),
            (false, false) => ("--", Ink::Yellow),
        };
        let errno = probe.errno.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let detail = printable(&probe.detail);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {:<19}{detail}{errno}", ink(word, colour, color), probe.name);
        for remedy in probe.remedy.iter().flat_map(|remedy| remedy.lines()) {
            let _ = writeln!(text, "   remedy: {}", printable(remedy));
        }
    }
    text.push_str(match findings.works() {
        true => "sandbox works here\n",
        false => "sandbox does not work here yet: what says `no` is needed\n",
    });
    text
}
