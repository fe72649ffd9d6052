//! Which map a mode comes to, and whether a recorded one can be made again: decided from facts alone.

use super::accounts::{self, Owner};
use super::map::{Extent, IdMap, MOST_EXTENTS, Mode};
use super::span::{Span, covers, joined, within};
use crate::fault::{Fault, Result, printable};

/// How many ids a range of ours has: what useradd(8) gives a user, and what images expect.
const RANGE: u32 = 65536;

/// Where the fixed range of `range` mode may lie: above what directory services hand out (SSSD's default
/// ends at 2,000,200,000) and below systemd's foreign ids (2,147,352,576), in a stretch that systemd's
/// registry of ids calls unused.
const FREE_FIRST: u32 = 0x7800_0000;
const FREE_END: u32 = 0x7FFE_0000;

/// What this process and this machine have to offer.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The effective ids.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether we may write the maps of a child ourselves: CAP_SETUID and CAP_SETGID.
    pub(super) sets_ids: bool,
    /// Whether this is the initial user namespace.
    pub(super) initial: bool,
    /// The ids that our own user namespace holds.
    pub(super) held_uids: Vec<Span>,
    pub(super) held_gids: Vec<Span>,
    /// The user's name, if it is known.
    pub(super) name: Option<String>,
    /// The texts of the files in /etc; empty for one that is absent.
    pub(super) passwd: String,
    pub(super) group: String,
    pub(super) subuid: String,
    pub(super) subgid: String,
}

impl Facts {
    fn owner(&self) -> Owner<'_> {
        Owner { name: self.name.as_deref(), uid: self.uid }
    }

    /// How to call the user in a message.
    fn user(&self) -> String {
        self.name.as_deref().map_or_else(|| format!("uid {}", self.uid), printable)
    }

    fn sub_uids(&self) -> Vec<Span> {
        self.delegated(&self.subuid, &self.held_uids, self.uid)
    }

    fn sub_gids(&self) -> Vec<Span> {
        self.delegated(&self.subgid, &self.held_gids, self.gid)
    }

    /// The user's ranges that can be used: without root's id and the caller's own, without ids named
    /// twice, and only what our own namespace holds.
    fn delegated(&self, text: &str, held: &[Span], own: u32) -> Vec<Span> {
        let mut taken: Vec<Span> = [0, own].into_iter().filter_map(Span::one).collect();
        let mut out = Vec::new();
        for range in accounts::ranges_of(text, self.owner()).into_iter().take(MOST_EXTENTS) {
            for part in within(range, held) {
                out.extend(part.without(&taken));
                taken.push(part);
            }
        }
        out
    }

    /// Ids that belong to somebody.
    fn taken(&self) -> Vec<Span> {
        let accounts =
            accounts::account_ids(&self.passwd).chain(accounts::account_ids(&self.group));
        let ranges =
            accounts::ranges(&self.subuid).into_iter().chain(accounts::ranges(&self.subgid));
        accounts.filter_map(Span::one).chain(ranges).collect()
    }
}

/// The map that `mode` comes to.
pub(super) fn map_for(mode: Mode, facts: &Facts) -> Result<IdMap> {
    match mode {
        Mode::Subuid => subuid(facts),
        Mode::Range => range(facts),
        Mode::Identity => identity(facts),
        Mode::Single => single(facts),
    }
}

fn single(facts: &Facts) -> Result<IdMap> {
    IdMap::new(Mode::Single, vec![one(facts.uid)], vec![one(facts.gid)])
}

