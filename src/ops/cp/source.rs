//! The side of a copy that reads.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::talk::{self, Found, Kind};
use crate::fault::{Fault, Kind as FaultKind, Result, printable};
use crate::image::tar::write::{Form, Writer, Written};
use crate::tree::dir::{kind, lstat, open_file};
use crate::tree::inside;
use crate::tree::living::Living;
use crate::tree::recall::{Memory, Part, Place, Recall};

/// Where a path is looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root<'a> {
    /// As any program of the caller does it.
    Host,
    /// With this directory as the root, which no symbolic link leads out of.
    Inside(BorrowedFd<'a>),
}

/// Where the stream goes.
#[derive(Debug)]
pub(super) enum Out {
    /// To the other side, which says under which name.
    Side(OwnedFd),
    /// To a descriptor, under its own name.
    Stream(OwnedFd),
}

impl Root<'_> {
    /// Opens a path as open(2) would.
    pub(super) fn open(self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let Self::Inside(root) = self else { return openat(CWD, path, flags, Mode::empty()) };
        inside::open(root, Path::new(OsStr::from_bytes(path)), flags)
    }
}

/// What is known at the side that is read of owners and devices that are not on its disk.
#[derive(Debug)]
pub(super) enum Memories<'a> {
    /// Nothing.
    None,
    /// What the layers of a view remember.
    Layers(&'a Recall<'a>),
    /// What a live run remembers.
    Live(Living<'a>),
}

/// What a source is, opened.
enum Opened {
    Directory(OwnedFd),
    File(OwnedFd),
    /// An entry of a directory.
    Entry(OwnedFd, CString),
}

/// Reads `path` and writes it as a stream.
pub(super) fn produce(
    (root, memories): (Root<'_>, &Memories<'_>),
    path: &[u8],
    follow: bool,
    form: Form,
    out: Out,
) -> Result<Written> {
    let to_side = matches!(out, Out::Side(_));
    let (opened, found) = open(root, path, follow).map_err(|errno| told(path, errno))?;
    let part = part(memories, path, follow).map_err(|errno| told(path, errno))?;
    let memory: Option<&dyn Memory> = match (memories, &part) {
        (Memories::Live(living), _) => Some(living),
        (_, part) => part.as_ref().map(|part| part as &dyn Memory),
    };
    let odd = || odd(&opened, memory).map_err(|errno| told(path, errno));
    if to_side && let Some(odd) = odd()? {
        return Err(Fault::failed(format!(
            "copy: {}: it is {odd}, which is not copied",
            show(path)
        )));
    }
    let (out, name) = match out {
        Out::Stream(out) => {
            let contents = found.kind == Kind::Contents;
            let name = if contents { Vec::new() } else { found.name };
            (File::from(out), name)
        }
        Out::Side(socket) => {
            let mut socket = File::from(socket);
            let Some(name) = talk::offer(&mut socket, &found)? else {
                return Ok(Written::default());
            };
            (socket, name)
        }
    };
    let mut out = Quiet { out: BufWriter::with_capacity(1 << 17, out), to_side, left: false };
    let written = write(&mut out, &opened, (split_ending(path).0, &name), form, memory);
    // A writer that went away has told why.
    if out.left { Ok(Written::default()) } else { written }
}

/// `path` is what is read, `name` what the other side has it as.
fn write(
    out: &mut dyn Write,
    opened: &Opened,
    (path, name): (&[u8], &[u8]),
    form: Form,
    memory: Option<&dyn Memory>,
) -> Result<Written> {
    let mut writer = Writer::new(out, form).of(path, name);
    if let Some(memory) = memory {
        writer = writer.remembering(memory);
    }
    match opened {
        Opened::Directory(dir) => writer.tree(dir.as_fd(), name)?,
        Opened::File(file) => writer.file(file.as_fd(), name)?,
        Opened::Entry(dir, entry) => drop(writer.entry(dir.as_fd(), entry, name)?),
    }
    writer.finish()
}

/// What it is, if there is nothing of it that could be copied. Within a directory such files are left out and counted.
fn odd(opened: &Opened, memory: Option<&dyn Memory>) -> Result<Option<&'static str>, Errno> {
    let opens;
    let (stat, place) = match opened {
        Opened::Directory(_) => return Ok(None),
        Opened::File(file) => (fstat(file)?, Place::Open(file.as_fd())),
        Opened::Entry(dir, entry) => {
            let stat = lstat(dir.as_fd(), entry)?;
            if kind(&stat) == FileType::RegularFile && memory.is_some() {
                opens = open_file(dir.as_fd(), entry)?;
                (stat, Place::Open(opens.as_fd()))
            } else {
                (stat, Place::Entry(dir.as_fd(), entry))
            }
        }
    };
    let node = match memory {
        Some(memory) => memory.of(b"", place, &stat)?.device.is_some(),
        None => false,
    };
    Ok(match kind(&stat) {
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        FileType::Socket => Some("a socket"),
        _ => node.then_some("a device"),
    })
}

/// The part of a view that is read; as [`open`] finds it.
fn part<'a>(
    memories: &'a Memories<'_>,
    path: &[u8],
    follow: bool,
) -> Result<Option<Part<'a>>, Errno> {
    let Memories::Layers(recall) = memories else { return Ok(None) };
    let (plain, ending) = split_ending(path);
    let name = plain.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if ending != Ending::None || follow || matches!(name, b"" | b"." | b"..") {
        return recall.part(plain).map(Some);
    }
    let entry = CString::new(name).map_err(|_| Errno::INVAL)?;
    Ok(Some(recall.part(&plain[..plain.len() - name.len()])?.child(&entry)))
}

