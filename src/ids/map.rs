//! The id map as a value: extents, their rules, and looking ids up.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::fault::{Fault, Result, printable};

/// The most extents a map may have. The kernel takes 340 (Linux 4.15), but only if their text is shorter
/// than a page: 100 lines of at most 33 bytes are.
pub(super) const MOST_EXTENTS: usize = 100;

/// How a map comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// 0 is the caller, 1 and up are the caller's ranges of /etc/subuid and /etc/subgid, by newuidmap.
    Subuid,
    /// 0 and up are an unprivileged range; for uid 0 of the initial user namespace.
    Range,
    /// Inside and outside are the same number.
    Identity,
    /// 0 is the caller, and there is nobody else.
    Single,
}

impl Mode {
    const ALL: [(&str, Self); 4] = [
        ("subuid", Self::Subuid),
        ("range", Self::Range),
        ("identity", Self::Identity),
        ("single", Self::Single),
    ];
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL.iter().find(|(_, mode)| mode == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for Mode {
    type Err = Fault;

    /// Reads the name that [`Display`] writes; anything else is a usage fault.
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|&(_, mode)| mode).ok_or_else(|| {
            Fault::usage(format!("choose the id map: {}: no such mode", printable(text)))
                .hint("one of subuid, range, identity, single")
        })
    }
}

/// One line of `uid_map` or `gid_map`: `count` ids from `inside` on are those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The first id as seen in the user namespace.
    pub inside: u32,
    /// The first id as seen outside, in the namespace of whoever runs us; this one lands on disk.
    pub outside: u32,
    /// How many ids, at least 1.
    pub count: u32,
}

impl Extent {
    fn outside_of(self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.inside)?;
        (offset < self.count).then(|| self.outside + offset)
    }

    fn covers(self, outside: u32) -> bool {
        outside.checked_sub(self.outside).is_some_and(|offset| offset < self.count)
    }

    fn spans(self) -> Option<(Span, Span)> {
        let whole = |first: u32| {
            Span::clipped(u64::from(first), u64::from(self.count))
                .filter(|span| span.count == self.count)
        };
        Some((whole(self.inside)?, whole(self.outside)?))
    }
}

/// Which outside id stands for each inside id. Always valid: see [`IdMap::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct IdMap {
    /// How the map comes about.
    pub mode: Mode,
    /// The users.
    pub uids: Vec<Extent>,
    /// The groups.
    pub gids: Vec<Extent>,
}

#[derive(Deserialize)]
struct Unchecked {
    mode: Mode,
    uids: Vec<Extent>,
    gids: Vec<Extent>,
}

impl TryFrom<Unchecked> for IdMap {
    type Error = Fault;

    fn try_from(raw: Unchecked) -> Result<Self> {
        Self::new(raw.mode, raw.uids, raw.gids)
    }
}

impl IdMap {
    /// A map of these extents.
    ///
    /// # Errors
    /// A usage fault if an extent is empty or reaches beyond the last id (2^32 - 2), if two overlap inside
    /// or outside, if there are too many for the kernel, or if nobody is 0 inside.
    pub fn new(mode: Mode, uids: Vec<Extent>, gids: Vec<Extent>) -> Result<Self> {
        for (what, extents) in [("users", &uids), ("groups", &gids)] {
            if let Some(why) = flaw(extents) {
                return Err(Fault::usage(format!("use the id map: {what}: {why}")));
            }
        }
        Ok(Self { mode, uids, gids })
    }

    /// The outside uid that stands for `inside`, if the map holds it.
    pub fn uid_outside(&self, inside: u32) -> Option<u32> {
        look_up(&self.uids, inside)
    }

    /// The outside gid that stands for `inside`, if the map holds it.
    pub fn gid_outside(&self, inside: u32) -> Option<u32> {
        look_up(&self.gids, inside)
    }

    /// Whether 0 inside is 0 outside, who is root of this machine if the namespace outside is the initial one.
    pub fn has_root_of_outside(&self) -> bool {
        self.root_owner().0 == 0
    }

    /// Whether the user `outside` is somebody inside.
    pub fn shows_uid(&self, outside: u32) -> bool {
        self.uids.iter().any(|extent| extent.covers(outside))
    }

    /// Whether the group `outside` is one inside.
    pub fn shows_gid(&self, outside: u32) -> bool {
        self.gids.iter().any(|extent| extent.covers(outside))
    }

