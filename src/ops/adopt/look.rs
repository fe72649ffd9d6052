//! A tree of the store inside, on its way in.

use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Kind, Result};
use crate::ops::owners::Memory;
use crate::store::{LayerId, RunRecord, claimed_owners, reached, take_tree};
use crate::tree::measure::measure_strange;
use crate::tree::owners::Remembered;
use crate::tree::{self, Totals};

/// A tree on its way in, and what it was found to hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tree {
    pub(super) totals: Totals,
    pub(super) remembered: Vec<Remembered>,
}

/// Inside: fetches the tree of a layer and looks at all of it.
pub(super) fn look(
    nest: BorrowedFd<'_>,
    layer: &LayerId,
    stage: BorrowedFd<'_>,
    record: &RunRecord,
) -> Result<Tree> {
    let dir = take_tree(nest, layer, stage, &mut reached)?;
    let totals = measure_strange(dir.as_fd())?;
    let claimed = match claimed_owners(nest, layer)? {
        Some(bytes) => tree::owners::read(&mut &bytes[..]).map_err(|fault| Fault {
            // It is not this store that is damaged.
            kind: Kind::Failed,
            ..fault
        })?,
        None => Vec::new(),
    };
    let remembered = Memory::claimed(&record.id_map, claimed).gather_claimed(dir.as_fd())?;
    Ok(Tree { totals, remembered })
}
