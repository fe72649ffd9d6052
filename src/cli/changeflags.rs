//! The flags of `run` and `shell` that change a profile.

use clap::Args;

use crate::isolate::change::Changes;

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
}

impl From<ChangeFlags> for Changes {
    fn from(flags: ChangeFlags) -> Self {
        Self { cap_add: flags.cap_add, cap_drop: flags.cap_drop, seccomp: flags.seccomp }
    }
}
