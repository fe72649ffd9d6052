//! From the words of a command line to values: pure functions, each with a table of cases below.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::fault::{Context, Fault, Result};
use crate::ops::run::{Bind, BindMode, Upper};
use crate::store::SnapshotName;

/// `SRC[:DST][:ro|rw|overlay]`. A colon that belongs to a path is written `\:`, a backslash before a
/// colon or a backslash is written `\\`. DST is SRC's own place when it is left out; the mode is `ro`,
/// because a directory that the command may write to has to be asked for.
pub(super) fn bind(text: &OsStr) -> Result<Bind> {
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

/// An absolute path inside, of `--tmpfs`.
pub(super) fn target(text: &OsStr) -> Result<PathBuf> {
    inside(text.as_bytes().to_vec())
}

/// An absolute path inside, of `--copy-up`; it stands in records, as text.
pub(super) fn copy_up(text: &str) -> Result<String> {
    target(OsStr::new(text)).map(|_| text.to_owned())
}

/// An absolute directory inside, of `--workdir`; here `/` is as good as any other.
pub(super) fn workdir(text: &OsStr) -> Result<PathBuf> {
    match text.as_bytes() {
        b"/" => Ok(PathBuf::from("/")),
        other => inside(other.to_vec()),
    }
}

/// A time: `10`, `10s`, `500ms`, `5m`, `1.5h`, `1d`. Longer than nothing, because a time-out of 0 that
/// means "none" to one program means "at once" to the next.
pub(super) fn time(text: &str) -> Result<Duration> {
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
pub(super) fn size(text: &str) -> Result<u64> {
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

/// `disk`, `tmpfs` or `tmpfs:SIZE`.
pub(super) fn upper(text: &str) -> Result<Upper> {
    match text.split_once(':') {
        None if text == "disk" => Ok(Upper::Disk),
        None if text == "tmpfs" => Ok(Upper::Tmpfs(None)),
        Some(("tmpfs", limit)) => Ok(Upper::Tmpfs(Some(size(limit)?))),
        _ => Err(Fault::usage("use disk, tmpfs or tmpfs:SIZE")),
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

fn split_colons(text: &[u8]) -> Vec<Vec<u8>> {
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
fn outside(path: Vec<u8>) -> Result<PathBuf> {
    if path.is_empty() {
        return Err(Fault::usage("the path outside is empty"));
    }
    let path = PathBuf::from(OsString::from_vec(path));
    std::path::absolute(&path).context("find the working directory for", path.display())
}

/// A path inside: absolute, without `..`, and not the root itself.
fn inside(path: Vec<u8>) -> Result<PathBuf> {
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
#[path = "parse_tests.rs"]
#[expect(clippy::type_complexity, reason = "tables of cases")]
mod tests;
