//! `profile list|show|check`.

use std::path::Path;

use serde::Serialize;

use crate::fault::{Fault, Result, printable};
use crate::isolate::caps::CapSet;
use crate::isolate::change::Changes;
use crate::isolate::profile::{Network, Profile, Root, Tmp, read_text};
use crate::isolate::seccomp::{self, Request};
use crate::isolate::vital;

/// A built-in profile.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The capabilities that the command keeps.
    pub capabilities: Vec<String>,
    /// The network that it sees.
    pub network: Network,
    /// What happens to the root.
    pub root: Root,
    /// Where /tmp is.
    pub tmp: Tmp,
    /// Whether what the id map cannot hold is remembered.
    pub remember_ids: bool,
    /// Whether a sandbox may be asked for inside.
    pub nesting: bool,
}

/// The built-in profiles.
///
/// # Errors
/// None that a user could meet: they are tested.
pub fn list() -> Result<Vec<Listed>> {
    Profile::builtin_names()
        .map(|name| Profile::builtin(name).map(|profile| listed(&profile)))
        .collect()
}

fn listed(profile: &Profile) -> Listed {
    Listed {
        name: profile.name().to_owned(),
        description: profile.description.clone(),
        capabilities: profile.capabilities.names(),
        network: profile.network,
        root: profile.root,
        tmp: profile.tmp,
        remember_ids: profile.remember_ids,
        nesting: profile.nesting,
    }
}

/// The text of a profile, built in or a file: JSON.
///
/// # Errors
/// `usage` for one that is not there or cannot be right; `not-found` for a file.
pub fn show(name: &str) -> Result<String> {
    Ok(Profile::named(name)?.text().to_owned())
}

/// A file that can be used.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The file.
    pub file: String,
    /// `profile` for `run --profile`, `seccomp` for `run --seccomp`.
    pub kind: &'static str,
    /// How many system calls of this machine it allows without a look at their arguments, at least; a seccomp
    /// file with the capabilities of the profile `build`.
    pub allowed: usize,
    /// What is passed over, in words.
    pub notes: Vec<String>,
}

/// Checks a profile or a seccomp file: all that a run would refuse is refused here.
///
/// # Errors
/// `usage` that says what is wrong; `not-found` without the file.
pub fn check(file: &Path) -> Result<Checked> {
    let shown = file.to_string_lossy().into_owned();
    let text = read_text("profile", file)?;
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Fault::usage(format!("profile: {}: {error}", printable(&shown))))?;
    if json.get("defaultAction").is_none() {
        return checked(shown, "profile", &Profile::load(file)?);
    }
    let path = file.to_str().ok_or_else(|| {
        Fault::usage(format!("seccomp file: {}: the name is not UTF-8", printable(&shown)))
    })?;
    let with = |profile: &str, cap_add: &[&str]| {
        let cap_add = cap_add.iter().map(ToString::to_string).collect();
        let seccomp = Some(if path == "none" { "./none" } else { path }.to_owned());
        Changes { cap_add, cap_drop: Vec::new(), seccomp }.apply(Profile::builtin(profile)?)
    };
    // Rules for other capabilities must be right, too.
    for profile in [with("build", &["ALL"])?, with("strict", &[])?] {
        debug_assert!(
            profile.capabilities == CapSet::NONE || profile.capabilities == CapSet::all()
        );
        seccomp::compiled(&profile, &Request::default())?;
    }
    checked(shown, "seccomp", &with("build", &[])?)
}

fn checked(file: String, kind: &'static str, profile: &Profile) -> Result<Checked> {
    let program = seccomp::compiled(profile, &Request::default())?;
    let (allowed, mut notes) = (seccomp::allowed(&program), profile.notes().to_vec());
    let unrefused = |name: &String| format!("seccomp: {name}: unknown system call, NOT refused");
    notes.extend(profile.unrefused().iter().map(unrefused));
    notes.extend(vital::notes(&program));
    Ok(Checked { file, kind, allowed, notes })
}
