//! What those get who join a run: descriptors of its namespaces and its root, and how its command is confined.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::spec::RunSpec;
use crate::ids::{IdMap, ORDINARY};
use crate::isolate::caps::CapSet;
use crate::isolate::wall::Wall;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Held {
    /// The user namespace.
    User,
    /// The mount namespace.
    Mount,
    /// The pid namespace.
    Pid,
    /// System V IPC and message queues.
    Ipc,
    /// The host name.
    Uts,
    /// The view of cgroups.
    Cgroup,
    /// The network; not of a run that has the host's.
    Network,
    /// The root directory, as a place (`O_PATH`).
    Root,
    /// A sealed file in memory with a [`Confinement`].
    Confinement,
    /// The directory of the run's cgroup, if it has one of its own.
    Limits,
    /// The journal of remembered owners, a file in memory, if they are remembered.
    Journal,
}

/// All of them, by number.
pub const HELD: [Held; 11] = [
    Held::User,
    Held::Mount,
    Held::Pid,
    Held::Ipc,
    Held::Uts,
    Held::Cgroup,
    Held::Network,
    Held::Root,
    Held::Confinement,
    Held::Limits,
    Held::Journal,
];

/// What has to be there before anybody joins: without one of these he would act outside, in the host's network for one.
pub fn needed(own_network: bool) -> Vec<Held> {
    let mut all =
        vec![Held::User, Held::Root, Held::Mount, Held::Pid, Held::Ipc, Held::Uts, Held::Cgroup];
    all.extend(own_network.then_some(Held::Network));
    all
}

/// Bytes, in base64 where they are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// How the command of a run is confined, so that whoever joins is confined alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The ids inside and outside.
    pub id_map: IdMap,
    /// The bits of the capabilities of inside root.
    pub capabilities: u64,
    /// The highest capability that the kernel knows.
    pub last_capability: u32,
    /// The compiled seccomp program.
    pub seccomp: Bytes,
    /// Whether what the id map cannot hold is remembered.
    pub remember: bool,
    /// The environment, a line each.
    pub environment: Vec<Bytes>,
    /// The working directory inside.
    pub workdir: Bytes,
    /// `USER[:GROUP]`; inside root if none.
    pub user: Option<String>,
    /// Whether that is the ordinary user of `--as-user`.
    #[serde(default)]
    pub ordinary: bool,
    /// Whether it begins in its home directory.
    #[serde(default)]
    pub at_home: bool,
    /// Resource limits: number, soft, hard.
    pub limits: Vec<(u32, Option<u64>, Option<u64>)>,
    /// Whether abstract sockets of the host's network are out of reach.
    #[serde(default)]
    pub scoped: bool,
    /// Whether it has a network of its own; older supervisors do not say.
    #[serde(default)]
    pub own_network: Option<bool>,
}

impl Confinement {
    /// That of a spec's payload.
    pub fn of(spec: &RunSpec) -> Self {
        let limit = |(resource, limit): &(Resource, Rlimit)| {
            (*resource as u32, limit.current, limit.maximum)
        };
        Self {
            id_map: spec.id_map.clone(),
            capabilities: spec.capabilities.0,
            last_capability: spec.last_capability,
            seccomp: Bytes(spec.seccomp.clone()),
            remember: spec.remember.is_some(),
            environment: spec.environment.iter().map(|l| Bytes(l.as_bytes().to_vec())).collect(),
            workdir: Bytes(spec.workdir.as_os_str().as_bytes().to_vec()),
            user: spec.user.as_ref().map(ToString::to_string),
            ordinary: spec.ordinary.is_some(),
            at_home: spec.ordinary.as_ref().is_some_and(|ordinary| ordinary.at_home),
            limits: spec.limits.iter().map(limit).collect(),
            scoped: spec.wall.sockets,
            own_network: Some(spec.own_network),
        }
    }

