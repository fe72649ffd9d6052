//! Protections that a run goes without, because this host cannot give them.
//!
//! None is dropped silently: whoever finds that something cannot be had makes a [`Lost`] of it. Each is one
//! line on stderr before the command starts, stands in the report, and is an error under `--strict`.

use serde::Serialize;

use crate::fault::{Fault, Result};

/// One protection that a run does not have, or not in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Its name, as in the documentation: `memory`, `pids`, ...
    pub protection: &'static str,
    /// Why, and what holds instead.
    pub reason: String,
}

impl Lost {
    /// A protection and the reason.
    pub fn new(protection: &'static str, reason: impl Into<String>) -> Self {
        Self { protection, reason: reason.into() }
    }

    /// The line for a person.
    pub fn line(&self) -> String {
        format!("not enforced: {}: {}", self.protection, self.reason)
    }
}

/// Refuses, under `--strict`, a run that would go without something.
///
/// # Errors
/// A host fault that names the first of them.
pub fn refuse(lost: &[Lost]) -> Result<()> {
    match lost {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            Err(Fault::host(format!("run: strict: {}: {}{more}", first.protection, first.reason))
                .hint("`sandbox doctor` tells what this host allows; without --strict it runs, and says so"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;

    #[test]
    fn strict_names_the_first_and_counts_the_rest() {
        assert!(refuse(&[]).is_ok());
        let one = Lost::new("memory", "no cgroup");
        assert_eq!(one.line(), "not enforced: memory: no cgroup");
        let fault = refuse(&[one, Lost::new("cpus", "no cgroup")]).expect_err("refused");
        assert_eq!(fault.kind, Kind::Host);
        assert_eq!(fault.message, "run: strict: memory: no cgroup (and 1 more)");
    }
}
