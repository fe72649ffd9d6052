//! The flags of `run` and `shell` that change a profile.

use clap::Args;

use crate::isolate::change::Changes;
use crate::ops::run::{Bind, BindMode};

/// What is typed over the profile.
#[derive(Debug, Default, Args)]
pub(super) struct ChangeFlags {
    /// Give the command a capability more, in its namespaces: a name, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', help_heading = "Limits and protection")]
    cap_add: Vec<String>,

    /// Take a capability of the profile away: a name, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', help_heading = "Limits and protection")]
    cap_drop: Vec<String>,

    /// System calls by an OCI, Docker or podman seccomp file; none: all but what is never allowed
    #[arg(long, value_name = "FILE", help_heading = "Limits and protection")]
    seccomp: Option<String>,

    /// Show the host's /sys, read-only; by itself there is none [possible values: ro]
    #[arg(
        long,
        value_name = "ro",
        value_enum,
        hide_possible_values = true,
        help_heading = "What the command finds"
    )]
    sys: Option<Sys>,
}

/// How /sys is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sys {
    Ro,
}

impl ChangeFlags {
    /// The binds that are asked for in other words.
    pub(super) fn binds(&self) -> Option<Bind> {
        self.sys.map(|Sys::Ro| Bind {
            source: "/sys".into(),
            target: "/sys".into(),
            mode: BindMode::ReadOnly,
        })
    }
}

impl From<ChangeFlags> for Changes {
    fn from(flags: ChangeFlags) -> Self {
        Self { cap_add: flags.cap_add, cap_drop: flags.cap_drop, seccomp: flags.seccomp }
    }
}
