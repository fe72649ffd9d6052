//! `cp`: files into and out of runs and snapshots.
//!
//! Two processes, and a tar stream between them: one reads, one writes (`beside`). Whichever is at the side of the
//! sandbox works inside the user namespace, by descriptor beneath the root, which no symbolic link leads out of,
//! whatever a live run does to its files meanwhile (CVE-2018-15664, CVE-2019-14271, CVE-2026-41567); whichever is at
//! the side of the host is the caller, with no right but his. No program of a layer is executed.
//!
//! Owners are not carried over: what is copied in belongs to uid 0 inside, what is copied out to the caller, as with
//! docker cp. An archive (`-`) has the owners of the inside, both ways, and devices, also where these are only remembered
//! ([`crate::tree::recall`], [`crate::tree::living`]).

mod beside;
mod source;
mod talk;
mod target;
mod view;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{getegid, geteuid};
use serde::Serialize;

use beside::{Helper, await_all};
use source::{Memories, Out, Root, produce};
use target::{In, Taken, consume};
use view::{Live, View};

use super::diff::at;
use super::fresh::{Fresh, Opened, readable};
use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, Entry, Extent, IdMap, Mode, Powers};
use crate::image::tar::write::{Form, Written};
use crate::run::answer;
use crate::store::{BoxName, LayerId, SnapshotName, Store};
use crate::tree::dir::mount_of;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path of the host.
    Host(OsString),
    /// An archive on standard input or output.
    Stream,
    /// A path of a snapshot or a run.
    Inside {
        /// Which.
        what: String,
        /// The path, from its root.
        path: OsString,
    },
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// From where.
    pub from: Place,
    /// To where.
    pub to: Place,
    /// The name of the new snapshot, if it is copied into one.
    pub name: Option<SnapshotName>,
    /// Whether a source that is a symbolic link stands for what it leads to.
    pub follow: bool,
}

/// What was copied.
#[derive(Debug, Default, Serialize)]
pub struct Copied {
    /// Files, directories and the rest.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// The layer that was made, of a copy into a snapshot.
    pub layer: Option<LayerId>,
    /// The snapshot that names it.
    pub name: Option<SnapshotName>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Reads an end of a copy as docker cp does: `-`; a path of the host if it begins with `/` or `.`, or has no colon; else
/// what stands before the first colon is a snapshot or run.
///
/// # Errors
/// Usage for an empty one, or a name that is not UTF-8.
pub fn place(word: &OsStr) -> Result<Place> {
    let bytes = word.as_bytes();
    let bad = |why: &str| {
        let shown = printable(&word.to_string_lossy());
        Err(Fault::usage(format!("copy: {shown}: {why}"))
            .hint("give PATH, NAME:PATH, RUN:PATH or -"))
    };
    match bytes.iter().position(|byte| *byte == b':') {
        _ if bytes == b"-" => Ok(Place::Stream),
        _ if bytes.is_empty() => bad("it is empty"),
        Some(at) if !matches!(bytes[0], b'/' | b'.') => match std::str::from_utf8(&bytes[..at]) {
            Ok("") => bad("no name before the colon"),
            Ok(what) => {
                let path = OsString::from_vec(bytes[at + 1..].to_vec());
                Ok(Place::Inside { what: what.to_owned(), path })
            }
            Err(_) => bad("no snapshot or run has such a name"),
        },
        _ => Ok(Place::Host(word.to_owned())),
    }
}

/// Copies.
///
/// # Errors
/// Usage for two ends at the same side; not-found for what is not there; conflict where something is in the way. A copy
/// into a directory may have been made in part; a snapshot is made in whole or not at all.
pub fn copy(store: &Store, box_name: &BoxName, options: &CopyOptions) -> Result<Copied> {
    match (&options.from, &options.to) {
        (Place::Inside { what, path }, to) if !matches!(to, Place::Inside { .. }) => {
            refuse_name(options)?;
            out(store, &view::of(store, box_name, what)?, path, to, options.follow)
        }
        (from, Place::Inside { what, path }) if !matches!(from, Place::Inside { .. }) => {
            if let Some(name) = &options.name {
                return fill(store, box_name, what, name, from, path, options.follow);
            }
            let View::Live(live) = view::of(store, box_name, what)? else {
                return Err(Fault::usage(format!("copy to: {what}: it does not change any more"))
                    .hint("a copy into a snapshot makes a new one: --as NAME"));
            };
            let target = Target { store, side: Side::Live(&live) };
            into(&target, from, path, options.follow).map(|(copied, _)| copied)
        }
        (Place::Inside { .. }, _) => Err(Fault::usage("copy: both ends are inside")
            .hint("through an archive: `sandbox cp A:/path -`, piped into `sandbox cp - B:/path`")),
        _ => Err(Fault::usage("copy: neither end is a snapshot or a run")
            .hint("NAME:PATH or RUN:PATH; a path of the host with a colon is written ./a:b")),
    }
}

fn refuse_name(options: &CopyOptions) -> Result<()> {
    match options.name {
        None => Ok(()),
        Some(_) => Err(Fault::usage("copy: --as: nothing is copied into a snapshot")),
    }
}

/// Into a snapshot: onto a fresh upper, which becomes a layer, or goes.
fn fill(
    store: &Store,
    box_name: &BoxName,
    what: &str,
    name: &SnapshotName,
    from: &Place,
    path: &OsStr,
    follow: bool,
) -> Result<Copied> {
    let argv = vec!["sandbox".to_owned(), "cp".to_owned()];
    let fresh = Fresh::begin(store, box_name, what, Some(name), argv)
        .map_err(|fault| view::no_snapshot(what, fault))?;
    let target = Target { store, side: Side::Fresh(&fresh) };
    let answer = into(&target, from, path, follow)
        .and_then(|(copied, journal)| Ok((copied, fresh.commit("cp", None, &journal)?)));
    let discarded = fresh.discard();
    let (copied, made) = answer?;
    discarded?;
    let layer = made.map(|made| made.layer);
    Ok(Copied { layer, name: Some(name.clone()), ..copied })
}

/// A side that is written to.
#[derive(Debug)]
struct Target<'a> {
    store: &'a Store,
    side: Side<'a>,
}

