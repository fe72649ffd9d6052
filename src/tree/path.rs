//! Paths of a tree as bytes: beneath a root, without a leading `/`. In JSON they are `path` if they are
//! UTF-8, else `path_bytes` in base64 (standard alphabet, padded).

use std::ffi::{CStr, OsStr};
use std::fmt::{self, Display};
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Appends one component.
pub fn join(path: &mut Vec<u8>, name: &CStr) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
}

/// The path of the directory that holds a path, empty for the root, and the name there.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(place) => (&path[..place], &path[place + 1..]),
        None => (&path[..0], path),
    }
}

/// Whether `path` lies in the directory `top` or deeper.
pub fn is_beneath(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.starts_with(b"/"))
}

/// A path as it stands in a message: `/` before it, what is not UTF-8 replaced.
///
/// The text is made where it is printed: each entry of a walk names its path in case it fails, and in a
/// tree of thousands of levels the path of one entry takes a megabyte.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", OsStr::from_bytes(self.0).display())
    }
}

/// The [`Shown`] form of a path.
pub fn shown(path: &[u8]) -> Shown<'_> {
    Shown(path)
}

#[derive(Serialize, Deserialize)]
struct Form {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

/// For `#[serde(flatten, with = "...")]` of a path: writes `path` or `path_bytes`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(path: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let form = match std::str::from_utf8(path) {
        Ok(text) => Form { path: Some(text.to_owned()), path_bytes: None },
        Err(_) => Form { path: None, path_bytes: Some(STANDARD.encode(path)) },
    };
    form.serialize(serializer)
}

/// For `#[serde(flatten, with = "...")]` of a path: reads `path` or `path_bytes`.
///
/// # Errors
/// Those of the deserializer; both or neither given; broken base64.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let form = Form::deserialize(deserializer)?;
    match (form.path, form.path_bytes) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(coded)) => STANDARD.decode(coded).map_err(de::Error::custom),
        _ => Err(de::Error::custom("one of path and path_bytes must be given")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf8_is_shown_replaced() {
        assert_eq!(shown(b"").to_string(), "/");
        assert_eq!(shown("a/\u{e9}".as_bytes()).to_string(), "/a/\u{e9}");
        assert_eq!(shown(b"a/\xff\xfeb/c").to_string(), "/a/\u{fffd}\u{fffd}b/c");
    }

    #[test]
    fn to_name_a_path_makes_no_string() {
        // A type that is `Copy` owns no memory.
        fn copied<T: Copy>(value: T) -> T {
            value
        }
        assert_eq!(copied(shown(b"a")).to_string(), "/a");
    }
}
