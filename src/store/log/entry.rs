//! What a line of the log says.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::{LayerId, MoveId, RefRecord, SnapshotName};

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When.
    pub time: Timestamp,
    /// The command that moved something: `init`, `run`, `snapshot`, `rollback`, `clean`, `rm`, `rename`,
    /// `undo`, `recover`, `scrub`.
    pub action: String,
    /// What the name, else head, else current was before; none if several names were moved.
    #[serde(default)]
    pub old: Option<LayerId>,
    /// What it is now.
    #[serde(default)]
    pub new: Option<LayerId>,
    /// The snapshot that was moved, or moved to, if it was one.
    #[serde(default)]
    pub name: Option<SnapshotName>,
    /// The command inside, of a run.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The layer that was made, if one was.
    #[serde(default)]
    pub layer: Option<LayerId>,
    /// Which move it is. None of an entry that does not say what was before.
    #[serde(default, rename = "move", skip_serializing_if = "Option::is_none")]
    pub id: Option<MoveId>,
    /// Head before and after, if it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Pair>,
    /// Current before and after, if it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Pair>,
    /// The names that were given, moved or taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<RefMoved>,
    /// The move that this one takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<MoveId>,
}

/// A layer before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Before.
    pub old: Option<LayerId>,
    /// After.
    pub new: Option<LayerId>,
}

/// A name before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefMoved {
    /// The name.
    pub name: SnapshotName,
    /// What it was before; none if it was not there.
    pub old: Option<RefRecord>,
    /// What it is after.
    pub new: Option<RefRecord>,
}

impl RefMoved {
    /// The layers only.
    pub fn layers(&self) -> Pair {
        let layer = |record: &Option<RefRecord>| record.as_ref().map(|record| record.layer);
        Pair { old: layer(&self.old), new: layer(&self.new) }
    }
}

/// What moved from where to where: a name, `head` or `current`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The name of a snapshot, `head` or `current`, which are no names of snapshots.
    pub name: String,
    /// The layer before; none if there was none.
    pub old: Option<LayerId>,
    /// The layer after; the same if only protection or message changed.
    pub new: Option<LayerId>,
}

/// So many bytes of a command are in the log, which one of a megabyte would leave no room for others in. All of it is in the
/// record of the layer.
const COMMAND: usize = 16 << 10;

impl LogEntry {
    /// The same with as many words of its command as there is room for.
    pub(in crate::store) fn shortened(mut self) -> Self {
        let mut left = COMMAND;
        let fits = |word: &&String| {
            let room = left.checked_sub(word.len() + 1);
            left = room.unwrap_or(0);
            room.is_some()
        };
        let words = self.argv.iter().take_while(fits).count();
        if words < self.argv.len() {
            self.argv.truncate(words);
            self.argv.push("...".to_owned());
        }
        self
    }

    /// An entry of now that says only what was done.
    pub fn new(action: &str) -> Self {
        Self {
            time: Timestamp::now(),
            action: action.to_owned(),
            old: None,
            new: None,
            name: None,
            argv: Vec::new(),
            layer: None,
            id: None,
            head: None,
            current: None,
            refs: Vec::new(),
            undoes: None,
        }
    }

    /// How long ago it was; nothing if the clock was set back since.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.time)).unwrap_or_default()
    }

    /// All that it changed: names in their order, then head, then current.
    pub fn moved(&self) -> Vec<Moved> {
        let refs = self.refs.iter().map(|one| (one.name.to_string(), one.layers()));
        let heads = [("head", self.head), ("current", self.current)];
        let heads = heads.into_iter().filter_map(|(name, pair)| Some((name.to_owned(), pair?)));
        refs.chain(heads).map(|(name, Pair { old, new })| Moved { name, old, new }).collect()
    }

    /// The layers that were there before it, which `undo` needs. Not those after it: what a killed command
    /// did not come to name is not needed.
    pub(crate) fn layers_before(&self) -> impl Iterator<Item = LayerId> {
        let refs = self.refs.iter().map(RefMoved::layers);
        let pairs = refs.chain(self.head).chain(self.current);
        std::iter::once(self.old).chain(pairs.map(|pair| pair.old)).flatten()
    }

    /// All layers it names.
    pub(crate) fn layers(&self) -> impl Iterator<Item = LayerId> {
        let pairs = self.refs.iter().map(RefMoved::layers).chain(self.head).chain(self.current);
        let moved = pairs.flat_map(|pair| [pair.old, pair.new]);
        [self.old, self.new, self.layer].into_iter().chain(moved).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_leaves_room_for_others() {
        let entry = |argv: &[&str]| {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            LogEntry { argv, ..LogEntry::new("run") }.shortened().argv
        };
        assert_eq!(entry(&["make", "-j", "4"]), ["make", "-j", "4"]);
        let long = "x".repeat(COMMAND);
        assert_eq!(entry(&["make", &long, "all"]), ["make", "..."]);
        assert_eq!(entry(&[&long]), ["..."]);
        assert!(entry(&[]).is_empty());
        assert_eq!(entry(&["x"; COMMAND]).len(), COMMAND / 2 + 1);
    }
}
