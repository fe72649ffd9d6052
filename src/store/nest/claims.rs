//! What the store inside a run says of itself. Its payload could write anything there, so nothing is followed
//! or believed: each name is checked, each file is read beneath the directory, none is larger than it may be.
//! To be called inside, when the run is over.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::refs::Head;
use super::Lent;
use crate::fault::{Context, Fault, Result, printable};
use crate::store::{BoxName, LayerId, LayerRecord, RefRecord, SnapshotName, file, layout};

/// The largest record that is read.
const LARGEST: usize = 1 << 20;
/// The most snapshots, and the most layers.
const MOST: usize = 1000;
/// The most characters of a command line or a message that are taken over.
const LONGEST: usize = 4096;

/// What it says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The snapshots of the box that were not lent like this: the layer, and the message.
    pub names: BTreeMap<SnapshotName, (LayerId, Option<String>)>,
    /// The layers that these need and that were not lent.
    pub layers: BTreeMap<LayerId, Claim>,
    /// Whether head is at a layer that was not lent.
    pub head: Option<LayerId>,
}

/// What it says of one layer and what is not measured anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claim {
    /// The layer that it is a difference to.
    pub parent: LayerId,
    /// When it was made.
    pub created: Timestamp,
    /// The command that made it.
    pub argv: Vec<String>,
    /// Its exit code.
    pub exit: Option<i32>,
}

impl Claims {
    /// Reads what `nest` says of this box.
    ///
    /// # Errors
    /// Failed, naming the file, if it says what cannot be; what the system calls say.
    pub fn read(nest: BorrowedFd<'_>, name: &BoxName, lent: &Lent) -> Result<Self> {
        let mut claims = Self::default();
        let Some(home) = folder(nest, &[layout::BOXES, name.as_str()])? else { return Ok(claims) };
        let head = record::<Head>(home.as_fd(), "head")?.unwrap_or_default().head;
        claims.head = head.filter(|layer| !lent.layers.contains(layer));
        if let Some(refs) = folder(home.as_fd(), &["refs"])? {
            claims.read_names(refs.as_fd(), lent)?;
        }
        let Some(layers) = folder(nest, &[layout::LAYERS])? else { return Ok(claims) };
        let tips: Vec<_> = claims.names.values().map(|(layer, _)| *layer).collect();
        tips.into_iter().try_for_each(|tip| claims.read_chain(layers.as_fd(), tip, lent))?;
        Ok(claims)
    }

    fn read_names(&mut self, refs: BorrowedFd<'_>, lent: &Lent) -> Result<()> {
        let names = file::names(refs).context("read inner store", "refs")?;
        // A move that was cut off; the name it was to have is there or is not.
        let names = names.iter().filter(|name| !name.starts_with(layout::UNFINISHED));
        for text in names {
            let name: SnapshotName = text.parse().map_err(|_| strange("a snapshot", text))?;
            let Some(found) = record::<RefRecord>(refs, text)? else { continue };
            if lent.names.get(&name) != Some(&found.layer) {
                self.names.insert(name, (found.layer, found.message.as_deref().map(tame)));
            }
            if self.names.len() > MOST {
                return Err(too_many("snapshots"));
            }
        }
        Ok(())
    }

    /// The layers beneath one, down to one that was lent or is known: by their parents or, where gc has taken one of these
    /// because a fold layer stands for it, as they are mounted.
    fn read_chain(&mut self, layers: BorrowedFd<'_>, tip: LayerId, lent: &Lent) -> Result<()> {
        let mut chain: Vec<(LayerId, LayerRecord, LayerId)> = Vec::new();
        let (mut layer, mut seen) = (tip, BTreeSet::new());
        // A circle ends, too.
        while !self.is_known(&layer, lent) && seen.insert(layer) {
            if layer != tip && folder(layers, &[layer.as_str()])?.is_none() {
                let mount = chain.first().map(|(_, record, _)| record.mount.clone());
                chain = self.as_mounted(layers, &mount.unwrap_or_default(), &layer, lent)?;
                break;
            }
            let found = found(layers, &layer)?;
            let parent = found.parent.filter(|_| found.folds.is_empty());
            let parent = parent.ok_or_else(|| strange("the record of a layer", layer.as_str()))?;
            chain.push((layer, found, parent));
            layer = parent;
            if self.layers.len() + chain.len() > MOST {
                return Err(too_many("layers"));
            }
        }
        for (layer, found, parent) in chain {
            self.layers.insert(layer, claim(found, parent));
        }
        Ok(())
    }

