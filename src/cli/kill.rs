//! `sandbox kill`.

use std::process::ExitCode;
use std::str::FromStr;

use nix::sys::signal::Signal;

use super::args::Common;
use super::report::Outcome;
use crate::fault::{Fault, Result, printable};
use crate::ops::stay;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The runs, by name or id
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,

    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: Signal,
}

/// `TERM`, `SIGTERM`, `term` or `15`.
fn signal(text: &str) -> Result<Signal> {
    let known = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => {
            let name = text.to_ascii_uppercase();
            let bare = name.strip_prefix("SIG").unwrap_or(&name);
            Signal::from_str(&format!("SIG{bare}")).ok()
        }
    };
    known.ok_or_else(|| Fault::usage(format!("{}: no such signal", printable(text))))
}

/// Sends the signal to the command of each run.
pub(super) fn run(args: &Args, common: &Common) -> Outcome {
    let store = common.store()?;
    for word in &args.runs {
        stay::kill(&store, word, args.signal as i32)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_names_and_a_number() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(signal(text).unwrap(), Signal::SIGTERM, "{text}");
        }
        for text in ["", "SIG", "0", "-1", "99", "TERMX", "SIGSIGTERM"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