fn subuid(facts: &Facts) -> Result<IdMap> {
    if facts.uid == 0 {
        return Err(no_mode(Mode::Subuid, facts, "it is for a plain user")
            .hint("choose the mode range or identity"));
    }
    let (uids, gids) = (facts.sub_uids(), facts.sub_gids());
    let files = [
        (&uids, "/etc/subuid", &facts.subuid, "uid_map"),
        (&gids, "/etc/subgid", &facts.subgid, "gid_map"),
    ];
    for (ranges, file, text, outer) in files {
        let given = accounts::ranges_of(text, facts.owner());
        if let (true, Some(first)) = (ranges.is_empty(), given.first()) {
            let (from, to) = (first.first, first.end() - 1);
            let why = format!("the user namespace around does not hold {from}..{to} of {file}");
            return Err(no_mode(Mode::Subuid, facts, &why).hint(format!(
                "give {} a range in {file} that lies within /proc/self/{outer}, or give the container more ids",
                facts.user()
            )));
        }
        if ranges.is_empty() {
            return Err(no_mode(Mode::Subuid, facts, &format!("no usable range in {file}"))
                .hint(add_ranges(facts)));
        }
    }
    let above = |own, ranges: &[Span]| {
        let mut extents = vec![one(own)];
        extents.extend(stacked(1, ranges));
        extents
    };
    IdMap::new(Mode::Subuid, above(facts.uid, &uids), above(facts.gid, &gids))
}

fn range(facts: &Facts) -> Result<IdMap> {
    if facts.uid != 0 || !facts.initial {
        let why = "it is for uid 0 of the initial user namespace";
        return Err(no_mode(Mode::Range, facts, why).hint("choose another mode, or none"));
    }
    needs_set_ids(Mode::Range, facts)?;
    let (uids, gids) = (facts.sub_uids(), facts.sub_gids());
    if !uids.is_empty() && !gids.is_empty() {
        return IdMap::new(Mode::Range, stacked(0, &uids), stacked(0, &gids));
    }
    let block = free_block(&facts.taken(), FREE_FIRST, FREE_END).ok_or_else(|| {
        no_mode(Mode::Range, facts, "no free range of ids").hint(add_ranges(facts))
    })?;
    IdMap::new(Mode::Range, stacked(0, &[block]), stacked(0, &[block]))
}

fn identity(facts: &Facts) -> Result<IdMap> {
    if facts.uid != 0 {
        return Err(no_mode(Mode::Identity, facts, "it is for uid 0")
            .hint("choose the mode subuid or single"));
    }
    needs_set_ids(Mode::Identity, facts)?;
    // Not joined: an extent must lie within one extent of the namespace around (map_id_range_down).
    let same = |held: &[Span]| -> Vec<Extent> {
        let extent =
            |span: &Span| Extent { inside: span.first, outside: span.first, count: span.count };
        held.iter().map(extent).collect()
    };
    IdMap::new(Mode::Identity, same(&facts.held_uids), same(&facts.held_gids))
}

/// What `auto` tries, the best first; [`Mode::Single`] is not in it, as it is what remains.
pub(super) fn candidates(facts: &Facts) -> Vec<Mode> {
    let many = |held: &[Span]| held.iter().map(|span| u64::from(span.count)).sum::<u64>() > 1;
    if facts.uid != 0 {
        vec![Mode::Subuid]
    } else if facts.initial {
        vec![Mode::Range]
    } else if many(&facts.held_uids) && many(&facts.held_gids) {
        vec![Mode::Identity]
    } else {
        Vec::new()
    }
}

/// Whether /etc/subuid names the user, so that more than `single` is expected.
pub(super) fn has_sub_uids(facts: &Facts) -> bool {
    !accounts::ranges_of(&facts.subuid, facts.owner()).is_empty()
}

/// Whether this very map can be made by this process, as far as the files and ids tell.
pub(super) fn permits(recorded: &IdMap, facts: &Facts) -> Result<()> {
    match recorded.mode {
        Mode::Single if recorded.same_owners(&single(facts)?) => Ok(()),
        Mode::Single => Err(other_owner(recorded, facts)),
        Mode::Subuid if recorded.root_owner() != (facts.uid, facts.gid) => {
            Err(other_owner(recorded, facts))
        }
        Mode::Subuid => {
            let delegated = [
                (facts.sub_uids(), facts.uid, "/etc/subuid"),
                (facts.sub_gids(), facts.gid, "/etc/subgid"),
            ];
            for (extents, (mut allowed, own, file)) in
                [&recorded.uids, &recorded.gids].into_iter().zip(delegated)
            {
                allowed.extend(Span::one(own));
                if let Some(lost) = uncovered(extents, &allowed) {
                    return Err(lost_range(recorded, facts, lost, file));
                }
            }
            Ok(())
        }
        Mode::Range | Mode::Identity => {
            if facts.uid != 0 {
                return Err(other_owner(recorded, facts));
            }
            needs_set_ids(recorded.mode, facts)?;
            let held = [(&recorded.uids, &facts.held_uids), (&recorded.gids, &facts.held_gids)];
            match held.into_iter().find_map(|(extents, held)| uncovered(extents, held)) {
                None => Ok(()),
                Some(lost) => Err(Fault::conflict(format!(
                    "use the box's id map: {}: this user namespace does not hold {}..{}",
                    recorded.mode,
                    lost.outside,
                    u64::from(lost.outside) + u64::from(lost.count) - 1,
                ))
                .hint("run it where the box was made, or make a new box with `sandbox init`")),
            }
        }
    }
}