    /// Whether there is a user `inside`.
    pub fn holds_uid(&self, inside: u32) -> bool {
        self.uid_outside(inside).is_some()
    }

    /// Whether there is a group `inside`.
    pub fn holds_gid(&self, inside: u32) -> bool {
        self.gid_outside(inside).is_some()
    }

    /// The outside uid and gid of inside 0, 0.
    pub fn root_owner(&self) -> (u32, u32) {
        let zero = |extents| look_up(extents, 0).expect("a map without 0 cannot be made");
        (zero(&self.uids), zero(&self.gids))
    }

    /// The map by which those inside this one make a namespace with the same ids: their own are all there is.
    pub fn as_seen_inside(&self) -> Self {
        let same = |extents: &[Extent]| {
            extents.iter().map(|extent| Extent { outside: extent.inside, ..*extent }).collect()
        };
        let mode = if self.mode == Mode::Single { Mode::Single } else { Mode::Identity };
        Self { mode, uids: same(&self.uids), gids: same(&self.gids) }
    }

    /// The map of who is nobody but `inside`: the one id of a `single` map by another name. The owner on disk is
    /// the same. Such a map is made for a moment, and never recorded.
    #[must_use]
    pub fn known_as(&self, inside: u32) -> Self {
        let renamed = |extents: &[Extent]| match self.mode {
            Mode::Single => extents.iter().map(|one| Extent { inside, ..*one }).collect(),
            _ => extents.to_vec(),
        };
        Self { mode: self.mode, uids: renamed(&self.uids), gids: renamed(&self.gids) }
    }

    /// Whether both maps put the same owner on disk for every inside id, however they came about and
    /// however they are cut into extents.
    pub fn same_owners(&self, other: &Self) -> bool {
        normal(&self.uids) == normal(&other.uids) && normal(&self.gids) == normal(&other.gids)
    }
}

fn look_up(extents: &[Extent], inside: u32) -> Option<u32> {
    extents.iter().find_map(|extent| extent.outside_of(inside))
}

/// What is wrong with the extents, if anything.
fn flaw(extents: &[Extent]) -> Option<&'static str> {
    if extents.len() > MOST_EXTENTS {
        return Some("more extents than the kernel takes");
    }
    let Some(spans) = extents.iter().map(|extent| extent.spans()).collect::<Option<Vec<_>>>()
    else {
        return Some("an extent is empty or reaches beyond the last id");
    };
    for (at, (inside, outside)) in spans.iter().enumerate() {
        let later = spans.iter().skip(at + 1);
        if later.clone().any(|(other, _)| other.overlaps(*inside)) {
            return Some("an inside id is mapped twice");
        }
        if later.clone().any(|(_, other)| other.overlaps(*outside)) {
            return Some("an outside id is mapped twice");
        }
    }
    look_up(extents, 0).is_none().then_some("nobody is 0 inside")
}

