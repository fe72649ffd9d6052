//! Where the tree of a new box comes from, as typed after `init --from`.

use std::fmt::{self, Display};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fault::{Context, Fault, Result, quoted};

/// A source of a tree.
///
/// Its text, [`Display`], is what a box's record holds; parsing that text gives the same source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory: everything in it is copied.
    Directory(PathBuf),
    /// `tar:FILE`: the tar of a root file system, plain or compressed by gzip, xz or zstd; `tar:-` is stdin.
    Tar(PathBuf),
    /// `mmdebstrap:SUITE[?include=a,b]`: Debian packages, unpacked by mmdebstrap(1).
    Mmdebstrap {
        /// The suite, such as `bookworm`.
        suite: String,
        /// Packages beyond the minimal set, in the order typed.
        include: Vec<String>,
    },
    /// `scratch`: an empty tree.
    Scratch,
}

/// Forms that are planned and not there yet.
const LATER: [&str; 5] = ["oci:", "oci-archive:", "docker-archive:", "docker://", "dnf:"];

/// What `tar:-` is.
const STDIN: &str = "/dev/stdin";

/// For so long after a change another one may leave the same times: clocks of files are coarse.
const UNSETTLED: Duration = Duration::from_secs(2);

impl FromStr for Source {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(form) = LATER.iter().find(|form| text.starts_with(**form)) {
            return Err(bad(text, &format!("{form} is not supported yet"))
                .hint("use a directory, tar:FILE, mmdebstrap:SUITE or scratch"));
        }
        if text == "scratch" {
            return Ok(Self::Scratch);
        }
        if text == "tar:-" {
            return Ok(Self::Tar(STDIN.into()));
        }
        if let Some(file) = text.strip_prefix("tar:") {
            return path(text, file).map(Self::Tar);
        }
        if let Some(rest) = text.strip_prefix("mmdebstrap:") {
            return mmdebstrap(text, rest);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(bad(text, &format!("{scheme} is not a source")));
        }
        if text.is_empty() {
            return Err(bad("--from", "it is empty"));
        }
        path(text, text).map(Self::Directory)
    }
}

fn path(text: &str, name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.contains('\0') {
        return Err(bad(text, "a file name is missing"));
    }
    Ok(PathBuf::from(name))
}

fn bad(text: &str, why: &str) -> Fault {
    Fault::usage(format!("read source: {}: {why}", crate::fault::printable(text)))
        .hint("use a directory, tar:FILE, mmdebstrap:SUITE[?include=a,b] or scratch")
}

/// Suite and package names become arguments of a program: only what such names are made of may pass.
fn mmdebstrap(text: &str, rest: &str) -> Result<Source> {
    let (suite, query) = match rest.split_once('?') {
        Some((suite, query)) => (suite, Some(query)),
        None => (rest, None),
    };
    let plain = |name: &str, extra: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    if !plain(suite, "-._/") {
        return Err(bad(text, "this is not the name of a suite"));
    }
    let mut include = Vec::new();
    if let Some(query) = query {
        let names = query
            .strip_prefix("include=")
            .ok_or_else(|| bad(text, "after `?` only include=PACKAGE,PACKAGE is known"))?;
        for name in names.split(',') {
            if !plain(name, "-._+:~=") {
                return Err(bad(text, &format!("{name:?} is not the name of a package")));
            }
            include.push(name.to_owned());
        }
    }
    Ok(Source::Mmdebstrap { suite: suite.to_owned(), include })
}

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => {
                // A relative name that reads as another form is shown such that it does not.
                let text = path.display().to_string();
                match text.parse() {
                    Ok(Self::Directory(_)) => f.write_str(&text),
                    _ => write!(f, "./{text}"),
                }
            }
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
            Self::Mmdebstrap { suite, include } if include.is_empty() => {
                write!(f, "mmdebstrap:{suite}")
            }
            Self::Mmdebstrap { suite, include } => {
                write!(f, "mmdebstrap:{suite}?include={}", include.join(","))
            }
            Self::Scratch => f.write_str("scratch"),
        }
    }
}

impl Source {
    /// The same source with an absolute path without symbolic links, for the record of a box.
    ///
    /// # Errors
    /// `NotFound` if the file or directory does not exist, `Usage` if it is not of the right type or its
    /// path is not UTF-8 (the record is JSON).
    pub fn canonical(self) -> Result<Self> {
        match self {
            Self::Directory(path) => real(&path, true).map(Self::Directory),
            Self::Tar(path) => real(&path, false).map(Self::Tar),
            other => Ok(other),
        }
    }

    /// A text that is the same exactly for the same source: the canonical path, or suite and sorted
    /// packages. Content is not looked at. Of a pipe, which is another one each time, no two are the same.
    ///
    /// # Errors
    /// As [`Source::canonical`].
    pub fn identity(&self) -> Result<String> {
        let mut same = self.clone().canonical()?;
        if let Self::Tar(path) = &same
            && let Ok(found) = fs::metadata(path)
            && found.file_type().is_fifo()
        {
            return Ok(format!("{same} {}:{}", found.ino(), found.ctime_nsec()));
        }
        if let Self::Mmdebstrap { include, .. } = &mut same {
            include.sort_unstable();
            include.dedup();
        }
        Ok(same.to_string())
    }
}

impl Source {
    /// A text that changes whenever the content may have changed: file system, inode, size and times of an
    /// archive. `None` where nothing tells: a directory, packages of a mirror, and an archive that was
    /// changed a moment ago, whose times may be the same after the next change.
    ///
    /// # Errors
    /// What stat(2) says.
    pub fn stamp(&self) -> Result<Option<String>> {
        let Self::Tar(path) = self else { return Ok(None) };
        let found = fs::metadata(path).context("look at", path.display())?;
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(found.ctime()).unwrap_or(0));
        // The clock was set back if it is in the future: then the times tell nothing either.
        let settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > UNSETTLED);
        let stamp = format!(
            "{}:{}:{}:{}.{:09}:{}.{:09}",
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec()
        );
        Ok(settled.then_some(stamp))
    }
}

fn real(path: &Path, directory: bool) -> Result<PathBuf> {
    let shown = path.display().to_string();
    let found = match fs::canonicalize(path) {
        // A pipe has no path but that of its descriptor: `tar:/dev/stdin`, `tar:<(...)`.
        Err(_) if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) => {
            std::path::absolute(path).context("read source", &shown)?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Fault::not_found(format!(
                "read source: {}: no such file or directory",
                crate::fault::printable(&shown)
            )));
        }
        other => other.context("read source", &shown)?,
    };
    if found.to_str().is_none() {
        return Err(bad(&shown, "its path is not UTF-8"));
    }
    let kind = fs::metadata(&found).context("look at", &shown)?.file_type();
    match (directory, kind.is_dir()) {
        (true, false) => Err(bad(&shown, "is not a directory")
            .hint(format!("for an archive: --from {}", quoted(&format!("tar:{shown}"))))),
        (false, true) => Err(bad(&shown, "is a directory, and no archive")
            .hint(format!("a directory is named without `tar:`: --from {}", quoted(&shown)))),
        // A device may have no end, as /dev/zero has none.
        (false, false) if !kind.is_file() && !kind.is_fifo() => {
            Err(bad(&shown, "is neither a file nor a pipe, and no archive"))
        }
        _ => Ok(found),
    }
}