    fn is_known(&self, layer: &LayerId, lent: &Lent) -> bool {
        lent.layers.contains(layer) || self.layers.contains_key(layer)
    }

    /// The members of `mount` that are not known, each on the one below it, a fold layer being a layer like others. One of
    /// them must stand for the layer that is `gone`.
    fn as_mounted(
        &self,
        layers: BorrowedFd<'_>,
        mount: &[LayerId],
        gone: &LayerId,
        lent: &Lent,
    ) -> Result<Vec<(LayerId, LayerRecord, LayerId)>> {
        let (mut chain, mut stands) = (Vec::new(), false);
        for pair in mount.windows(2).rev() {
            let (below, layer) = (pair[0], pair[1]);
            if self.is_known(&layer, lent) {
                stands |= self.layers.contains_key(&layer);
                break;
            }
            let found = found(layers, &layer)?;
            if found.parent.is_none() == found.folds.is_empty() {
                return Err(strange("the record of a layer", layer.as_str()));
            }
            stands |= found.folds.contains(gone);
            chain.push((layer, found, below));
            if self.layers.len() + chain.len() > MOST {
                return Err(too_many("layers"));
            }
        }
        if stands { Ok(chain) } else { Err(is_gone(gone)) }
    }
}

fn is_gone(layer: &LayerId) -> Fault {
    Fault::failed(format!("read inner store: layer {layer}: it is not there"))
        .hint("what a snapshot was made on must be in the inner store, or in this one")
}

/// The record of a layer inside, which may lie but is in form.
fn found(layers: BorrowedFd<'_>, layer: &LayerId) -> Result<LayerRecord> {
    let gone = || is_gone(layer);
    let dir = folder(layers, &[layer.as_str()])?.ok_or_else(gone)?;
    let found: LayerRecord = record(dir.as_fd(), "layer.json")?.ok_or_else(gone)?;
    match found.id == *layer && found.is_sound() {
        true => Ok(found),
        false => Err(strange("the record of a layer", layer.as_str())),
    }
}

fn claim(found: LayerRecord, parent: LayerId) -> Claim {
    let mut room = LONGEST;
    let word = |word: &String| {
        let word: String = tame(word).chars().take(room).collect();
        room -= word.chars().count();
        word
    };
    let argv = found.argv.iter().take(LONGEST).map(word).collect();
    Claim { parent, created: found.created, argv, exit: found.exit }
}

/// A directory beneath another one, through no symlink; none if it is not there.
pub(super) fn folder(dir: BorrowedFd<'_>, names: &[&str]) -> Result<Option<OwnedFd>> {
    let mut found: Option<OwnedFd> = None;
    for name in names {
        let from = found.as_ref().map_or(dir, AsFd::as_fd);
        found = match file::open_dir(from, name) {
            Ok(next) => Some(next),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(strange("a directory", name)),
            Err(errno) => return Err(Fault::errno("read inner store", name, errno)),
        };
    }
    Ok(found)
}

fn record<T: DeserializeOwned>(dir: BorrowedFd<'_>, name: &str) -> Result<Option<T>> {
    match file::read_small(dir, name, LARGEST) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(_) => Err(strange("a record", name)),
        },
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::FBIG | Errno::ISDIR | Errno::NXIO) => {
            Err(strange("a record", name))
        }
        Err(errno) => Err(Fault::errno("read inner store", name, errno)),
    }
}

/// Text for people, without what drives a terminal and not too long.
fn tame(text: &str) -> String {
    printable(text).chars().take(LONGEST).collect()
}

pub(super) fn strange(what: &str, name: &str) -> Fault {
    Fault::failed(format!(
        "read inner store: {}: it is not {what} as sandbox writes it",
        printable(name)
    ))
}

fn too_many(what: &str) -> Fault {
    Fault::failed(format!("read inner store: {what}: there are more than {MOST}"))
}
