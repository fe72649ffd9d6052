//! Choosing a map for a new box, and checking a recorded one.

use rustix::process::{getegid, geteuid};

use super::enter::{Entry, Powers};
use super::facts::Facts;
use super::helper::Helpers;
use super::map::{IdMap, Mode};
use super::plan;
use super::work::inside;
use crate::fault::{Fault, Kind, Result};

/// The map for a new box, and what had to be passed over.
#[derive(Debug)]
pub struct Picked {
    /// The map.
    pub map: IdMap,
    /// Why it is [`Mode::Single`], where /etc/subuid gives the user more.
    pub refused: Option<Fault>,
}

/// The map for a new box: of the mode asked for or, for `None`, of the first that works here: `subuid` for
/// a plain user; for uid 0 `range` in the initial user namespace and `identity` in one with many ids;
/// else `single`.
///
/// "Works" is tried: a child enters a namespace with the map. This process must have one thread.
///
/// # Errors
/// For a mode that was asked for, a host fault that says what is missing and how to get it. For `None`,
/// if not even `single` works, which means that there are no user namespaces here; or if a better mode could
/// not be tried, which is no refusal: a box keeps its map, and the next try may well succeed.
pub fn pick(request: Option<Mode>) -> Result<Picked> {
    let facts = Facts::read()?;
    if let Some(mode) = request {
        return made(mode, &facts).map(|map| Picked { map, refused: None });
    }
    let mut refused = None;
    for mode in plan::candidates(&facts) {
        match made(mode, &facts) {
            Ok(map) => return Ok(Picked { map, refused: None }),
            Err(fault) if fault.kind == Kind::Host => refused = Some(fault),
            Err(fault) => return Err(untried(mode, fault)),
        }
    }
    let map = made(Mode::Single, &facts)?;
    Ok(Picked { map, refused: refused.filter(|_| plan::has_sub_uids(&facts)) })
}

/// The map that [`pick`] picks.
///
/// # Errors
/// As [`pick`].
pub fn choose(request: Option<Mode>) -> Result<IdMap> {
    pick(request).map(|picked| picked.map)
}

fn untried(mode: Mode, fault: Fault) -> Fault {
    let first = fault.hint.as_deref().unwrap_or("try again");
    let hint = format!("{first}; or `init --ids single` to take one id deliberately, for good");
    Fault { message: format!("choose the id map {mode}: {}", fault.message), ..fault }.hint(hint)
}

fn made(mode: Mode, facts: &Facts) -> Result<IdMap> {
    let map = plan::map_for(mode, facts)?;
    inside(Entry::Map(&map), Powers::Files, || Ok(()))?;
    Ok(map)
}

/// Whether this process can make the very map that a box has `recorded`. Reads files only, and none where
/// inside root is this process itself: then newuidmap and the kernel make that very map or refuse, and a
/// run need not read the accounts of the machine before.
///
/// # Errors
/// A conflict fault if the ids of this process, or the ranges it is given, would put other owners on disk;
/// a host fault if a helper or a capability is missing. Both with the remedy.
pub fn check(recorded: &IdMap) -> Result<()> {
    let ours = (geteuid().as_raw(), getegid().as_raw());
    if matches!(recorded.mode, Mode::Single | Mode::Subuid) && recorded.root_owner() == ours {
        return Ok(());
    }
    plan::permits(recorded, &Facts::read()?)?;
    if recorded.mode == Mode::Subuid {
        Helpers::find()?;
    }
    Ok(())
}
