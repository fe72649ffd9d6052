//! Trees to start from: a tiny one with a shell, made once per process from programs of this machine, and
//! the Debian tree of `SANDBOX_TEST_TREE` in a store that tests share.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::env::{Env, folder};
use super::{Cmd, Ids, ids};

/// What the tiny tree has in /bin.
const PROGRAMS: &[&str] = &[
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "dd",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mv",
    "od",
    "printf",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "touch",
    "tr",
    "true",
    "unshare",
    "wc",
];

/// Regular files and directories of several owners: path, mode, uid, gid, content (none: a directory).
pub(crate) const OWNED: &[(&str, u32, u64, u64, Option<&str>)] = &[
    ("etc/", 0o755, 0, 0, None),
    ("etc/passwd", 0o644, 0, 0, Some(PASSWD)),
    ("etc/group", 0o644, 0, 0, Some(GROUP)),
    ("etc/shadow", 0o640, 0, 5, Some("root:*:::::::\n")),
    ("opt/", 0o755, 0, 0, None),
    ("opt/deep/", 0o755, 0, 0, None),
    ("opt/deep/a", 0o644, 0, 0, Some("a\n")),
    ("opt/deep/b", 0o644, 0, 0, Some("b\n")),
    ("opt/type", 0o644, 0, 0, Some("a file\n")),
    ("opt/plain", 0o644, 0, 0, Some("plain\n")),
    ("root/", 0o700, 0, 0, None),
    ("tmp/", 0o1777, 0, 0, None),
    ("usr/", 0o755, 0, 0, None),
    ("usr/bin/", 0o755, 0, 0, None),
    ("usr/bin/tty-owned", 0o2755, 0, 5, Some("#!/bin/sh\nid -g\n")),
    ("var/", 0o755, 0, 0, None),
    ("var/spool/", 0o750, 1, 5, None),
    ("var/spool/job", 0o640, 1, 5, Some("job\n")),
    ("var/spool/secret", 0o000, 1, 1, Some("secret\n")),
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/var/spool:/bin/sh\nbuilder:x:1000:1000::/home/builder:/bin/sh\n";
const GROUP: &str =
    "root:x:0:\ndaemon:x:1:\ntty:x:5:daemon\nbuilder:x:1000:\nextra:x:1001:builder\n";

/// What all tests of this process share. A child removes it when we are gone, however we end: it waits for
/// the end of its stdin, and whoever waits for our output waits for it, too.
struct Shared {
    dir: PathBuf,
    _remover: Child,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let dir = folder();
        let line = format!("cat >/dev/null; {}", remove_line());
        let remover = Command::new("sh")
            .args(["-c", &line, "remover"])
            .arg(&dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .expect("a remover");
        Shared { dir, _remover: remover }
    })
}

/// A line for a shell that removes `$1`, which may hold files of mapped ids and directories of mode 0000.
fn remove_line() -> &'static str {
    match ids() {
        Ids::Subuid => {
            "rm -rf \"$1\" 2>/dev/null || unshare --map-root-user --map-auto rm -rf \"$1\""
        }
        Ids::Single => "rm -rf \"$1\" 2>/dev/null || unshare --map-root-user rm -rf \"$1\"",
        Ids::Range | Ids::Identity => "rm -rf \"$1\"",
    }
}

pub(crate) fn remove(dir: &Path) {
    let done = Command::new("sh").args(["-c", remove_line(), "remover"]).arg(dir).status();
    assert!(done.is_ok_and(|status| status.success()), "remove {}", dir.display());
}

/// The tar of the tiny tree.
pub(crate) fn tiny() -> &'static Path {
    static TINY: OnceLock<PathBuf> = OnceLock::new();
    TINY.get_or_init(|| {
        let path = shared().dir.join("tiny.tar");
        fs::write(&path, tiny_tar()).expect("tiny.tar");
        path
    })
}

pub(crate) fn tiny_source() -> String {
    format!("tar:{}", tiny().display())
}

