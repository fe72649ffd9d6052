//! Resource limits: read from the profile by the parent, set by the child.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Deserialize;

/// The limits of a profile. What is left out stays as the caller has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// RLIMIT_CORE: size of a core file in bytes.
    pub core: Option<u64>,
    /// RLIMIT_FSIZE: size of a file in bytes.
    pub fsize: Option<u64>,
    /// RLIMIT_NOFILE: one above the largest number of a descriptor. Not huge: some package managers
    /// close every possible descriptor in every child.
    pub nofile: Option<u64>,
    /// RLIMIT_NPROC: processes of the user, on the host as a whole.
    pub nproc: Option<u64>,
}

/// The limits as numbers: soft and hard alike, never above what the caller may have at most.
pub fn plan(limits: &Limits) -> Vec<(Resource, Rlimit)> {
    [
        (Resource::Core, limits.core),
        (Resource::Fsize, limits.fsize),
        (Resource::Nofile, limits.nofile),
        (Resource::Nproc, limits.nproc),
    ]
    .into_iter()
    .filter_map(|(resource, wanted)| {
        let wanted = wanted?;
        // Whatever the caller may have, it may have nothing.
        let most = if wanted == 0 { Some(0) } else { getrlimit(resource).maximum };
        let value = Some(wanted.min(most.unwrap_or(u64::MAX)));
        Some((resource, Rlimit { current: value, maximum: value }))
    })
    .collect()
}

/// Sets the limits; one system call each, no allocation.
///
/// # Errors
/// What setrlimit(2) says; EPERM only if a hard limit shrank since [`plan`].
pub fn apply(plan: &[(Resource, Rlimit)]) -> Result<(), Errno> {
    plan.iter().try_for_each(|(resource, limit)| setrlimit(*resource, *limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_above_the_callers() {
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let limits = Limits { core: Some(0), nofile: Some(u64::MAX - 1), ..Limits::default() };
        let plan = plan(&limits);
        assert_eq!(plan.len(), 2);
        assert_eq!(plan[0].1, Rlimit { current: Some(0), maximum: Some(0) });
        assert_eq!(plan[1].1.maximum, Some(most.min(u64::MAX - 1)));
    }
}
