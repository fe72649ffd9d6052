//! The disk budget: commits are refused before a disk is full, when there is still room to mend it.

use crate::fault::{Fault, Result};
use crate::store::{Limit, Load, Store};

/// A variable of the environment: `off` leaves the budget out of account, for tests and rescue.
const VARIABLE: &str = "SANDBOX_BUDGET";

/// Before something is kept: refuses if there is too little room left, else gives a line to tell if there
/// will be soon.
///
/// # Errors
/// Host if the budget is used up; damaged if the settings of the store cannot be read.
pub fn check(store: &Store) -> Result<Option<String>> {
    if std::env::var_os(VARIABLE).is_some_and(|value| value == "off") {
        return Ok(None);
    }
    let budget = store.budget()?;
    let load = store.load(&budget)?;
    let (warn, refuse) = (u64::from(budget.warn), u64::from(budget.refuse));
    let full = full(&load);
    if refuse < 100 && load.percent >= refuse {
        let more = match load.of {
            Limit::Size if load.percent >= 100 => "--budget SIZE",
            _ => "--refuse 95",
        };
        return Err(Fault::host(format!(
            "keep changes: {}: {full}, and nothing new is kept from {refuse} % on",
            store.path().display()
        ))
        .hint(format!(
            "remove snapshots (`sandbox rm`), then `sandbox gc --all`; or allow more: `sandbox df {more}`"
        )));
    }
    Ok((load.percent >= warn)
        .then(|| format!("warning: {full}; from {refuse} % on nothing new is kept: `sandbox gc`")))
}

fn full(load: &Load) -> String {
    let percent = load.percent;
    match load.of {
        Limit::Size => format!("{percent} % of the budget of the store is used"),
        Limit::Blocks => format!("{percent} % of the file system is used"),
        Limit::Inodes => format!("{percent} % of the inodes of the file system are used"),
    }
}
