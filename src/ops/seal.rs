//! Digests of layers: made of an upper that is about to become a layer, or of layers that are there.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, Entry, Powers};
use crate::store::{DamageKind, LayerId, Store, Survey};
use crate::tree::manifest::{self, Difference};
use crate::tree::path;

use super::fsck::maps;

/// Writes the lines of `tree` to `file`, and gives what the disk cannot read. Runs inside; the file was opened
/// outside.
fn write(tree: BorrowedFd<'_>, file: &OwnedFd) -> Result<Vec<Difference>> {
    let file = file.try_clone().context("write", "manifest")?;
    let mut out = BufWriter::new(File::from(file));
    let written = manifest::write(tree, &mut out)?;
    out.flush().context("write", "manifest")?;
    Ok(written.unread)
}

/// The same for a tree that is about to become a layer, all of which can be read.
pub(super) fn write_whole(tree: BorrowedFd<'_>, file: &OwnedFd) -> Result<()> {
    match write(tree, file)?.into_iter().next() {
        None => Ok(()),
        Some(Difference { path, detail, .. }) => {
            let shown = printable(&path::shown(&path).to_string());
            Err(Fault::failed(format!("make digests: {shown}: {detail}")))
        }
    }
}

/// Makes digests of all `wanted` layers that have none and are whole, as far as can be told. What the disk cannot
/// read is added to the findings.
///
/// # Errors
/// Host or conflict if the id map of a layer cannot be made here; what reading and writing says.
pub(super) fn all(
    store: &Store,
    survey: &mut Survey,
    wanted: &dyn Fn(&LayerId) -> bool,
) -> Result<()> {
    let damaged = |id: &LayerId| survey.findings.iter().any(|one| one.damage.layer == Some(*id));
    let open: Vec<_> = survey
        .layers
        .iter()
        .filter(|(id, found)| !found.sealed && wanted(id) && !damaged(id))
        .map(|(id, _)| *id)
        .collect();
    for (map, layers) in maps(survey).group(store, &open)? {
        for id in layers {
            let Some(tree) = store.layer_tree(&id)? else { continue };
            let file = store.begin_seal(&id)?;
            let written =
                ids::inside(Entry::Map(&map), Powers::Files, || write(tree.as_fd(), &file));
            match written {
                Ok(unread) if unread.is_empty() => {}
                Ok(unread) => {
                    store.give_up_seal(&id);
                    for Difference { path, detail, .. } in unread {
                        survey.add_tree_damage(id, &path, DamageKind::Content, &detail);
                    }
                    continue;
                }
                Err(fault) => {
                    store.give_up_seal(&id);
                    return Err(fault);
                }
            }
            let lock = store.lock_shared()?;
            if !store.is_tree_of(&tree, &id)? {
                continue;
            }
            store.end_seal(&lock, &id)?;
            drop(lock);
            if let Some(found) = survey.layers.get_mut(&id) {
                found.sealed = true;
            }
        }
    }
    Ok(())
}