    /// The ids as those in the run call them.
    pub fn map_inside(&self) -> IdMap {
        if self.ordinary { self.id_map.known_as(ORDINARY) } else { self.id_map.clone() }
    }

    /// What Landlock keeps from who joins: not from files, for in a domain of its own a command sees of no other what it is
    /// made of (/proc/PID/exe), by which init scripts know what they have started.
    pub fn wall(&self) -> Wall {
        Wall { files: 0, sockets: self.scoped }
    }

    /// Its capabilities.
    pub fn capabilities(&self) -> CapSet {
        CapSet(self.capabilities)
    }

    /// Its working directory.
    pub fn workdir(&self) -> PathBuf {
        std::ffi::OsString::from_vec(self.workdir.0.clone()).into()
    }

    /// Its environment.
    pub fn environment(&self) -> Vec<CString> {
        self.environment.iter().filter_map(|line| CString::new(line.0.clone()).ok()).collect()
    }

    /// Its limits.
    pub fn limits(&self) -> Vec<(Resource, Rlimit)> {
        let limit = |(number, current, maximum): &(u32, Option<u64>, Option<u64>)| {
            let resource = RESOURCES.into_iter().find(|one| *one as u32 == *number)?;
            Some((resource, Rlimit { current: *current, maximum: *maximum }))
        };
        self.limits.iter().filter_map(limit).collect()
    }

    /// As a sealed file in memory, whose readers cannot change what the next one reads.
    ///
    /// # Errors
    /// What memfd_create(2) and write(2) say.
    pub fn seal(&self) -> Result<OwnedFd, Errno> {
        let bytes = serde_json::to_vec(self).map_err(|_| Errno::INVAL)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("confinement", flags)?;
        let mut at = 0;
        while at < bytes.len() {
            at += rustix::io::pwrite(&file, &bytes[at..], at as u64)?;
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals)?;
        Ok(file)
    }

    /// From such a file.
    ///
    /// # Errors
    /// What reading says; EPROTO for other content.
    pub fn read(file: impl AsFd) -> Result<Self, Errno> {
        // The position is shared with others who read it.
        let size = rustix::fs::fstat(&file)?.st_size;
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Errno::FBIG)?];
        let mut at = 0;
        while at < bytes.len() {
            match rustix::io::pread(&file, &mut bytes[at..], at as u64)? {
                0 => return Err(Errno::PROTO),
                count => at += count,
            }
        }
        serde_json::from_slice(&bytes).map_err(|_| Errno::PROTO)
    }
}

const RESOURCES: [Resource; 16] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Extent, Mode};

    #[test]
    fn a_confinement_is_read_as_it_was_sealed_and_cannot_be_changed() {
        let extent = vec![Extent { inside: 0, outside: 1000, count: 1 }];
        let confinement = Confinement {
            id_map: IdMap { mode: Mode::Single, uids: extent.clone(), gids: extent },
            capabilities: 5,
            last_capability: 40,
            seccomp: Bytes(vec![0, 255, 7]),
            remember: false,
            environment: vec![Bytes(b"A=\xff".to_vec())],
            workdir: Bytes(b"/\xfe".to_vec()),
            user: Some("1:2".into()),
            ordinary: true,
            at_home: true,
            limits: vec![(Resource::Nofile as u32, Some(9), None)],
            scoped: true,
            own_network: Some(true),
        };
        let file = confinement.seal().unwrap();
        for _ in 0..2 {
            assert_eq!(Confinement::read(&file).unwrap(), confinement);
        }
        assert!(rustix::io::pwrite(&file, b"x", 0).is_err());
        let limit = Rlimit { current: Some(9), maximum: None };
        assert_eq!(confinement.limits(), [(Resource::Nofile, limit)]);
    }

    #[test]
    fn the_numbers_are_those_of_the_list() {
        for (index, held) in HELD.into_iter().enumerate() {
            assert_eq!(held as usize, index);
        }
    }
}
