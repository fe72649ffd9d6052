//! Names for layers.

use serde::Serialize;

use crate::fault::{Fault, Result};
use crate::store::{
    BoxName, Expected, LayerId, LogEntry, RefRecord, SnapshotName, SnapshotRef, State, Store,
};

/// What is asked of a name.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name.
    pub name: SnapshotName,
    /// What to say about it; none leaves what was said, an empty text takes it away.
    pub message: Option<String>,
    /// Whether it shall be protected; none leaves it as it is, and a new one unprotected.
    pub protect: Option<bool>,
    /// Whether a name that stands for another layer is moved.
    pub force: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// It is a new name.
    Created,
    /// It stood for another layer before.
    Moved,
    /// It stands for the same layer; current, its protection or its message changed.
    Changed,
    /// All was as asked for already.
    Unchanged,
}

/// A name and its layer.
#[derive(Debug, Serialize)]
pub struct Named {
    /// The box.
    #[serde(rename = "box")]
    pub box_name: BoxName,
    /// The name.
    pub name: SnapshotName,
    /// The layer it stands for.
    pub layer: LayerId,
    /// Whether it is protected.
    pub protected: bool,
    /// What was done.
    pub done: Done,
}

/// Names the head of a box and makes it current. No layer is made: several names may stand for one. For a
/// name that there is already and that stands for another layer, only its protection can be changed, unless
/// `force` moves it.
///
/// # Errors
/// Conflict if the name is taken, or protected and to be moved; not found without a box, without a head, and
/// for a protection to take away from a name that is not there.
pub fn snapshot(store: &Store, box_name: &BoxName, request: &Request) -> Result<Named> {
    let lock = store.lock_shared()?;
    store.open_box(box_name)?.update(&lock, |state| {
        let found = state.get(&request.name)?;
        let head = state.head().ok_or_else(|| no_head(box_name))?;
        let here = found.as_ref().is_none_or(|found| found.layer == head);
        let record = wanted(request, found.as_ref(), head, here, box_name)?;
        let mut done = match &found {
            None => Done::Created,
            Some(found) if found.layer != record.layer => Done::Moved,
            Some(found) if found.record() != record => Done::Changed,
            Some(_) => Done::Unchanged,
        };
        if (here || request.force) && state.current() != Some(head) {
            make_current(state, &head)?;
            done = if done == Done::Unchanged { Done::Changed } else { done };
        }
        let named = Named {
            box_name: box_name.clone(),
            name: request.name.clone(),
            layer: record.layer,
            protected: record.protected,
            done,
        };
        state.put(&request.name, record)?;
        state.log(LogEntry { name: Some(request.name.clone()), ..LogEntry::new("snapshot") });
        Ok(named)
    })
}

/// What the name shall be.
fn wanted(
    request: &Request,
    found: Option<&SnapshotRef>,
    head: LayerId,
    here: bool,
    box_name: &BoxName,
) -> Result<RefRecord> {
    let name = &request.name;
    let said = |message: Option<&String>| message.filter(|text| !text.is_empty()).cloned();
    let new = || RefRecord::new(head, said(request.message.as_ref()));
    let Some(found) = found else {
        if request.protect == Some(false) {
            return Err(Fault::not_found(format!("unprotect snapshot: {name}: there is none"))
                .hint(format!("`sandbox list --box {box_name}` shows all")));
        }
        let protected = request.protect.unwrap_or_default();
        return Ok(RefRecord { protected, ..new() });
    };
    let protected = request.protect.unwrap_or(found.protected);
    if here || (request.protect.is_some() && !request.force) {
        let message = said(request.message.as_ref().or(found.message.as_ref()));
        return Ok(RefRecord { protected, message, ..found.record() });
    }
    if !request.force {
        return Err(taken(box_name, name).hint(format!(
            "choose another name, or move this one: `sandbox snapshot {name} --force --box {box_name}`"
        )));
    }
    if found.protected && protected {
        return Err(Fault::conflict(format!("move snapshot: {name}: it is protected")).hint(
            format!("take that away first: `sandbox snapshot {name} --unprotect --box {box_name}`"),
        ));
    }
    Ok(RefRecord { protected, ..new() })
}

/// Makes a layer current, whatever was.
pub(super) fn make_current(state: &mut State<'_>, layer: &LayerId) -> Result<()> {
    let old = state.current().map_or(Expected::Absent, Expected::Layer);
    state.set_current(layer, old)
}

/// Refuses a name that a snapshot of the box has already, before anything is done for it.
///
/// # Errors
/// Conflict if it is taken; not found without the box.
pub fn refuse_taken(store: &Store, box_name: &BoxName, name: &SnapshotName) -> Result<()> {
    match store.open_box(box_name)?.get(name)? {
        None => Ok(()),
        Some(_) => Err(taken(box_name, name)),
    }
}

pub(super) fn taken(box_name: &BoxName, name: &SnapshotName) -> Fault {
    Fault::conflict(format!("snapshot {name}: exists already")).hint(free_it(box_name, name))
}

/// How a name that is taken can be had. The one that `scrub` returns to is not for others.
pub(super) fn free_it(box_name: &BoxName, name: &SnapshotName) -> String {
    if name.as_str() == super::init::POSTINIT {
        return format!(
            "choose another name; `sandbox init {box_name} --refresh` makes `{name}` anew"
        );
    }
    format!("choose another name, or remove it first: `sandbox rm {name} --box {box_name}`")
}

/// A box without a head has not been filled.
pub(super) fn no_head(box_name: &BoxName) -> Fault {
    Fault::not_found(format!("box {box_name}: has no head"))
        .hint(format!("`sandbox init {box_name} --from SOURCE`"))
}