#[derive(Debug)]
enum Side<'a> {
    Live(&'a Live),
    Fresh(&'a Fresh<'a>),
}

impl Target<'_> {
    fn work(&self, path: &OsStr, from: In) -> Result<Option<Taken>> {
        match self.side {
            Side::Live(live) => live.inside(|root, map| {
                let (place, path) = (Root::Inside(root), path.as_bytes());
                let Some(journal) = live.journal() else {
                    // Of this run nothing is remembered.
                    return consume(place, path, map, from, |_| Ok(false));
                };
                // On binds and in memory nothing is.
                let mount = mount_of(root).context("look at", "the root of a run")?;
                let taken = consume(place, path, map, from, |dir| Ok(mount_of(dir)? == mount))?;
                if let Some(taken) = &taken
                    && !taken.journal.is_empty()
                {
                    answer::add(journal, &taken.journal).context("write", "journal of the run")?;
                }
                Ok(taken)
            }),
            Side::Fresh(fresh) => {
                let work = |opened: Opened| {
                    let root = readable(&opened.mount()?)?;
                    let root = Root::Inside(root.as_fd());
                    consume(root, path.as_bytes(), fresh.map(), from, |_| Ok(true))
                };
                let entry = Entry::Map(fresh.map());
                at(self.store, || {
                    ids::inside_prepared(entry, Powers::Mounts, || fresh.open(), work)
                })
            }
        }
    }

    fn line(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match self.side {
            Side::Live(live) => Some(live.joined.line.as_fd()),
            Side::Fresh(_) => None,
        }
    }
}

/// From the host, or an archive, to the inside; with what goes into the journal of a fresh upper.
fn into(target: &Target<'_>, from: &Place, path: &OsStr, follow: bool) -> Result<(Copied, String)> {
    let Place::Host(source) = from else {
        let input =
            fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("read", "standard input")?;
        let mut writer = Helper::start(|| target.work(path, In::Stream(input)))?;
        await_end(&[&writer], target.line())?;
        let mut taken = writer.answer::<Option<Taken>>()?;
        let journal = journal_of(&mut taken);
        return Ok((told(None, taken), journal));
    };
    let form = Form { owner: Some((0, 0)), without_set_id: false, user_attributes_only: true };
    let (ours, theirs) = pair()?;
    let mut ends = (Some(ours), Some(theirs));
    let mut reader = Helper::start(|| {
        ends.1 = None;
        let out = Out::Side(ends.0.take().ok_or_else(lost)?);
        produce((Root::Host, &Memories::None), source.as_bytes(), follow, form, out)
    })?;
    ends.0 = None;
    let mut writer =
        Helper::start(|| target.work(path, In::Side(ends.1.take().ok_or_else(lost)?)))?;
    drop(ends);
    await_end(&[&reader, &writer], target.line())?;
    let (written, mut taken) = (reader.answer()?, writer.answer()?);
    let journal = journal_of(&mut taken);
    Ok((both(written, taken)?, journal))
}

