//! Capabilities as a set of bits, and what the child does with them just before exec.

use std::str::FromStr;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::fault::{Fault, Result, printable};

/// A set of capabilities: bit n is the capability of number n in capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSet(pub u64);

impl CapSet {
    /// No capability.
    pub const NONE: Self = Self(0);

    /// The set of these names, such as `CAP_CHOWN`.
    ///
    /// # Errors
    /// `usage` that names the first unknown one.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut set = Self::NONE;
        for name in names {
            let capability = caps::Capability::from_str(name).map_err(|_| {
                Fault::usage(format!("capability: {}: no such capability", printable(name)))
            })?;
            set.0 |= capability.bitmask();
        }
        Ok(set)
    }

    /// Every capability that has a name.
    pub fn all() -> Self {
        Self(caps::all().iter().fold(0, |set, capability| set | capability.bitmask()))
    }

    /// The names of its members, by number.
    pub fn names(self) -> Vec<String> {
        let mut members: Vec<_> = caps::all()
            .into_iter()
            .filter(|capability| self.0 & capability.bitmask() != 0)
            .collect();
        members.sort_by_key(caps::Capability::index);
        members.iter().map(ToString::to_string).collect()
    }

    /// Whether capability number `number` is a member.
    pub fn holds(self, number: u32) -> bool {
        number < u64::BITS && self.0 & (1 << number) != 0
    }

    /// The same set, as rustix calls it.
    pub fn bits(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.0)
    }
}

impl<'de> Deserialize<'de> for CapSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Self::from_names(names.iter().map(String::as_str))
            .map_err(|fault| D::Error::custom(fault.message))
    }
}

/// The number of the last capability this kernel knows; asked once per process, by the parent.
pub fn last_cap() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    *LAST.get_or_init(|| {
        // 40, CAP_CHECKPOINT_RESTORE, is the last since Linux 5.9. The kernel answers EINVAL to a number
        // that it does not know, whether or not we hold it. No need of /proc.
        let known = |number: u32| {
            capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number)).is_ok()
        };
        let first_unknown = if known(40) { (41..64).find(|n| !known(*n)) } else { None };
        match first_unknown {
            Some(number) => number - 1,
            None if known(40) => 63,
            None => (0..40).rev().find(|n| known(*n)).unwrap_or(0),
        }
    })
}

/// Gives up, for this thread and all it will execute, every capability not in `set`: the bounding set
/// and the ambient set first, then effective and permitted become `set`, inheritable becomes empty
/// (CVE-2022-29162).
///
/// Runs in the child just before exec; allocates nothing. `last_cap` is [`last_cap`]'s, asked by the
/// parent. Costs one system call for each capability that goes, and one more.
///
/// # Errors
/// EPERM if the caller has no CAP_SETPCAP or not all of `set`.
pub fn apply(set: CapSet, last_cap: u32) -> Result<(), Errno> {
    limit(set, last_cap)?;
    hold(set)
}

/// The first half of [`apply`]: the bounding set. Needs CAP_SETPCAP, so it comes before a change to
/// another user.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn limit(set: CapSet, last_cap: u32) -> Result<(), Errno> {
    for number in (0..=last_cap.min(63)).filter(|number| !set.holds(*number)) {
        remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number))?;
    }
    Ok(())
}

/// The second half of [`apply`]: permitted, effective and inheritable, and with them the ambient set: the
/// kernel keeps in it only what is inheritable, and nothing is (capset(2), capabilities(7)).
///
/// # Errors
/// EPERM if the caller lacks one of `set`.
pub fn hold(set: CapSet) -> Result<(), Errno> {
    hold_back(set, CapSet::NONE)
}

/// As [`hold`], but `spare` stays permitted, without effect.
///
/// # Errors
/// EPERM if the caller lacks one of both.
pub fn hold_back(set: CapSet, spare: CapSet) -> Result<(), Errno> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: set.bits(),
            permitted: set.bits() | spare.bits(),
            inheritable: CapabilitySet::empty(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_told() {
        let set = CapSet::from_names(["CAP_SETUID", "CAP_CHOWN"]).expect("known");
        assert_eq!(set, CapSet(1 | 1 << 7));
        assert_eq!(set.names(), ["CAP_CHOWN", "CAP_SETUID"]);
        assert!(set.holds(7) && !set.holds(8) && !set.holds(64));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let fault = CapSet::from_names(["CAP_EVERYTHING"]).expect_err("unknown");
        assert_eq!(fault.message, "capability: CAP_EVERYTHING: no such capability");
    }

    #[test]
    fn the_last_capability_is_the_kernels() {
        let told = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("proc");
        assert_eq!(last_cap().to_string(), told.trim());
    }
}
