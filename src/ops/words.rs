//! Words that mean the same on the command line and in the settings of a box.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::run::{Bind, BindMode};
use crate::fault::{Context, Fault, Result};

/// A number of things, of which there may be one.
pub fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// How much was kept or copied.
pub fn amount(files: u64, bytes: u64) -> String {
    format!("{}, {}", count(files, "file", "files"), count(bytes, "byte", "bytes"))
}

/// `SRC[:DST][:ro|rw|overlay]`. A colon that belongs to a path is written `\:`, a backslash before a
/// colon or a backslash is written `\\`. DST is SRC's own place when it is left out; the mode is `ro`,
/// because a directory that the command may write to has to be asked for.
///
/// # Errors
/// Usage for any other form.
pub fn bind(text: &OsStr) -> Result<Bind> {
    let mut parts = split_colons(text.as_bytes());
    let mode = match parts.last().map(Vec::as_slice) {
        Some(b"ro") if parts.len() > 1 => Some(BindMode::ReadOnly),
        Some(b"rw") if parts.len() > 1 => Some(BindMode::ReadWrite),
        Some(b"overlay") if parts.len() > 1 => Some(BindMode::Overlay),
        _ => None,
    };
    if mode.is_some() {
        parts.pop();
    }
    if parts.len() > 2 {
        return Err(Fault::usage("more than SRC:DST:MODE").hint(
            "the mode is one of ro, rw, overlay; a colon that belongs to a path is written `\\:`",
        ));
    }
    let mut parts = parts.into_iter();
    let source = outside(parts.next().unwrap_or_default())?;
    let target = match parts.next() {
        Some(target) => inside(target)?,
        None => inside(source.clone().into_os_string().into_vec())?,
    };
    Ok(Bind { source, target, mode: mode.unwrap_or(BindMode::ReadOnly) })
}

/// The text that [`bind`] reads as this bind.
///
/// # Errors
/// Usage if a path is not UTF-8: settings are JSON.
pub fn bind_text(bind: &Bind) -> Result<String> {
    let path = |path: &Path| match path.to_str() {
        Some(text) => Ok(text.replace('\\', "\\\\").replace(':', "\\:")),
        None => Err(Fault::usage(format!("not UTF-8: {}", path.display()))),
    };
    let mode = match bind.mode {
        BindMode::ReadOnly => "ro",
        BindMode::ReadWrite => "rw",
        BindMode::Overlay => "overlay",
    };
    Ok(format!("{}:{}:{mode}", path(&bind.source)?, path(&bind.target)?))
}

/// A time: `10`, `10s`, `500ms`, `5m`, `1.5h`, `1d`. Longer than nothing, because a time-out of 0 that
/// means "none" to one program means "at once" to the next.
///
/// # Errors
/// Usage for any other form.
pub fn time(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        other => return Err(Fault::usage(format!("unknown unit `{other}`: use ms, s, m, h or d"))),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Fault::usage("not a time: write 10, 10s, 5m or 1.5h"));
    }
    let number: f64 = digits.parse().map_err(|_| Fault::usage("not a number"))?;
    let time = Duration::try_from_secs_f64(number * unit).map_err(|_| Fault::usage("too long"))?;
    if time.is_zero() {
        return Err(Fault::usage("must be more than 0: leave it out for no limit"));
    }
    Ok(time)
}

/// A size in bytes: `4096`, `512K`, `64M`, `2G`, `1T` (powers of 1024; `KiB` and `KB` read the same).
///
/// # Errors
/// Usage for any other form, and for 0.
pub fn size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        other => return Err(Fault::usage(format!("unknown unit `{other}`: use K, M, G or T"))),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::usage("not a size: write 4096, 512M or 2G"));
    }
    let number: u64 = digits.parse().map_err(|_| Fault::usage("too large"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err(Fault::usage("must be more than 0")),
        Some(bytes) => Ok(bytes),
        None => Err(Fault::usage("too large")),
    }
}

/// The parts between colons, without the backslashes that keep a colon or a backslash from its meaning.
pub fn split_colons(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let byte = match (byte, bytes.peek()) {
            (b'\\', Some(next @ (b':' | b'\\'))) => {
                let next = *next;
                bytes.next();
                next
            }
            (b':', _) => {
                parts.push(Vec::new());
                continue;
            }
            _ => byte,
        };
        if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    parts
}

/// A path outside, made absolute by the caller's working directory (not resolved: that is for the moment
/// of opening).
///
/// # Errors
/// Usage if it is empty; what finding the working directory says.
pub fn outside(path: Vec<u8>) -> Result<PathBuf> {
    if path.is_empty() {
        return Err(Fault::usage("the path outside is empty"));
    }
    let path = PathBuf::from(OsString::from_vec(path));
    std::path::absolute(&path).context("find the working directory for", path.display())
}

/// A path inside: absolute, without `..`, and not the root itself.
///
/// # Errors
/// Usage for any other.
pub fn inside(path: Vec<u8>) -> Result<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(path));
    if !path.is_absolute() {
        return Err(Fault::usage(format!("not an absolute path inside: {}", path.display())));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Fault::usage(format!("`..` in a path inside: {}", path.display())));
    }
    if path == Path::new("/") {
        return Err(Fault::usage("the root itself cannot be the target"));
    }
    Ok(path.components().collect())
}

#[cfg(test)]
#[path = "words_tests.rs"]
#[expect(clippy::type_complexity, reason = "tables of cases")]
mod tests;
