//! Which boxes have changed since they were read: by inotify(7), which tells of every change on this machine
//! (there are no others: network file systems are refused), whoever makes it and in whatever namespace.
//! Times of files would not do: a change within one tick of the clock leaves them as they are.
//!
//! An event is in the queue before the system call that causes it returns. Whoever moves names holds the
//! store lock shared; so under the exclusive one nothing is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::store::{BoxName, SnapshotName, Store, file, layout};

/// Room for some hundred events; there may be more, this is read again and again.
const BUFFER: usize = 16 << 10;

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// These, all of which may be new, or gone.
    These {
        /// All of these boxes.
        whole: BTreeSet<BoxName>,
        /// Head or log of these boxes.
        moves: BTreeSet<BoxName>,
        /// These names.
        refs: BTreeSet<(BoxName, SnapshotName)>,
    },
    /// It cannot be told.
    Perhaps,
}

/// Eyes on boxes.
pub(super) struct Watch<'s> {
    store: &'s Store,
    /// None if this machine gives us none (any more).
    queue: Option<OwnedFd>,
    /// What the watched directories are.
    watched: BTreeMap<i32, Place>,
}

enum Place {
    All,
    Box(BoxName),
    Refs(BoxName),
}

impl<'s> Watch<'s> {
    /// Begins to watch which boxes there are.
    pub(super) fn new(store: &'s Store) -> Self {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        let mut watch = Self { store, queue, watched: BTreeMap::new() };
        watch.look_at(layout::BOXES, Place::All);
        watch
    }

    /// Begins to watch a box, before it is read.
    pub(super) fn look_at_box(&mut self, name: &BoxName) {
        self.look_at(&layout::boxed(name), Place::Box(name.clone()));
        self.look_at(&layout::refs(name), Place::Refs(name.clone()));
    }

    fn look_at(&mut self, folder: &str, place: Place) {
        let Some(queue) = &self.queue else { return };
        let mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::MOVE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        // By its descriptor: a path could lead elsewhere by now.
        let added = file::open_dir(self.store.dir(), folder).and_then(|dir| {
            inotify::add_watch(queue, format!("/proc/self/fd/{}", dir.as_raw_fd()), mask)
        });
        match added {
            Ok(number) => drop(self.watched.insert(number, place)),
            // Gone since its name was read, which the directory above has seen.
            Err(Errno::NOENT) if !matches!(place, Place::All) => {}
            // Too many watches, or no /proc.
            Err(_) => self.queue = None,
        }
    }

    /// What has changed since it was last asked.
    pub(super) fn changed(&mut self) -> Changed {
        let (mut whole, mut moves, mut refs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let Some(queue) = &self.queue else { return Changed::Perhaps };
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = Reader::new(queue.as_fd(), &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    return Changed::Perhaps;
                }
                Ok(event) => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    match self.watched.get(&event.wd()) {
                        // A box that came or went; or something that is none.
                        Some(Place::All) => whole.extend(name.and_then(|name| name.parse().ok())),
                        Some(Place::Box(name)) => drop(moves.insert(name.clone())),
                        Some(Place::Refs(of)) => {
                            let name = name.and_then(|name| name.parse().ok());
                            refs.extend(name.map(|name| (of.clone(), name)));
                        }
                        None => {}
                    }
                }
                Err(Errno::AGAIN) => return Changed::These { whole, moves, refs },
                Err(Errno::INTR) => {}
                Err(_) => return Changed::Perhaps,
            }
        }
    }
}
