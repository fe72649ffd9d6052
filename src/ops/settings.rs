//! The defaults that a box gives its runs: words to [`BoxSettings`], each checked before anything is written.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::path::Path;
use std::str::FromStr;

use super::run::{TouchRpmdb, checks};
use super::words;
use crate::fault::{Fault, Result, printable};
use crate::ids::IdMap;
use crate::isolate::profile::Profile;
use crate::run::user;
use crate::store::{BoxName, BoxSettings, Store};

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The profile of its runs.
    Profile,
    /// Variables.
    Env,
    /// Who commands run as.
    User,
    /// Binds.
    Bind,
    /// What is copied up before a command.
    CopyUp,
    /// When rpm's databases are.
    TouchRpmdb,
    /// How long a move can be taken back.
    UndoAge,
    /// How large the log may grow.
    UndoSize,
    /// How old the first layer may be.
    MaxAge,
}

const KEYS: [(&str, Key); 9] = [
    ("profile", Key::Profile),
    ("env", Key::Env),
    ("user", Key::User),
    ("bind", Key::Bind),
    ("copy_up", Key::CopyUp),
    ("touch_rpmdb", Key::TouchRpmdb),
    ("undo_age", Key::UndoAge),
    ("undo_size", Key::UndoSize),
    ("max_age", Key::MaxAge),
];

impl FromStr for Key {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        KEYS.iter().find(|(name, _)| *name == text).map(|(_, key)| *key).ok_or_else(|| {
            let names = KEYS.map(|(name, _)| name).join(", ");
            Fault::usage(format!("set box: {}: no such setting", printable(text)))
                .hint(format!("one of {names}"))
        })
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(KEYS.iter().find(|(_, key)| key == self).map_or("", |(name, _)| name))
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// `KEY=VALUE`: this, and nothing that was before. Of a list several in a row are its items.
    Set(Key, String),
    /// `KEY+=VALUE`: one more item of a list. It replaces one of the same variable, target or path.
    Add(Key, String),
    /// `KEY-=NAME`: the item of a list with this variable, target or path goes.
    Remove(Key, String),
    /// `--unset KEY`: as if it had never been set.
    Unset(Key),
}

impl FromStr for Edit {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Fault::usage(format!("set box: {}: not KEY=VALUE", printable(text)))
                .hint("KEY=VALUE, or KEY+=VALUE and KEY-=NAME for lists"));
        };
        let value = value.to_owned();
        match (key.strip_suffix('+'), key.strip_suffix('-')) {
            (Some(key), _) => Ok(Self::Add(key.parse()?, value)),
            (_, Some(key)) => Ok(Self::Remove(key.parse()?, value)),
            _ => Ok(Self::Set(key.parse()?, value)),
        }
    }
}

/// Changes the settings of a box, all of it or nothing, and gives what they are then.
///
/// # Errors
/// Usage for a value that cannot be; not found without the box.
pub fn set(store: &Store, box_name: &BoxName, edits: &[Edit]) -> Result<BoxSettings> {
    let lock = store.lock_shared()?;
    let mut opened = store.open_box(box_name)?;
    let map = opened.record().id_map.clone();
    opened.update_settings(&lock, |settings| {
        apply(settings, edits, &map)?;
        Ok(settings.clone())
    })
}

fn apply(settings: &mut BoxSettings, edits: &[Edit], map: &IdMap) -> Result<()> {
    // A list that was set in this call: further values are added to it.
    let mut begun: Vec<Key> = Vec::new();
    for edit in edits {
        match edit {
            Edit::Set(key, value) => match list(settings, *key) {
                Some(items) => {
                    if !begun.contains(key) {
                        items.clear();
                        begun.push(*key);
                    }
                    put(items, *key, value)?;
                }
                None => set_one(settings, *key, value, map)?,
            },
            Edit::Add(key, value) => put(must_list(settings, *key)?, *key, value)?,
            Edit::Remove(key, name) => take(must_list(settings, *key)?, *key, name)?,
            Edit::Unset(key) => unset(settings, *key),
        }
    }
    Ok(())
}

fn list(settings: &mut BoxSettings, key: Key) -> Option<&mut Vec<String>> {
    match key {
        Key::Env => Some(&mut settings.env),
        Key::Bind => Some(&mut settings.binds),
        Key::CopyUp => Some(&mut settings.copy_up),
        _ => None,
    }
}

fn must_list(settings: &mut BoxSettings, key: Key) -> Result<&mut Vec<String>> {
    list(settings, key).ok_or_else(|| {
        Fault::usage(format!("set box: {key}: holds one value, not a list"))
            .hint(format!("{key}=VALUE, or --unset {key}"))
    })
}

/// Puts an item in the place of one of the same name, or at the end.
fn put(items: &mut Vec<String>, key: Key, value: &str) -> Result<()> {
    let value = item(key, value).map_err(|fault| of_key(key, value, fault))?;
    let name = name_of(key, &value);
    match items.iter_mut().find(|known| name_of(key, known) == name) {
        Some(known) => *known = value,
        None => items.push(value),
    }
    Ok(())
}

