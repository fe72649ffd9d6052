//! The seccomp program of a run, from the cache where possible.
//!
//! libseccomp needs 10 to 30 ms for a profile of two architectures, so the result is kept in a directory
//! of the caller's own 0700 store, which no payload can reach. The name of a file is a digest of all that
//! the program depends on; the file is never changed, and may be removed at any time.
//!
//! A file is a header of 16 bytes (a mark with the format number, the length, a checksum) and the
//! program. It is not synced: a file torn by a crash fails its checksum and is made again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::{Errno, read, write};

use super::profile::Profile;
use super::{bpf, compile};
use crate::fault::{Fault, Result};

/// Marks a file of ours. The number changes with the way programs are made: since 3 what is remembered is not pretended
/// by this program, whose word would count more than the handler's.
const MARK: [u8; 4] = *b"sbx4";
const HEADER: usize = 16;
/// The longest program the kernel takes.
const MOST_BYTES: usize = bpf::MOST_INSTRUCTIONS * bpf::INSTRUCTION;
/// SECCOMP_RET_ALLOW.
const ALLOW: u32 = 0x7fff_0000;
/// What one read takes, so that no memory is touched for nothing.
const USUAL_BYTES: usize = 8 << 10;

/// What else than the profile decides about the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// Only one id is mapped: changing owners and ids, and making devices, is pretended, if the profile
    /// remembers ids.
    pub single: bool,
    /// A sandbox is to run inside: namespaces and mounts are allowed.
    pub nesting: bool,
}

/// The BPF program, an array of struct sock_filter, for [`crate::sys::seccomp::load`].
///
/// `cache_dir` is a directory of ours that is never visible to a payload. A cache that cannot be read or
/// written costs time and is no error.
///
/// # Errors
/// `usage` if the profile forbids nesting and it is asked for; `failed` if libseccomp fails.
pub fn program(profile: &Profile, request: &Request, cache_dir: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let request = effective(profile, request)?;
    let name = file_name(profile, &request);
    if let Some(program) = cached(cache_dir, &name) {
        return Ok(program);
    }
    let program = made(profile, &request)?;
    // Only a saving for the next run: a full or read-only disk must not fail this one here.
    let _ = keep(cache_dir, &name, &program);
    Ok(program)
}

/// The same without a cache.
///
/// # Errors
/// As [`program`].
pub fn compiled(profile: &Profile, request: &Request) -> Result<Vec<u8>> {
    let request = effective(profile, request)?;
    made(profile, &request)
}

fn made(profile: &Profile, request: &Request) -> Result<Vec<u8>> {
    compile::compile(&profile.seccomp()?, request).map_err(|fault| profile.blame(fault))
}

/// How many system calls of this machine a program allows when all their arguments are 0.
pub fn allowed(program: &[u8]) -> usize {
    let Some(arch) = compile::native() else { return 0 };
    let allows = |number: &u32| bpf::verdict(program, arch, *number, [0; 6]) == Some(ALLOW);
    (0..1024).filter(allows).count()
}

fn effective(profile: &Profile, request: &Request) -> Result<Request> {
    if request.nesting && !profile.nesting {
        return Err(Fault::usage(format!(
            "profile: {}: it does not allow a sandbox inside the sandbox",
            profile.name()
        ))
        .hint("use --profile build or --profile dev with --nest"));
    }
    Ok(Request { single: request.single && profile.remember_ids, ..*request })
}

/// A digest over the profile's text, the request, the library, the kernel and the machine. Only whoever
/// owns the store chooses these, so a hash without secrets will do; one of SHA-2 would first ask the
/// processor what it can do, which under a hypervisor takes longer than all the rest here.
fn file_name(profile: &Profile, request: &Request) -> String {
    let version = libseccomp::ScmpVersion::current()
        .map_or((0, 0, 0), |version| (version.major, version.minor, version.micro));
    let uname = rustix::system::uname();
    let parts = (
        profile.identity(),
        (request.single, request.nesting),
        version,
        (uname.release(), uname.version(), uname.machine()),
    );
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, MARK, parts).hash(&mut hasher);
        hasher.finish()
    };
    format!("seccomp-{:016x}{:016x}.bpf", half(1), half(2))
}

fn cached(dir: BorrowedFd<'_>, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat(dir, name, flags, Mode::empty()).ok()?;
    let mut bytes = vec![0; USUAL_BYTES];
    // A regular file of this size never comes in parts, and a short one fails the checks.
    let mut length = read(&file, &mut bytes).ok()?;
    if length == bytes.len() {
        bytes.resize(HEADER + MOST_BYTES, 0);
        length += read(&file, &mut bytes[length..]).ok()?;
    }
    bytes.truncate(length);
    let program = bytes.get(HEADER..)?;
    if bytes.get(..HEADER)? != header(program) || program.is_empty() {
        return None;
    }
    bytes.drain(..HEADER);
    Some(bytes)
}

fn keep(dir: BorrowedFd<'_>, name: &str, program: &[u8]) -> Result<(), Errno> {
    let temporary = format!(".{name}.{}", std::process::id());
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
    let mut bytes = header(program).to_vec();
    bytes.extend_from_slice(program);
    let result = match write(&file, &bytes) {
        Ok(length) if length == bytes.len() => renameat(dir, &temporary, dir, name),
        Ok(_) => Err(Errno::NOSPC),
        Err(errno) => Err(errno),
    };
    if result.is_err() {
        let _ = unlinkat(dir, &temporary, AtFlags::empty());
    }
    result
}

fn header(program: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MARK);
    header[4..8].copy_from_slice(&(program.len() as u32).to_le_bytes());
    header[8..].copy_from_slice(&fingerprint(program).to_le_bytes());
    header
}

/// FNV-1a of 64 bits: against accidents, not against an adversary, and computable at compile time.
pub(super) const fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
