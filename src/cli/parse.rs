//! From the words of a command line to values: pure functions, each with a table of cases below.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::fault::{Fault, Result, printable};
use crate::ops::run::{Memory, Upper};
pub(super) use crate::ops::words::{bind, size, time};
use crate::ops::words::{inside, outside, split_colons};

use crate::store::SnapshotName;

/// `NAME:DST` of `--cache`.
pub(super) fn cache(text: &OsStr) -> Result<(String, PathBuf)> {
    let [name, target] = two(text, "NAME:DST")?;
    let name = String::from_utf8(name).map_err(|_| Fault::usage("the name is not UTF-8"))?;
    // The rule for snapshots, which is the store's, because the name becomes a directory in it.
    SnapshotName::from_str(&name)
        .map_err(|fault| Fault::usage(fault.message.replacen("snapshot", "cache", 1)))?;
    Ok((name, inside(target)?))
}

/// `PATH:DIR` of `--out`: a path inside and a directory outside.
pub(super) fn out(text: &OsStr) -> Result<(PathBuf, PathBuf)> {
    let [path, dir] = two(text, "PATH:DIR")?;
    Ok((inside(path)?, outside(dir)?))
}

/// `DST` or `DST:OPTIONS` of `--tmpfs`: an absolute path inside, and of the options of mount(8) those that say something.
pub(super) fn tmpfs(text: &OsStr) -> Result<Memory> {
    let mut parts = split_colons(text.as_bytes());
    let options = if parts.len() == 2 { parts.pop() } else { None };
    let [target] = <[Vec<u8>; 1]>::try_from(parts).map_err(|_| {
        Fault::usage("write DST or DST:size=SIZE,mode=MODE; a colon of a path is written `\\:`")
    })?;
    // As Docker and podman have it: also a user who is not root can use it, and cannot remove what others made.
    let mut memory = Memory { target: inside(target)?, size: None, mode: 0o1777 };
    let options = options.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for option in options.iter().flat_map(|text| text.split(',')) {
        match option.split_once('=') {
            Some(("size", value)) => memory.size = Some(size(value)?),
            Some(("mode", value)) => memory.mode = mode(value)?,
            // What it is.
            None if matches!(option, "rw" | "exec" | "nosuid" | "nodev") => {}
            _ => {
                let message = format!("{}: there is no such option", printable(option));
                return Err(Fault::usage(message).hint("there are size=SIZE and mode=MODE"));
            }
        }
    }
    Ok(memory)
}

fn mode(text: &str) -> Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok(mode),
        _ => Err(Fault::usage("a mode is up to four octal digits, such as 1777")),
    }
}

/// An absolute path inside, of `--copy-up`; it stands in records, as text.
pub(super) fn copy_up(text: &str) -> Result<String> {
    inside(text.as_bytes().to_vec()).map(|_| text.to_owned())
}

/// An absolute directory inside, of `--workdir`; here `/` is as good as any other.
pub(super) fn workdir(text: &OsStr) -> Result<PathBuf> {
    match text.as_bytes() {
        b"/" => Ok(PathBuf::from("/")),
        other => inside(other.to_vec()),
    }
}

/// `disk`, `tmpfs` or `tmpfs:SIZE`.
pub(super) fn upper(text: &str) -> Result<Upper> {
    match text.split_once(':') {
        None if text == "disk" => Ok(Upper::Disk),
        None if text == "tmpfs" => Ok(Upper::Tmpfs(None)),
        Some(("tmpfs", limit)) => Ok(Upper::Tmpfs(Some(size(limit)?))),
        _ => Err(Fault::usage("use disk, tmpfs or tmpfs:SIZE")),
    }
}

/// `T` or `T:GRACE`.
pub(super) fn timeout(text: &str) -> Result<(Duration, Option<Duration>)> {
    Ok(match text.split_once(':') {
        Some((after, grace)) => (time(after)?, Some(time(grace)?)),
        None => (time(text)?, None),
    })
}

/// The time of `--setup-timeout`; 0 is none.
pub(super) fn setup_timeout(text: &str) -> Result<Duration> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        _ => time(text),
    }
}

/// A host name by the kernel's limit of 64 bytes and the letters that programs accept.
pub(super) fn hostname(text: &str) -> Result<String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && !text.starts_with(['.', '-']);
    match fits {
        true => Ok(text.to_owned()),
        false => Err(Fault::usage("up to 64 letters, digits, dots and dashes")),
    }
}

/// One word of `--env`: `K=V`, or `K`, which is copied from the caller and left out if the caller has none.
pub(super) fn env(
    text: &OsStr,
    caller: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Option<(OsString, OsString)>> {
    let bytes = text.as_bytes();
    let (key, value) = match bytes.iter().position(|b| *b == b'=') {
        Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (bytes, None),
    };
    if key.is_empty() || key.iter().any(|b| *b == 0 || b.is_ascii_whitespace()) {
        return Err(Fault::usage("a variable is written K=V or K"));
    }
    let key = OsStr::from_bytes(key);
    let value = value.or_else(|| caller(key));
    Ok(value.map(|value| (key.to_owned(), value)))
}

/// The content of an `--env-file`: a line is `K=V`, taken as it stands without quotes, or `K`; blank lines
/// and lines that begin with `#` are skipped. The form that docker and podman read.
pub(super) fn env_file(
    content: &[u8],
    caller: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<(OsString, OsString)>> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut pairs = Vec::new();
    for (number, line) in content.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        if line.contains(&0) {
            return Err(Fault::usage(format!("line {}: holds a zero byte", number + 1)));
        }
        let pair = env(OsStr::from_bytes(line), &caller)
            .map_err(|fault| Fault::usage(format!("line {}: {}", number + 1, fault.message)))?;
        pairs.extend(pair);
    }
    Ok(pairs)
}

/// The words that are executed: one word with blanks in it is a line for the shell, several words pass
/// exactly as they are.
pub(super) fn command(mut words: Vec<OsString>) -> Vec<OsString> {
    let blank = |word: &OsString| word.as_bytes().iter().any(|b| matches!(b, b' ' | b'\t' | b'\n'));
    match words.as_slice() {
        [line] if blank(line) => {
            let line = words.remove(0);
            vec!["/bin/sh".into(), "-c".into(), line]
        }
        _ => words,
    }
}

/// Exactly two parts.
fn two(text: &OsStr, form: &str) -> Result<[Vec<u8>; 2]> {
    <[Vec<u8>; 2]>::try_from(split_colons(text.as_bytes()))
        .map_err(|_| Fault::usage(format!("write {form}; a colon of a path is written `\\:`")))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
#[expect(clippy::type_complexity, reason = "tables of cases")]
mod tests;