fn take(items: &mut Vec<String>, key: Key, name: &str) -> Result<()> {
    let before = items.len();
    items.retain(|known| name_of(key, known) != name && known != name);
    if items.len() < before {
        return Ok(());
    }
    Err(Fault::usage(format!("set box: {key}-={}: it is not in the list", printable(name)))
        .hint("`sandbox box show` shows what is"))
}

/// An item of a list as it is written down.
fn item(key: Key, value: &str) -> Result<String> {
    match key {
        Key::Env => match value.split_once('=') {
            Some((name, _)) if is_variable(name) && !value.contains('\0') => Ok(value.to_owned()),
            _ => Err(Fault::usage("a variable is written NAME=VALUE")),
        },
        Key::Bind => words::bind_text(&words::bind(OsStr::new(value))?),
        _ => {
            let path = words::inside(value.as_bytes().to_vec())?;
            Ok(path.to_string_lossy().into_owned())
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '\0')
}

/// What an item of a list is known by: the variable, the target of a bind, the path.
fn name_of(key: Key, item: &str) -> String {
    match key {
        Key::Env => item.split('=').next().unwrap_or_default().to_owned(),
        Key::Bind => words::bind(OsStr::new(item))
            .map_or_else(|_| item.to_owned(), |bind| bind.target.to_string_lossy().into_owned()),
        _ => item.to_owned(),
    }
}

fn set_one(settings: &mut BoxSettings, key: Key, value: &str, map: &IdMap) -> Result<()> {
    let wrong = |fault| of_key(key, value, fault);
    match key {
        Key::Profile => settings.profile = Some(profile(value).map_err(wrong)?),
        Key::User => {
            let parsed = user::parse(value).map_err(wrong)?;
            checks::user(Some(&parsed), map)?;
            settings.user = Some(value.to_owned());
        }
        Key::TouchRpmdb => {
            value.parse::<TouchRpmdb>().map_err(wrong)?;
            settings.touch_rpmdb = Some(value.to_owned());
        }
        Key::UndoAge => settings.undo_age = Some(seconds(value).map_err(wrong)?),
        Key::UndoSize => settings.undo_size = Some(words::size(value).map_err(wrong)?),
        Key::MaxAge => settings.max_age = Some(seconds(value).map_err(wrong)?),
        Key::Env | Key::Bind | Key::CopyUp => {}
    }
    Ok(())
}

/// Whole seconds, at least one.
fn seconds(value: &str) -> Result<u64> {
    Ok(words::time(value)?.as_secs_f64().ceil() as u64)
}

/// The name of a profile that can be read now, or its file by an absolute path.
fn profile(value: &str) -> Result<String> {
    Profile::named(value)?;
    if !value.contains('/') && !value.ends_with(".json") {
        return Ok(value.to_owned());
    }
    let path = std::path::absolute(Path::new(value))
        .map_err(|error| Fault::usage(format!("profile: {}: {error}", printable(value))))?;
    path.to_str().map(str::to_owned).ok_or_else(|| Fault::usage("profile: its path is not UTF-8"))
}

fn unset(settings: &mut BoxSettings, key: Key) {
    match key {
        Key::Profile => settings.profile = None,
        Key::User => settings.user = None,
        Key::TouchRpmdb => settings.touch_rpmdb = None,
        Key::UndoAge => settings.undo_age = None,
        Key::UndoSize => settings.undo_size = None,
        Key::MaxAge => settings.max_age = None,
        Key::Env => settings.env.clear(),
        Key::Bind => settings.binds.clear(),
        Key::CopyUp => settings.copy_up.clear(),
    }
}

/// A value that cannot be is the caller's mistake, whatever kind of fault has shown it.
fn of_key(key: Key, value: &str, fault: Fault) -> Fault {
    let message = format!("set box: {key}={}: {}", printable(value), fault.message);
    Fault { hint: fault.hint, ..Fault::usage(message) }
}

/// What is set, one line for each value, as it would be typed.
pub fn lines(settings: &BoxSettings) -> Vec<String> {
    let one =
        |key: Key, value: &Option<String>| value.iter().map(|v| format!("{key}={v}")).collect();
    let number = |key: Key, value: Option<u64>, unit: &str| {
        value.iter().map(|v| format!("{key}={v}{unit}")).collect::<Vec<_>>()
    };
    let many = |key: Key, values: &[String]| values.iter().map(|v| format!("{key}={v}")).collect();
    let all: [Vec<String>; 9] = [
        one(Key::Profile, &settings.profile),
        many(Key::Env, &settings.env),
        one(Key::User, &settings.user),
        many(Key::Bind, &settings.binds),
        many(Key::CopyUp, &settings.copy_up),
        one(Key::TouchRpmdb, &settings.touch_rpmdb),
        number(Key::UndoAge, settings.undo_age, "s"),
        number(Key::UndoSize, settings.undo_size, ""),
        number(Key::MaxAge, settings.max_age, "s"),
    ];
    all.concat()
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
