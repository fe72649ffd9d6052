//! What this process and this machine have to offer for a map.

use std::fs::File;
use std::io::Read;

use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use super::accounts::{self, Owner};
use super::map::{IdMap, MOST_EXTENTS};
use super::refused::run_out;
use super::span::{Span, covers, within};
use crate::fault::{Result, printable};

/// Files of /etc are read up to this many bytes; the rest of a larger one is not looked at.
const LONGEST_FILE: u64 = 16 << 20;

/// All ids there are.
const ALL: Span = Span { first: 0, count: u32::MAX };

/// What this process and this machine have to offer.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The effective ids.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether we may write the maps of a child ourselves: CAP_SETUID and CAP_SETGID.
    pub(super) sets_ids: bool,
    /// Whether this is the initial user namespace.
    pub(super) initial: bool,
    /// The ids that our own user namespace holds.
    pub(super) held_uids: Vec<Span>,
    pub(super) held_gids: Vec<Span>,
    /// The user's name, if it is known.
    pub(super) name: Option<String>,
    /// The texts of the files in /etc; empty for one that is absent.
    pub(super) passwd: String,
    pub(super) group: String,
    pub(super) subuid: String,
    pub(super) subgid: String,
}

/// Whether inside this map root is root of this machine, also where it is the only id.
pub fn is_no_boundary(map: &IdMap) -> bool {
    map.has_root_of_outside() && in_initial_namespace()
}

/// Whether this process is in the initial user namespace, or cannot find that out.
pub fn in_initial_namespace() -> bool {
    read("/proc/self/uid_map").map_or(true, |map| accounts::is_initial(&map))
}

impl Facts {
    /// As this process finds them.
    ///
    /// # Errors
    /// Failed, for what could be read at another time.
    pub(super) fn read() -> Result<Self> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let set_ids = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let uid_map = read("/proc/self/uid_map")?;
        let passwd = read("/etc/passwd")?;
        Ok(Self {
            uid,
            gid,
            sets_ids: capabilities(None).is_ok_and(|sets| sets.effective.contains(set_ids)),
            initial: accounts::is_initial(&uid_map),
            held_uids: accounts::held(&uid_map),
            held_gids: accounts::held(&read("/proc/self/gid_map")?),
            name: accounts::user_name(&passwd, uid).map(str::to_owned).or_else(name_of_session),
            passwd,
            group: read("/etc/group")?,
            subuid: read("/etc/subuid")?,
            subgid: read("/etc/subgid")?,
        })
    }

    pub(super) fn owner(&self) -> Owner<'_> {
        Owner { name: self.name.as_deref(), uid: self.uid }
    }

    /// How to call the user in a message.
    pub(super) fn user(&self) -> String {
        self.name.as_deref().map_or_else(|| format!("uid {}", self.uid), printable)
    }

    pub(super) fn sub_uids(&self) -> Vec<Span> {
        self.delegated(&self.subuid, &self.held_uids, self.uid)
    }

    pub(super) fn sub_gids(&self) -> Vec<Span> {
        self.delegated(&self.subgid, &self.held_gids, self.gid)
    }

    /// The same, whether our own namespace holds them or not.
    pub(super) fn given_uids(&self) -> Vec<Span> {
        self.delegated(&self.subuid, &[ALL], self.uid)
    }

    pub(super) fn given_gids(&self) -> Vec<Span> {
        self.delegated(&self.subgid, &[ALL], self.gid)
    }

    /// The user's ranges that can be used: without root's id and the caller's own, without ids named
    /// twice, and only what our own namespace holds.
    fn delegated(&self, text: &str, held: &[Span], own: u32) -> Vec<Span> {
        let mut taken: Vec<Span> = [0, own].into_iter().filter_map(Span::one).collect();
        let mut out = Vec::new();
        for range in accounts::ranges_of(text, self.owner()).into_iter().take(MOST_EXTENTS) {
            for part in within(range, held) {
                out.extend(part.without(&taken));
                taken.push(part);
            }
        }
        out
    }

    /// Ids that belong to somebody.
    pub(super) fn taken(&self) -> Vec<Span> {
        let accounts =
            accounts::account_ids(&self.passwd).chain(accounts::account_ids(&self.group));
        let ranges =
            accounts::ranges(&self.subuid).into_iter().chain(accounts::ranges(&self.subgid));
        accounts.filter_map(Span::one).chain(ranges).collect()
    }

    /// Ids that belong to somebody else.
    pub(super) fn others(&self) -> Vec<Span> {
        let mut own = self.given_uids();
        own.extend(self.given_gids());
        own.extend([self.uid, self.gid].into_iter().filter_map(Span::one));
        self.taken().into_iter().filter(|span| !covers(&own, *span)).collect()
    }
}

/// The name of a user whom only a directory service knows. A wrong one does no harm: newuidmap asks the
/// name service itself and refuses.
fn name_of_session() -> Option<String> {
    std::env::var("USER").ok().filter(|name| !name.is_empty())
}

/// The text of a file, empty if it cannot be read: to have no file and to have no line is the same. But one that
/// could be read at another time is not taken for empty.
fn read(path: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    match file.and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut bytes)) {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            let fault = Errno::from_io_error(&error)
                .and_then(|errno| run_out(&format!("read: {path}"), errno));
            fault.map_or_else(|| Ok(String::new()), Err)
        }
    }
}