fn tiny_tar() -> Vec<u8> {
    let mut tar = Tar::new();
    let mut folders = BTreeSet::new();
    let mut programs: Vec<(String, PathBuf)> = Vec::new();
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let path = find(name);
        libraries.extend(needed(&path));
        programs.push((format!("bin/{name}"), path));
    }
    programs.extend(
        libraries
            .into_iter()
            .map(|path| (path.to_str().expect("UTF-8").trim_start_matches('/').to_owned(), path)),
    );
    for (inside, path) in programs {
        let mut above: Vec<_> = Path::new(&inside).ancestors().skip(1).collect();
        above.reverse();
        for folder in above.into_iter().filter(|folder| !folder.as_os_str().is_empty()) {
            if folders.insert(folder.to_owned()) {
                tar.dir(&format!("{}/", folder.display()), 0o755, 0, 0);
            }
        }
        tar.file(&inside, 0o755, 0, 0, &fs::read(path).expect("program"));
    }
    for (path, mode, uid, gid, content) in OWNED {
        match content {
            Some(content) => tar.file(path, *mode, *uid, *gid, content.as_bytes()),
            None => tar.dir(path, *mode, *uid, *gid),
        }
    }
    tar.end()
}

fn find(name: &str) -> PathBuf {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    let found = found.unwrap_or_else(|| panic!("no {name} on this machine"));
    found.canonicalize().expect("canonical")
}

/// The libraries and the loader of a program, as ldd(1) tells them.
fn needed(program: &Path) -> Vec<PathBuf> {
    let told = Command::new("ldd").arg(program).output().expect("ldd");
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A tar made entry by entry.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn add(
        &mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        owner: (u64, u64),
        data: &[u8],
    ) {
        let mut header = header(kind, path, mode, owner);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.append(&header, data).expect("entry");
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, uid: u64, gid: u64, data: &[u8]) {
        self.add(tar::EntryType::Regular, path, mode, (uid, gid), data);
    }

    pub(crate) fn dir(&mut self, path: &str, mode: u32, uid: u64, gid: u64) {
        self.add(tar::EntryType::Directory, path, mode, (uid, gid), b"");
    }

    pub(crate) fn link(&mut self, kind: tar::EntryType, path: &str, target: &str) {
        self.owned_link(kind, path, target, 0o777, (0, 0));
    }

    pub(crate) fn owned_link(
        &mut self,
        kind: tar::EntryType,
        path: &str,
        target: &str,
        mode: u32,
        owner: (u64, u64),
    ) {
        let mut header = header(kind, path, mode, owner);
        put(&mut header.as_old_mut().linkname, target);
        header.set_cksum();
        self.0.append(&header, &b""[..]).expect("entry");
    }

    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.node(tar::EntryType::Char, path, 0o600, (0, 0), (major, minor));
    }

    pub(crate) fn node(
        &mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        owner: (u64, u64),
        (major, minor): (u32, u32),
    ) {
        let mut header = header(kind, path, mode, owner);
        header.set_device_major(major).expect("major");
        header.set_device_minor(minor).expect("minor");
        header.set_cksum();
        self.0.append(&header, &b""[..]).expect("entry");
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0.into_inner().expect("tar")
    }
}

/// A header with the path as it is: hostile ones, too, which the library would refuse.
fn header(kind: tar::EntryType, path: &str, mode: u32, (uid, gid): (u64, u64)) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    put(&mut header.as_old_mut().name, path);
    header
}

fn put(mut field: &mut [u8], text: &str) {
    field.write_all(text.as_bytes()).expect("a short name");
}

/// The tar of the Debian tree.
pub(crate) fn debian_tar() -> String {
    let tree = std::env::var("SANDBOX_TEST_TREE").ok().filter(|path| !path.is_empty());
    tree.expect("SANDBOX_TEST_TREE: a tar of a Debian tree: integration/base-tree.sh")
}

/// The store with a Debian tree that has rpm, perl and dpkg; its box is `default`.
pub(crate) fn debian() -> &'static Env {
    static DEBIAN: OnceLock<Env> = OnceLock::new();
    DEBIAN.get_or_init(|| {
        let env = Env::within(&shared().dir);
        drop(env.init(&["--from", &format!("tar:{}", debian_tar())]).run().ok());
        env
    })
}

/// Compresses with a program of this machine.
pub(crate) fn compressed(program: &str, data: &[u8]) -> Vec<u8> {
    let out = Cmd::new(program, Path::new("/")).arg("-c").input(data).run().ok();
    out.stdout
}