/// The same map in its one shortest form.
fn normal(extents: &[Extent]) -> Vec<Extent> {
    let mut sorted = extents.to_vec();
    sorted.sort_by_key(|extent| extent.inside);
    let mut out: Vec<Extent> = Vec::with_capacity(sorted.len());
    for next in sorted {
        match out.last_mut() {
            Some(last)
                if last.inside + last.count == next.inside
                    && last.outside + last.count == next.outside =>
            {
                last.count += next.count;
            }
            _ => out.push(next),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines<'a> = &'a [(u32, u32, u32)];

    fn extents(lines: Lines<'_>) -> Vec<Extent> {
        lines.iter().map(|&(inside, outside, count)| Extent { inside, outside, count }).collect()
    }

    fn map(mode: Mode, lines: Lines<'_>) -> IdMap {
        IdMap::new(mode, extents(lines), extents(lines)).expect("valid")
    }

    #[test]
    fn seen_from_inside_there_are_only_its_own_ids() {
        let extent = |inside, outside, count| Extent { inside, outside, count };
        let ids = vec![extent(0, 1000, 1), extent(1, 100_000, 65536)];
        let map = IdMap::new(Mode::Subuid, ids.clone(), ids).expect("map");
        let inner = map.as_seen_inside();
        assert_eq!((inner.mode, inner.root_owner()), (Mode::Identity, (0, 0)));
        assert_eq!(inner.uids, [extent(0, 0, 1), extent(1, 1, 65536)]);
        assert_eq!(inner.as_seen_inside(), inner);
        let one = vec![extent(0, 1000, 1)];
        let map = IdMap::new(Mode::Single, one.clone(), one).expect("map");
        assert_eq!(map.as_seen_inside().mode, Mode::Single);
    }

    #[test]
    fn refuses_what_the_kernel_would_refuse() {
        let table: [(Lines<'_>, &str); 10] = [
            (&[], "nobody is 0 inside"),
            (&[(1, 1000, 1)], "nobody is 0 inside"),
            (&[(0, 1000, 0)], "empty"),
            (&[(0, u32::MAX, 1)], "beyond the last id"),
            (&[(u32::MAX, 0, 1)], "beyond the last id"),
            (&[(0, 2, u32::MAX - 1)], "beyond the last id"),
            (&[(0, 0, 1), (5, 4_294_967_290, 100)], "beyond the last id"),
            (&[(0, 1000, 2), (1, 5000, 1)], "inside id is mapped twice"),
            (&[(0, 1000, 1), (1, 1000, 1)], "outside id is mapped twice"),
            (&[(0, 1000, 10), (20, 1009, 10)], "outside id is mapped twice"),
        ];
        let good = extents(&[(0, 0, 1)]);
        for (bad, why) in table {
            for (uids, gids) in [(extents(bad), good.clone()), (good.clone(), extents(bad))] {
                let fault = IdMap::new(Mode::Subuid, uids, gids).expect_err(why);
                assert!(fault.message.contains(why), "{bad:?}: {fault}");
            }
        }
        let many: Vec<_> = (0..=100).map(|n| (n, 2 * n, 1)).collect();
        assert!(IdMap::new(Mode::Range, extents(&many), good.clone()).is_err());
        assert!(IdMap::new(Mode::Identity, extents(&[(0, 0, u32::MAX)]), good).is_ok());
    }

    #[test]
    fn looks_ids_up() {
        let map = map(Mode::Subuid, &[(0, 1000, 1), (1, 100_000, 65536)]);
        let table = [
            (0, Some(1000)),
            (1, Some(100_000)),
            (65536, Some(165_535)),
            (65537, None),
            (u32::MAX, None),
        ];
        for (inside, outside) in table {
            assert_eq!(map.uid_outside(inside), outside, "{inside}");
            assert_eq!(map.gid_outside(inside), outside, "{inside}");
            assert_eq!(map.holds_uid(inside), outside.is_some());
            assert_eq!(map.holds_gid(inside), outside.is_some());
        }
        assert_eq!(map.root_owner(), (1000, 1000));
    }

    #[test]
    fn owners_count_and_not_the_way_there() {
        let cut = map(Mode::Range, &[(1, 500_001, 9), (0, 500_000, 1), (10, 500_010, 90)]);
        let whole = map(Mode::Subuid, &[(0, 500_000, 100)]);
        let moved = map(Mode::Range, &[(0, 500_001, 100)]);
        let short = map(Mode::Range, &[(0, 500_000, 99)]);
        assert!(cut.same_owners(&whole) && whole.same_owners(&cut));
        assert!(!cut.same_owners(&moved));
        assert!(!cut.same_owners(&short));
    }

    #[test]
    fn one_id_by_another_name() {
        let single = map(Mode::Single, &[(0, 1000, 1)]).known_as(7);
        assert_eq!((single.uid_outside(7), single.gid_outside(7)), (Some(1000), Some(1000)));
        assert!(!single.holds_uid(0));
        let many = map(Mode::Range, &[(0, 500_000, 9)]);
        assert_eq!(many.known_as(7), many);
    }

    #[test]
    fn a_record_comes_back_and_a_bad_one_does_not() {
        let map = map(Mode::Single, &[(0, 1000, 1)]);
        let text = serde_json::to_string(&map).expect("json");
        assert!(text.starts_with(r#"{"mode":"single","uids":[{"inside":0,"outside":1000,"#));
        assert_eq!(serde_json::from_str::<IdMap>(&text).expect("same"), map);
        let bad = text.replace("\"inside\":0", "\"inside\":1");
        assert!(serde_json::from_str::<IdMap>(&bad).is_err());
    }

    #[test]
    fn modes_have_one_name() {
        for (name, mode) in Mode::ALL {
            assert_eq!(mode.to_string(), name);
            assert_eq!(name.parse::<Mode>().expect("known"), mode);
            assert_eq!(serde_json::to_string(&mode).expect("json"), format!("{name:?}"));
        }
        assert!("Single".parse::<Mode>().is_err());
    }
}
