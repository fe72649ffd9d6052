//! Which map a mode comes to, and whether a recorded one can be made again: decided from facts alone.

use super::accounts;
use super::facts::Facts;
use super::map::{Extent, IdMap, MOST_EXTENTS, Mode};
use super::span::{Span, covers, joined, within};
use crate::fault::{Fault, Kind, Result, printable};

/// How many ids a range of ours has: what useradd(8) gives a user, and what images expect.
const RANGE: u32 = 65536;

/// Where the fixed range of `range` mode may lie: above what directory services hand out (SSSD's default
/// ends at 2,000,200,000) and below systemd's foreign ids (2,147,352,576), in a stretch that systemd's
/// registry of ids calls unused.
const FREE_FIRST: u32 = 0x7800_0000;
const FREE_END: u32 = 0x7FFE_0000;

/// Where a namespace has no room for a whole range, a shorter one is proposed: of at least so many ids, above those that
/// accounts may still get.
const SHORTEST: u32 = 10_000;
const ABOVE_ACCOUNTS: u32 = 10_000;

const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";

/// What helps where the namespace around is too small.
const MORE_IDS: &str =
    "give the container more ids (/proc/self/uid_map and gid_map tell which it has)";

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
    let files = [(&uids, SUBUID, &facts.subuid), (&gids, SUBGID, &facts.subgid)];
    for (ranges, file, text) in files {
        let given = accounts::ranges_of(text, facts.owner());
        if let (true, Some(first)) = (ranges.is_empty(), given.first()) {
            let hint = match addable(facts) {
                Some(_) => format!("{MORE_IDS}; or {}", add_ranges(facts)),
                None => add_ranges(facts),
            };
            return Err(no_mode(Mode::Subuid, facts, &not_held(*first, file)).hint(hint));
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
    let taken = joined(facts.taken());
    let block = free_block(&taken, &facts.held_uids, FREE_FIRST, FREE_END).ok_or_else(|| {
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
        Mode::Subuid => permits_ranges(recorded, facts),
        Mode::Range | Mode::Identity => {
            if facts.uid != 0 {
                return Err(other_owner(recorded, facts));
            }
            needs_set_ids(recorded.mode, facts)?;
            let held = [(&recorded.uids, &facts.held_uids), (&recorded.gids, &facts.held_gids)];
            let lost = held.into_iter().find_map(|(extents, held)| uncovered(extents, held).next());
            match lost {
                None => Ok(()),
                Some(lost) => Err(Fault::conflict(format!(
                    "use the box's id map: {}: this user namespace does not hold {}",
                    recorded.mode,
                    shown(lost),
                ))
                .hint("run it where the box was made, or make a new box with `sandbox init`")),
            }
        }
    }
}

/// Why this map could not be written, if the files and ids tell: the reason and the remedy that a choice of a map would
/// have given.
pub(super) fn against(map: &IdMap, facts: &Facts) -> Option<Fault> {
    permits(map, facts).err().map(|fault| Fault { kind: Kind::Host, ..fault })
}

/// Whether the user still has the ranges of a map, and our own namespace holds them.
fn permits_ranges(recorded: &IdMap, facts: &Facts) -> Result<()> {
    let sides = [
        (&recorded.uids, facts.given_uids(), &facts.held_uids, facts.uid, SUBUID),
        (&recorded.gids, facts.given_gids(), &facts.held_gids, facts.gid, SUBGID),
    ];
    let mut lost = Vec::new();
    let mut far = None;
    for (extents, mut given, held, own, file) in sides {
        given.extend(Span::one(own));
        lost.extend(uncovered(extents, &given).map(|span| (span, file)));
        far = far.or_else(|| uncovered(extents, held).next().map(|span| (span, file)));
    }
    if !lost.is_empty() {
        return Err(lost_ranges(facts, &lost));
    }
    match far {
        None => Ok(()),
        Some((span, file)) => Err(Fault::conflict(format!(
            "use the box's id map: {}: {}",
            recorded.mode,
            not_held(span, file)
        ))
        .hint(format!("{MORE_IDS}; or make a new box with `sandbox init`"))),
    }
}

fn uncovered(extents: &[Extent], allowed: &[Span]) -> impl Iterator<Item = Span> {
    let spans = extents.iter().map(|extent| Span { first: extent.outside, count: extent.count });
    spans.filter(|span| !covers(allowed, *span))
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

/// The first aligned block of [`RANGE`] ids of `held` from `first` on, below `end`, of which nobody has any.
fn free_block(taken: &[Span], held: &[Span], first: u32, end: u32) -> Option<Span> {
    let starts = (first..end).step_by(RANGE as usize);
    let mut blocks = starts.map(|first| Span { first, count: RANGE });
    blocks.find(|block| {
        block.end() <= u64::from(end)
            && covers(held, *block)
            && !taken.iter().any(|one| one.overlaps(*block))
    })
}

/// The longest stretch of `held` that nobody has any id of.
fn free_stretch(taken: &[Span], held: &[Span]) -> Option<Span> {
    let mut free = Vec::new();
    for span in held {
        let mut first = u64::from(span.first.max(ABOVE_ACCOUNTS));
        for one in taken {
            free.extend(Span::between(first, span.end().min(u64::from(one.first))));
            first = first.max(one.end());
        }
        free.extend(Span::between(first, span.end()));
    }
    free.into_iter().filter(|span| span.count >= SHORTEST).max_by_key(|span| span.count)
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

/// Ids that the user could get in both files: nobody's, and held by our own namespace.
fn addable(facts: &Facts) -> Option<Span> {
    let taken = joined(facts.taken());
    let in_both = facts.held_uids.iter().flat_map(|span| within(*span, &facts.held_gids));
    let held = joined(in_both.collect());
    free_block(&taken, &held, 2 * RANGE, FREE_FIRST)
        .or_else(|| free_stretch(&taken, &held).filter(|_| !facts.initial))
}

fn add_ranges(facts: &Facts) -> String {
    match addable(facts) {
        Some(span) => usermod(&[(span, SUBUID), (span, SUBGID)], facts),
        None if facts.initial => {
            "give the user ranges in /etc/subuid and /etc/subgid, see subuid(5)".to_owned()
        }
        None => format!("{MORE_IDS}: the user namespace around has none to spare for {SUBUID}"),
    }
}

/// The command that gives the user these ranges.
fn usermod(ranges: &[(Span, &str)], facts: &Facts) -> String {
    let options = ranges.iter().map(|(span, file)| {
        let option = if *file == SUBUID { "--add-subuids" } else { "--add-subgids" };
        format!("{option} {}-{} ", span.first, span.end() - 1)
    });
    let user = facts.name.as_deref().map_or_else(|| facts.uid.to_string(), printable);
    format!("as root: `usermod {}{user}`", options.collect::<String>())
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

/// The ranges of a box that the user has no more. Only these same ones help the box.
fn lost_ranges(facts: &Facts, lost: &[(Span, &str)]) -> Fault {
    let user = facts.name.as_deref().map_or_else(|| facts.uid.to_string(), printable);
    let (first, file) = lost[0];
    let fault = Fault::conflict(format!(
        "use the box's id map: {}: {file} no longer gives {} to {user}",
        Mode::Subuid,
        shown(first),
    ));
    let others = facts.others();
    if lost.iter().any(|(span, _)| others.iter().any(|other| other.overlaps(*span))) {
        return fault.hint(
            "make a new box with `sandbox init`: ids of that range belong to somebody else now",
        );
    }
    fault.hint(format!("{}; or make a new box with `sandbox init`", usermod(lost, facts)))
}

fn not_held(span: Span, file: &str) -> String {
    format!("the user namespace around does not hold {} of {file}", shown(span))
}

fn shown(span: Span) -> String {
    format!("{}..{}", span.first, span.end() - 1)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