/// Remembers that the other side has gone away.
struct Quiet<W> {
    out: W,
    to_side: bool,
    left: bool,
}

impl<W> Quiet<W> {
    fn look<T>(&mut self, done: std::io::Result<T>) -> std::io::Result<T> {
        if let Err(error) = &done {
            let gone = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
            self.left |= self.to_side && gone;
        }
        done
    }
}

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let done = self.out.write(bytes);
        self.look(done)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let done = self.out.flush();
        self.look(done)
    }
}

fn open(root: Root<'_>, path: &[u8], follow: bool) -> Result<(Opened, Found), Errno> {
    let (plain, ending) = split_ending(path);
    let name = plain.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let found = |kind, name: &[u8]| Found { kind, name: name.to_vec() };
    if ending != Ending::None || matches!(name, b"" | b"." | b"..") {
        let whole = if plain.is_empty() { b"/".as_slice() } else { plain };
        let dir = root.open(whole, OFlags::RDONLY | OFlags::DIRECTORY)?;
        // What has no name of its own gives what is in it.
        let named = ending == Ending::Slash && !matches!(name, b"" | b"." | b"..");
        let kind = if named { Kind::Directory } else { Kind::Contents };
        return Ok((Opened::Directory(dir), found(kind, name)));
    }
    if follow {
        let file = root.open(plain, OFlags::RDONLY | OFlags::NONBLOCK)?;
        return match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::Directory => Ok((Opened::Directory(file), found(Kind::Directory, name))),
            FileType::RegularFile => Ok((Opened::File(file), found(Kind::Other, name))),
            _ => Err(Errno::INVAL),
        };
    }
    let parent = match plain.len() - name.len() {
        0 if matches!(root, Root::Host) => b".".as_slice(),
        0 => b"/",
        length => &plain[..length],
    };
    let parent = root.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let entry = CString::new(name).map_err(|_| Errno::INVAL)?;
    if kind(&lstat(parent.as_fd(), &entry)?) != FileType::Directory {
        return Ok((Opened::Entry(parent, entry), found(Kind::Other, name)));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(&parent, &entry, flags, Mode::empty())?;
    Ok((Opened::Directory(dir), found(Kind::Directory, name)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    None,
    /// `/`: a directory, also behind a symbolic link.
    Slash,
    /// `/.`: what is in it.
    Dot,
}

/// A path without the `/` and `/.` at its end.
pub(super) fn split_ending(path: &[u8]) -> (&[u8], Ending) {
    let (mut rest, mut ending) = (path, Ending::None);
    loop {
        if let Some(short) = rest.strip_suffix(b"/.") {
            (rest, ending) = (short, Ending::Dot);
        } else if let Some(short) = rest.strip_suffix(b"/") {
            rest = short;
            ending = if ending == Ending::None { Ending::Slash } else { ending };
        } else {
            return (rest, ending);
        }
    }
}

fn told(path: &[u8], errno: Errno) -> Fault {
    let fault = Fault::errno("copy", show(path), errno);
    match errno {
        Errno::NOENT => Fault { kind: FaultKind::NotFound, ..fault },
        // Of `-L` alone, see `open`.
        Errno::INVAL => Fault::failed(format!(
            "copy: {}: it is, or leads to, neither a file nor a directory",
            show(path)
        )),
        _ => fault,
    }
}

fn show(path: &[u8]) -> String {
    printable(&OsStr::from_bytes(path).to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter that answers EAGAIN to every openat2(2), as a run does to ours that renames without pause.
    fn never_openat2() -> Vec<u8> {
        const OPENAT2: u32 = 437;
        let (load, jump, answer): (u16, u16, u16) = (0x20, 0x15, 0x06);
        let (errno, allow) = (0x5_0000 | Errno::AGAIN.raw_os_error() as u32, 0x7fff_0000);
        [(load, 0, 0, 0), (jump, 0, 1, OPENAT2), (answer, 0, 0, errno), (answer, 0, 0, allow)]
            .into_iter()
            .flat_map(|(code, jt, jf, k): (u16, u8, u8, u32)| {
                let [c0, c1] = code.to_ne_bytes();
                let [k0, k1, k2, k3] = k.to_ne_bytes();
                [c0, c1, jt, jf, k0, k1, k2, k3]
            })
            .collect()
    }

    #[test]
    fn who_is_never_let_in_by_the_kernel_walks() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/../file", dir.path().join("a/link")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let wanted = fstat(File::open(dir.path().join("file")).unwrap()).unwrap().st_ino;
        // The filter goes with its thread.
        let found = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            crate::sys::seccomp::load(&never_openat2()).unwrap();
            ["/a/b/../../file", "a/../../../file", "//a/link"].map(|path| {
                let root = Root::Inside(root.as_fd());
                root.open(path.as_bytes(), OFlags::RDONLY).map(|file| fstat(file).unwrap().st_ino)
            })
        });
        assert_eq!(found.join().unwrap(), [Ok(wanted); 3]);
    }

    #[test]
    fn endings_are_what_docker_takes_them_for() {
        for (path, rest, ending) in [
            ("/a", "/a", Ending::None),
            ("/a/", "/a", Ending::Slash),
            ("/a/.", "/a", Ending::Dot),
            ("/a/./", "/a", Ending::Dot),
            ("/a//", "/a", Ending::Slash),
            ("/", "", Ending::Slash),
            ("/.", "", Ending::Dot),
            ("a.", "a.", Ending::None),
            (".", ".", Ending::None),
        ] {
            assert_eq!(split_ending(path.as_bytes()), (rest.as_bytes(), ending), "{path}");
        }
    }
}
