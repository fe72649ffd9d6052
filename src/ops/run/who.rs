//! Who the command is, and what `--as-user` changes: the ordinary user may have to be made known, has a home, and is
//! the caller himself where the map holds nobody else.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use super::RunOptions;
use crate::fault::{Fault, Result};
use crate::ids::{self, Entry, IdMap, Mode, ORDINARY, Powers};
use crate::rootfs::scaffold;
use crate::run::spec::Ordinary;
use crate::run::user::{self, User, Who};

/// The user by number or name; inside root if none.
pub(super) fn user(options: &RunOptions) -> Result<Option<User>> {
    if options.as_user {
        let (user, group) = (Who::Id(ORDINARY), Some(Who::Id(ORDINARY)));
        return Ok(Some(User { user, group }));
    }
    options.user.as_deref().map(user::parse).transpose()
}

/// What the payload's process needs of it. A working directory that was asked for stays.
pub(super) fn ordinary(options: &RunOptions) -> Option<Ordinary> {
    options.as_user.then(|| Ordinary { at_home: options.workdir.is_none(), home: None })
}

/// The ids as the command will know them.
pub(super) fn map(map: &IdMap, as_user: bool) -> Cow<'_, IdMap> {
    if as_user { Cow::Owned(map.known_as(ORDINARY)) } else { Cow::Borrowed(map) }
}

/// Whether the command is told that it became another user, because there is only root.
pub(super) fn pretends(map: &IdMap, as_user: bool) -> bool {
    map.mode == Mode::Single && !as_user
}

/// Whether owners and devices that the map does not hold are remembered. An ordinary user sets none, and where there
/// is nobody else the kernel tells him so.
pub(super) fn remembers(map: &IdMap, as_user: bool) -> bool {
    !as_user || map.mode != Mode::Single
}

/// The name of the scaffold of a run, with a home for an ordinary user. It is made where there is a `cache` for it.
pub(super) fn scaffold(
    cache: Option<BorrowedFd<'_>>,
    places: &[(PathBuf, bool)],
    map: &IdMap,
    as_user: bool,
) -> Result<String> {
    if !as_user {
        return scaffold::ensure(cache, places, map.root_owner());
    }
    let inside = self::map(map, true);
    let (Some(uid), Some(gid)) = (inside.uid_outside(ORDINARY), inside.gid_outside(ORDINARY))
    else {
        return Err(Fault::usage(format!("--as-user: the id map does not hold {ORDINARY}")));
    };
    scaffold::ensure_with_home(cache, places, map.root_owner(), (uid, gid), |make| match map.mode {
        // The caller may not give files to an id of his range; root inside may.
        Mode::Subuid => {
            ids::inside(Entry::Map(map), Powers::Files, || make((0, 0), (ORDINARY, ORDINARY)))
        }
        Mode::Single | Mode::Range | Mode::Identity => make(map.root_owner(), (uid, gid)),
    })
}
