//! A store that was made for an init that failed goes again.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, unlinkat};

use crate::store::Store;

/// The directories of a store, in an order such that one that is in use stops the removal before anything
/// is gone that others need.
const FOLDERS: [&str; 5] = ["runs", "layers", "boxes", "trash", "cache"];
/// Its files.
const FILES: [&str; 2] = ["format.json", "lock"];

/// What was there before the store was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    /// A store.
    Store,
    /// An empty directory.
    Directory,
    /// Nothing; nor were so many of the directories above it.
    Nothing(usize),
}

impl Fresh {
    /// Looks at the place of a store.
    pub(super) fn look(base_dir: &Path) -> Self {
        if fs::exists(base_dir.join(FILES[0])).unwrap_or(true) {
            Self::Store
        } else if base_dir.is_dir() {
            Self::Directory
        } else {
            let missing = |dir: &&Path| !fs::exists(dir).unwrap_or(true);
            Self::Nothing(base_dir.ancestors().skip(1).take_while(missing).count())
        }
    }

    /// Whether there was no store.
    pub(super) fn has_nothing(self) -> bool {
        self != Self::Store
    }

    /// Removes an empty store that was made since. Best effort: what stays is an empty store.
    pub(super) fn take_back(self, store: &Store) {
        if !self.has_nothing() {
            return;
        }
        // Nobody else starts anything meanwhile.
        let Ok(Some(_lock)) = store.try_lock_exclusive() else { return };
        let all = FOLDERS.iter().map(|name| (name, AtFlags::REMOVEDIR));
        let all = all.chain(FILES.iter().map(|name| (name, AtFlags::empty())));
        for (name, flags) in all {
            if unlinkat(store.dir(), *name, flags).is_err() {
                return;
            }
        }
        let Self::Nothing(above) = self else { return };
        for dir in store.path().ancestors().take(above + 1) {
            if unlinkat(CWD, dir, AtFlags::REMOVEDIR).is_err() {
                return;
            }
        }
    }
}
