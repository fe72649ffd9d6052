//! Profiles: what a payload may do, as data.
//!
//! Three are built in from `profiles/*.json`; any other is a file of the same form. Everything in it is
//! checked when it is read: unknown fields, capabilities and contradictory rules are refused, so that a
//! typing error never loosens a sandbox.

mod check;
mod with;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::caps::CapSet;
use super::docker::{self, Host};
use super::filter::Seccomp;
use super::limits::Limits;
use super::seccomp::fingerprint;
use crate::fault::{Context, Fault, Result, printable};

/// The largest profile that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// The settings of a profile, one field per key of the JSON object.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings<S = IgnoredAny> {
    /// What it is for, in one line.
    pub description: String,
    /// The capabilities the payload keeps in its user namespace: a list of names such as `CAP_CHOWN`.
    pub capabilities: CapSet,
    /// The network the payload sees.
    pub network: Network,
    /// What happens to the root file system.
    pub root: Root,
    /// Where /tmp and /var/tmp live.
    pub tmp: Tmp,
    /// Paths covered by an empty file or directory, if they exist.
    pub masked_paths: Vec<PathBuf>,
    /// Paths made read-only, if they exist.
    pub readonly_paths: Vec<PathBuf>,
    /// Paths that are copied up before the command starts: files, or directories with all files in them.
    #[serde(default)]
    pub copy_up: Vec<String>,
    /// The environment of the payload.
    pub environment: Environment,
    /// Owners and devices that the id map cannot hold are remembered, and changing to them succeeds.
    pub remember_ids: bool,
    /// A sandbox may be asked for inside the sandbox.
    pub nesting: bool,
    /// Resource limits.
    pub limits: Limits,
    /// System calls: [`Seccomp`], read by [`Profile::seccomp`] when it is needed.
    pub seccomp: S,
}

/// The network of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A network stack of its own with nothing but loopback.
    None,
    /// The host's.
    Host,
}

/// The root file system of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// Writable: changes go to an upper layer.
    Overlay,
    /// Read-only.
    Readonly,
}

/// Where /tmp and /var/tmp live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tmp {
    /// In the layer, like every other directory.
    Layer,
    /// In memory, gone with the run.
    Memory,
}

/// The environment of a payload; see [`super::env::environment`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Variables of the caller that are passed on. A name may end in `*`.
    pub pass: Vec<String>,
    /// Variables that are set, over those that are passed.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
}

/// A profile: its [`Settings`], which it dereferences to, and where it comes from.
#[derive(Debug, Clone)]
pub struct Profile {
    settings: Settings,
    name: String,
    text: Cow<'static, str>,
    identity: Vec<u8>,
    unknown: check::Unknown,
    calls: Calls,
    open: bool,
}

/// Where the rules for system calls stand.
#[derive(Debug, Clone, Default)]
pub(super) enum Calls {
    /// In the profile.
    #[default]
    Own,
    /// In a file of their own: its name and text.
    File(String, String),
    /// Nowhere: all is allowed but what is always refused.
    Open,
}