fn uncovered(extents: &[Extent], allowed: &[Span]) -> Option<Extent> {
    extents
        .iter()
        .copied()
        .find(|extent| !covers(allowed, Span { first: extent.outside, count: extent.count }))
}

fn one(id: u32) -> Extent {
    Extent { inside: 0, outside: id, count: 1 }
}

/// The ranges one above the other, the first at `inside`; no more than a map may have.
fn stacked(mut inside: u32, ranges: &[Span]) -> Vec<Extent> {
    let mut out = Vec::new();
    for range in ranges.iter().take(MOST_EXTENTS - 1) {
        let Some(part) = Span::clipped(u64::from(inside), u64::from(range.count)) else { break };
        out.push(Extent { inside, outside: range.first, count: part.count });
        inside += part.count;
    }
    out
}

/// The first aligned block of [`RANGE`] ids from `first` on, below `end`, of which nobody has any.
fn free_block(taken: &[Span], first: u32, end: u32) -> Option<Span> {
    let taken = joined(taken.to_vec());
    let starts = (first..end).step_by(RANGE as usize);
    let mut blocks = starts.map(|first| Span { first, count: RANGE });
    blocks.find(|block| {
        block.end() <= u64::from(end) && !taken.iter().any(|one| one.overlaps(*block))
    })
}

fn no_mode(mode: Mode, facts: &Facts, why: &str) -> Fault {
    Fault::host(format!("choose the id map {mode}: {}: {why}", facts.user()))
}

fn needs_set_ids(mode: Mode, facts: &Facts) -> Result<()> {
    if facts.sets_ids {
        return Ok(());
    }
    Err(no_mode(mode, facts, "CAP_SETUID and CAP_SETGID are missing").hint(
        "start the container with `--cap-add SETUID --cap-add SETGID`, or choose the mode single",
    ))
}

fn add_ranges(facts: &Facts) -> String {
    let Some(block) = free_block(&facts.taken(), 2 * RANGE, FREE_FIRST) else {
        return "give the user ranges in /etc/subuid and /etc/subgid, see subuid(5)".to_owned();
    };
    let last = block.end() - 1;
    let user = facts.name.as_deref().map_or_else(|| facts.uid.to_string(), printable);
    format!(
        "as root: `usermod --add-subuids {0}-{last} --add-subgids {0}-{last} {user}`",
        block.first
    )
}

fn other_owner(recorded: &IdMap, facts: &Facts) -> Fault {
    let (uid, gid) = recorded.root_owner();
    let who = match recorded.mode {
        Mode::Range | Mode::Identity => "uid 0".to_owned(),
        Mode::Subuid | Mode::Single => format!("uid {uid}, gid {gid}"),
    };
    Fault::conflict(format!(
        "use the box's id map: {}: it is for {who}, and this is uid {}, gid {}",
        recorded.mode, facts.uid, facts.gid,
    ))
    .hint("run it as the one who made the box, or make a new box with `sandbox init`")
}

fn lost_range(recorded: &IdMap, facts: &Facts, lost: Extent, file: &str) -> Fault {
    let user = facts.name.as_deref().map_or_else(|| facts.uid.to_string(), printable);
    Fault::conflict(format!(
        "use the box's id map: {}: {file} no longer gives {}..{} to {user}",
        recorded.mode,
        lost.outside,
        u64::from(lost.outside) + u64::from(lost.count) - 1,
    ))
    .hint(format!(
        "put the line `{user}:{}:{}` back into {file}, or make a new box with `sandbox init`",
        lost.outside, lost.count,
    ))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
