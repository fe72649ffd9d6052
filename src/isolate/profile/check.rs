//! What is refused in a profile when it is read, and what is told of it.

use std::path::{Path, PathBuf};

use super::{Environment, Settings};
use crate::fault::{Fault, Result, printable};
use crate::isolate::compile;
use crate::isolate::filter::Seccomp;

/// Checks what is no rule for system calls.
///
/// # Errors
/// `usage` for what cannot be meant.
pub(super) fn settings(settings: &Settings) -> Result<()> {
    let root = |paths: &[PathBuf]| paths.iter().any(|path| path == Path::new("/"));
    // A mask on the root could be seen by nobody, and what is read-only there has a setting of its own.
    for (name, paths) in
        [("masked_paths", &settings.masked_paths), ("readonly_paths", &settings.readonly_paths)]
    {
        if root(paths) {
            return Err(Fault::usage(format!("{name}: /: must not be the root")).hint(
                "a root without writes is --read-only, or \"root\": \"readonly\" in the profile",
            ));
        }
    }
    for path in settings.masked_paths.iter().chain(&settings.readonly_paths) {
        let plain = path.is_absolute() && !path.components().any(|part| part.as_os_str() == "..");
        if !plain {
            return Err(Fault::usage(format!(
                "{}: a masked or read-only path must be absolute and without `..`",
                printable(&path.display().to_string())
            )));
        }
    }
    for path in &settings.copy_up {
        let plain = path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if !plain || path.contains('\0') || path.trim_matches('/').is_empty() {
            return Err(Fault::usage(format!(
                "copy_up: {}: must be absolute, without `..` and not the root",
                printable(path)
            )));
        }
    }
    let Environment { pass, set } = &settings.environment;
    for name in pass.iter().chain(set.keys()) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Fault::usage(format!(
                "environment: {}: not a name of a variable",
                printable(name)
            )));
        }
    }
    if let Some(name) = set.iter().find(|(_, value)| value.contains('\0')).map(|(name, _)| name) {
        return Err(Fault::usage(format!("environment: {name}: the value holds a null byte")));
    }
    Ok(())
}

/// What is to be told of the rules for system calls of which nothing can be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unknown {
    /// A line for each that is passed over without harm: its call is refused by the default.
    pub(super) notes: Vec<String>,
    /// The names of those that should be refused, and that the default allows, if this kernel has them.
    pub(super) open: Vec<String>,
}

/// Finds the system calls that nothing can be said of: the library does not know them, or those in our table have
/// conditions.
pub(super) fn unknown_calls(seccomp: &Seccomp) -> Unknown {
    let mut unknown = Unknown::default();
    for rule in &seccomp.syscalls {
        let known = |name: &&String| compile::is_known(name, !rule.args.is_empty());
        for name in rule.names.iter().filter(|name| !known(name)) {
            let name = printable(name);
            if !seccomp.default_action.permits() || rule.action.permits() {
                unknown.notes.push(format!("seccomp: {name}: unknown system call, skipped"));
            } else if !unknown.open.contains(&name) {
                unknown.open.push(name);
            }
        }
    }
    unknown
}