impl std::ops::Deref for Profile {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

/// A profile in the binary: its text, and a fingerprint of it that is computed when we are compiled.
struct Builtin {
    name: &'static str,
    text: &'static str,
    identity: u64,
}

macro_rules! builtin {
    ($name:literal) => {{
        const TEXT: &str = include_str!(concat!("../../profiles/", $name, ".json"));
        const IDENTITY: u64 = fingerprint(TEXT.as_bytes());
        Builtin { name: $name, text: TEXT, identity: IDENTITY }
    }};
}

const BUILTIN: [Builtin; 3] = [builtin!("build"), builtin!("dev"), builtin!("strict")];

/// The text of a built-in profile without its tables of system calls, which come last and are read only if they are
/// compiled: to pass over them takes longer than all the rest.
fn without_calls(text: &str) -> String {
    let (settings, _) = text.split_once(r#""seccomp":"#).unwrap_or((text, ""));
    format!(r#"{settings}"seccomp":null}}"#)
}

impl Profile {
    /// The names of the built-in profiles.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|builtin| builtin.name)
    }

    /// A built-in profile.
    ///
    /// # Errors
    /// `usage` if there is none of that name.
    pub fn builtin(name: &str) -> Result<Self> {
        let Some(builtin) = BUILTIN.iter().find(|builtin| builtin.name == name) else {
            return Err(Fault::usage(format!("profile: {}: no such profile", printable(name)))
                .hint("the profiles are build, dev and strict; a file is given by its path"));
        };
        Ok(Self {
            settings: parse(name, &without_calls(builtin.text))?,
            name: builtin.name.to_owned(),
            text: Cow::Borrowed(builtin.text),
            identity: builtin.identity.to_le_bytes().to_vec(),
            unknown: check::Unknown::default(),
            calls: Calls::Own,
            open: false,
        })
    }

    /// A profile from a file.
    ///
    /// # Errors
    /// `usage` with file, line and column if its contents cannot be right or are above 1 MiB; else what
    /// the system says.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_text(&path.display().to_string(), read_text("profile", path)?)
    }

    /// A built-in profile by its name, or a file by a path: what contains a slash or ends in `.json`.
    ///
    /// # Errors
    /// As [`Profile::builtin`] and [`Profile::load`].
    pub fn named(name: &str) -> Result<Self> {
        if name.contains('/') || name.ends_with(".json") {
            Self::load(Path::new(name))
        } else {
            Self::builtin(name)
        }
    }

    /// A profile from its text; the name is for messages.
    ///
    /// # Errors
    /// As [`Profile::load`].
    pub fn from_text(name: &str, text: String) -> Result<Self> {
        let settings: Settings = parse(name, &text).map_err(|fault| {
            let is_seccomp = serde_json::from_str::<serde_json::Value>(&text)
                .is_ok_and(|value| value.get("defaultAction").is_some());
            let name = printable(name);
            if !is_seccomp {
                return fault;
            }
            Fault::usage(format!("profile: {name}: this is a seccomp file"))
                .hint(format!("give it by --seccomp {name}"))
        })?;
        let seccomp = parse::<Settings<Seccomp>>(name, &text)?.seccomp;
        check::settings(&settings)
            .and_then(|()| seccomp.check())
            .map_err(|fault| within("profile", name, fault))?;
        let identity = Sha256::digest(text.as_bytes()).to_vec();
        Ok(Self {
            settings,
            name: name.to_owned(),
            text: Cow::Owned(text),
            identity,
            unknown: check::unknown_calls(&seccomp),
            calls: Calls::Own,
            open: seccomp.allows_all(),
        })
    }

    /// Its name, or the path it was read from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a person should know about it: system calls that are skipped because the library does not
    /// know them. Such a call gets the default verdict.
    pub fn notes(&self) -> &[String] {
        &self.unknown.notes
    }

    /// The system calls that its rules refuse by names which nobody here knows, while its default allows them.
    pub fn unrefused(&self) -> &[String] {
        &self.unknown.open
    }

    /// Whether its rules refuse no system call.
    pub fn allows_all(&self) -> bool {
        self.open
    }

    /// Its text: a JSON object.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its system call rules.
    ///
    /// # Errors
    /// None for a profile that could be made; the text is parsed again.
    pub fn seccomp(&self) -> Result<Seccomp> {
        match &self.calls {
            Calls::Own => Ok(parse::<Settings<Seccomp>>(&self.name, &self.text)?.seccomp),
            Calls::File(name, text) => docker::read(text, &Host::here(self.capabilities))
                .map_err(|fault| within("seccomp file", name, fault)),
            Calls::Open => Ok(Seccomp::open()),
        }
    }

    /// The same profile with other capabilities.
    pub(super) fn with_capabilities(mut self, capabilities: CapSet) -> Self {
        self.settings.capabilities = capabilities;
        self
    }

    /// The same profile with other rules for system calls.
    ///
    /// # Errors
    /// `usage` if the rules cannot be right.
    pub(super) fn with_calls(mut self, calls: Calls) -> Result<Self> {
        self.calls = calls;
        if let Calls::File(_, text) = &self.calls {
            let seccomp = self.seccomp()?;
            self.unknown = check::unknown_calls(&seccomp);
            self.identity.extend(Sha256::digest(text.as_bytes()));
            self.open = seccomp.allows_all();
        } else if matches!(self.calls, Calls::Open) {
            self.open = true;
            self.unknown = check::Unknown::default();
            self.identity.extend(b"open");
        }
        Ok(self)
    }

    /// A fault of its rules for system calls, with the file that they stand in.
    pub(super) fn blame(&self, fault: Fault) -> Fault {
        match &self.calls {
            Calls::File(name, _) => within("seccomp file", name, fault),
            _ => within("profile", &self.name, fault),
        }
    }

    /// What changes whenever its rules for system calls do.
    pub(super) fn identity(&self) -> (&[u8], u64) {
        (&self.identity, self.settings.capabilities.0)
    }
}

fn parse<'a, T: Deserialize<'a>>(name: &str, text: &'a str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Fault::usage(format!("profile: {}: {error}", printable(name))))
}

/// A fault that names the file it was found in.
fn within(what: &str, name: &str, fault: Fault) -> Fault {
    Fault { message: format!("{what}: {}: {}", printable(name), fault.message), ..fault }
}

/// The text of a file, of a `what`: a regular one of at most 1 MiB.
///
/// # Errors
/// `not-found`; `usage` for what is no such file or no text; else what the system says.
pub fn read_text(what: &str, path: &Path) -> Result<String> {
    let shown = printable(&path.to_string_lossy());
    // Without blocking: the path may be a FIFO.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => {
            return Err(Fault::not_found(format!("{what}: {shown}: no such file")));
        }
        other => other.context(&format!("open {what}"), &shown)?,
    };
    let status = fstat(&file).context(&format!("read {what}"), &shown)?;
    let regular = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
    if !regular || status.st_size as u64 > MOST_BYTES {
        let why = "not a regular file of at most 1 MiB";
        return Err(Fault::usage(format!("{what}: {shown}: {why}")));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(MOST_BYTES)
        .read_to_end(&mut bytes)
        .context(&format!("read {what}"), &shown)?;
    String::from_utf8(bytes).map_err(|_| Fault::usage(format!("{what}: {shown}: not UTF-8")))
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