fn journal_of(taken: &mut Option<Taken>) -> String {
    taken.as_mut().map(|taken| std::mem::take(&mut taken.journal)).unwrap_or_default()
}

/// From the inside to the host, or into an archive.
fn out(store: &Store, view: &View, path: &OsStr, to: &Place, follow: bool) -> Result<Copied> {
    let line = match view {
        View::Live(live) => Some(live.joined.line.as_fd()),
        View::Layers { .. } => None,
    };
    let Place::Host(target) = to else {
        let output =
            fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).context("write", "standard output")?;
        let mut reader = Helper::start(|| {
            view.inside(store, |root, memories, _| {
                let out = Out::Stream(output);
                produce((root, memories), path.as_bytes(), follow, Form::default(), out)
            })
        })?;
        await_end(&[&reader], line)?;
        return Ok(told(Some(reader.answer()?), None));
    };
    let own = (geteuid().as_raw(), getegid().as_raw());
    let form = Form { owner: Some(own), without_set_id: true, user_attributes_only: true };
    let (ours, theirs) = pair()?;
    let mut ends = (Some(ours), Some(theirs));
    let mut reader = Helper::start(|| {
        ends.1 = None;
        let socket = ends.0.take().ok_or_else(lost)?;
        view.inside(store, |root, memories, _| {
            produce((root, memories), path.as_bytes(), follow, form, Out::Side(socket))
        })
    })?;
    ends.0 = None;
    let mut writer = Helper::start(|| {
        let one = |id| vec![Extent { inside: id, outside: id, count: 1 }];
        let only = IdMap { mode: Mode::Single, uids: one(own.0), gids: one(own.1) };
        let from = In::Side(ends.1.take().ok_or_else(lost)?);
        consume(Root::Host, target.as_bytes(), &only, from, |_| Ok(false))
    })?;
    drop(ends);
    await_end(&[&reader, &writer], line)?;
    both(reader.answer()?, writer.answer()?)
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("make a socket pair", "for a copy")
}

fn lost() -> Fault {
    Fault::failed("copy: the other side: is gone")
}

fn await_end(helpers: &[&Helper], line: Option<std::os::fd::BorrowedFd<'_>>) -> Result<()> {
    if await_all(helpers, line)? {
        return Ok(());
    }
    Err(Fault::failed("copy: the run has ended, and the copy with it"))
}

/// What came of both sides. A reader that could write no more is no failure of its own.
fn both(written: Written, read: Option<Taken>) -> Result<Copied> {
    match read {
        Some(taken) => Ok(told(Some(written), Some(taken))),
        None => Err(lost()),
    }
}

fn told(written: Option<Written>, taken: Option<Taken>) -> Copied {
    let mut copied = Copied::default();
    let mut note = |count: u64, what: &str| {
        if count > 0 {
            copied.notes.push(format!("{what}: {count}"));
        }
    };
    if let Some(written) = &written {
        note(written.changed, "left out or cut off, because they changed meanwhile");
        note(written.sockets, "sockets left out");
        note(written.mounts, "mount points copied empty");
    }
    let totals = taken.as_ref().map(|taken| taken.totals);
    if let Some(taken) = &taken {
        note(
            taken.remembered,
            "have an owner or are a device that the id map does not hold: remembered",
        );
    }
    if let Some(totals) = &totals {
        note(totals.devices, "device nodes left out");
        note(totals.unmapped, "belong to 0, because the id map does not hold their owners");
        note(totals.xattrs_lost, "attributes lost");
    }
    (copied.entries, copied.bytes) = match (written, totals) {
        (_, Some(totals)) => (totals.files, totals.bytes),
        (Some(written), None) => (written.entries, written.bytes),
        _ => (0, 0),
    };
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_as_docker_reads_them() {
        let inside =
            |what: &str, path: &str| Place::Inside { what: what.into(), path: path.into() };
        for (word, wanted) in [
            ("-", Place::Stream),
            ("a", Place::Host("a".into())),
            ("/a:b", Place::Host("/a:b".into())),
            ("./a:b", Place::Host("./a:b".into())),
            ("a:/b", inside("a", "/b")),
            ("a:b:c", inside("a", "b:c")),
            ("box/a:/b", inside("box/a", "/b")),
            ("a:", inside("a", "")),
        ] {
            assert_eq!(place(word.as_ref()).unwrap(), wanted, "{word}");
        }
        for word in ["", ":/a"] {
            assert!(place(word.as_ref()).is_err(), "{word}");
        }
    }
}
