//! Which id mode the tests run in: `SANDBOX_TEST_IDS`, or the one that this user gets by default.

use std::fs;
use std::sync::OnceLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    Subuid,
    Single,
    Range,
    Identity,
}

impl Ids {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subuid => "subuid",
            Self::Single => "single",
            Self::Range => "range",
            Self::Identity => "identity",
        }
    }

    /// Whether inside there are more ids than 0.
    pub(crate) fn many(self) -> bool {
        self != Self::Single
    }
}

pub(crate) fn ids() -> Ids {
    static IDS: OnceLock<Ids> = OnceLock::new();
    *IDS.get_or_init(|| match std::env::var("SANDBOX_TEST_IDS").as_deref() {
        Ok("subuid") => Ids::Subuid,
        Ok("single") => Ids::Single,
        Ok("range") => Ids::Range,
        Ok("identity") => Ids::Identity,
        Ok(other) => panic!("SANDBOX_TEST_IDS: {other}: not subuid, single, range or identity"),
        Err(_) if is_root() && real_root() => Ids::Range,
        Err(_) if is_root() => Ids::Identity,
        Err(_) if has_ranges() => Ids::Subuid,
        Err(_) => Ids::Single,
    })
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether uid 0 here is the machine's.
pub(crate) fn real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("uid_map");
    is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn has_ranges() -> bool {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").expect("passwd");
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    let Some(name) = name else { return false };
    ["/etc/subuid", "/etc/subgid"].iter().all(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.starts_with(&format!("{name}:")))
    })
}
