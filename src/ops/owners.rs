//! What a run remembers of owners and devices, on its way into the layer that it becomes.

use std::os::fd::{AsFd, BorrowedFd};

use crate::fault::Result;
use crate::ids::{IdMap, Mode};
use crate::store::{LayerId, Run, RunRecord, Store};
use crate::tree::gather::{Sources, gather, journal_of, links};
use crate::tree::meta::Journal;
use crate::tree::owners::{self, Remembered};
use crate::tree::recall::Recall;

/// What is known before the upper is looked at. Read outside; used inside.
#[derive(Debug)]
pub(super) struct Memory {
    map: IdMap,
    /// What each layer beneath remembers, top first.
    theirs: Vec<Vec<Remembered>>,
    journal: Journal,
    /// Whether its files tell of nothing that they do not have from beneath.
    plain: bool,
}

impl Memory {
    /// What a run and the layers it is mounted on remember; `fresh` is the journal of its last command. None if
    /// nothing can be remembered in its upper.
    pub(super) fn of_run(
        store: &Store,
        run: &Run,
        record: &RunRecord,
        fresh: &[u8],
    ) -> Result<Option<Self>> {
        let journal = Journal::parse(&[&run.journal()?, fresh].concat());
        let theirs = of_layers(store, record.chain.iter().rev())?;
        let map = record.id_map.clone();
        let memory = Self { map, theirs, journal, plain: record.plain };
        Ok(memory.is_needed().then_some(memory))
    }

    /// What layers that are folded remember; topmost first.
    pub(super) fn of_folded(store: &Store, map: &IdMap, layers: &[LayerId]) -> Result<Self> {
        let theirs = of_layers(store, layers.iter())?;
        Ok(Self { map: map.clone(), theirs, journal: Journal::default(), plain: false })
    }

    /// What a layer of another store says that it remembers.
    pub(super) fn claimed(map: &IdMap, known: Vec<Remembered>) -> Self {
        Self { map: map.clone(), theirs: vec![known], journal: Journal::default(), plain: false }
    }

    /// Reads it from that layer, of which only what is there counts. To be called inside.
    pub(super) fn gather_claimed(&self, place: BorrowedFd<'_>) -> Result<Vec<Remembered>> {
        self.gather_folded(place, &[place])
    }

    fn is_needed(&self) -> bool {
        self.map.mode == Mode::Single || !self.journal.is_empty() || self.knows_more()
    }

    fn knows_more(&self) -> bool {
        self.theirs.iter().any(|known| !known.is_empty())
    }

    /// Reads it from the tree of a run, on the layers beneath. To be called inside.
    pub(super) fn gather(
        &self,
        upper: BorrowedFd<'_>,
        beneath: &[BorrowedFd<'_>],
    ) -> Result<Vec<Remembered>> {
        let owner = |entry: &Remembered| entry.device.is_none();
        let all = self.map.mode == Mode::Single
            || !self.journal.is_empty()
            || self.theirs.iter().flatten().any(owner);
        let (theirs, journal, map) = (&self.theirs, &self.journal, &self.map);
        let plain = self.plain;
        gather(upper, &Sources { beneath, theirs, journal, map, all, plain })
    }

    /// What is remembered in the tree of a run, for the handler of another command there: by the numbers that its files
    /// show from now on. (What was copied up may have shown another one before.) To be called inside.
    pub(super) fn resumed(
        &self,
        upper: BorrowedFd<'_>,
        beneath: &[BorrowedFd<'_>],
    ) -> Result<Journal> {
        let (theirs, journal, map) = (&self.theirs, &self.journal, &self.map);
        links(upper, &Sources { beneath, theirs, journal, map, all: false, plain: self.plain })
    }

    /// Whether only a journal tells of something.
    pub(super) fn has_entries(&self) -> bool {
        !self.journal.has_no_entries()
    }

    /// Reads it from a fold layer, whose files are those of `layers`, topmost first. To be called inside.
    pub(super) fn gather_folded(
        &self,
        place: BorrowedFd<'_>,
        layers: &[BorrowedFd<'_>],
    ) -> Result<Vec<Remembered>> {
        if !self.knows_more() {
            return Ok(Vec::new());
        }
        let mut journal = Journal::default();
        for (layer, known) in layers.iter().zip(&self.theirs) {
            journal_of(*layer, known, &mut journal)?;
        }
        let (map, journal) = (&self.map, &journal);
        let (all, plain) = (true, false);
        gather(place, &Sources { beneath: &[], theirs: &[], journal, map, all, plain })
    }
}

/// What is remembered in a view. Read outside; used inside.
#[derive(Debug)]
pub(super) enum Known {
    /// By its layers, top first.
    Layers(Vec<Vec<Remembered>>),
    /// By a run that is its top, and the layers beneath it; none if nothing is.
    Run(Option<Memory>),
}

impl Known {
    /// Of these layers, top first.
    pub(super) fn of_layers<'a>(
        store: &Store,
        layers: impl Iterator<Item = &'a LayerId>,
    ) -> Result<Self> {
        of_layers(store, layers).map(Self::Layers)
    }

    /// Of an ended run; `fresh` is the journal of its last command.
    pub(super) fn of_run(
        store: &Store,
        run: &Run,
        record: &RunRecord,
        fresh: &[u8],
    ) -> Result<Self> {
        Memory::of_run(store, run, record, fresh).map(Self::Run)
    }

    /// Makes it useful: `layers` are those of the view, top first. What is read from the tree of a run goes to `read`.
    /// What a commit would not believe is not believed here either. To be called inside.
    pub(super) fn recall<'a>(
        &'a self,
        layers: Vec<BorrowedFd<'a>>,
        read: &'a mut Vec<Remembered>,
    ) -> Result<Recall<'a>> {
        let known = match self {
            Self::Run(None) => return Ok(Recall::default()),
            Self::Layers(known) => known.iter().map(Vec::as_slice).collect(),
            Self::Run(Some(memory)) => {
                if let Some((upper, beneath)) = layers.split_first() {
                    *read = memory.gather(*upper, beneath)?;
                }
                let read: &'a [Remembered] = read;
                let theirs = memory.theirs.iter().map(Vec::as_slice);
                std::iter::once(read).chain(theirs).collect()
            }
        };
        Ok(Recall::new(layers, known))
    }
}

/// What each of these layers remembers.
pub(super) fn of_layers<'a>(
    store: &Store,
    layers: impl Iterator<Item = &'a LayerId>,
) -> Result<Vec<Vec<Remembered>>> {
    layers
        .map(|id| match store.layer_owners(id)? {
            Some(bytes) => owners::read(&mut &bytes[..]),
            None => Ok(Vec::new()),
        })
        .collect()
}

/// The file `owners`; none if nothing is remembered.
pub(super) fn file(entries: &[Remembered]) -> Result<Option<Vec<u8>>> {
    if entries.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    owners::write(entries, &mut bytes)?;
    Ok(Some(bytes))
}

/// The layers that lie beneath an upper, of which it is the first.
pub(super) fn beneath<'a>(layers: &'a [impl AsFd]) -> Vec<BorrowedFd<'a>> {
    layers.iter().skip(1).map(AsFd::as_fd).collect()
}
