//! Verdicts that no profile decides: what is always refused, what is pretended in a box with a single
//! id, and what a nested sandbox needs.
//!
//! They are code and not part of the profiles, so that a profile given as a file cannot leave them out.

use super::filter::{Arg, Op};

/// Calls that are always refused with EPERM, whatever the profile says.
///
/// io_uring makes sockets and opens files behind the filter's back; keyrings are not namespaced by
/// process; bpf is kernel code.
pub(super) const REFUSED: &[&str] = &[
    "add_key",
    "bpf",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "keyctl",
    "request_key",
];

/// A verdict under a condition: call, errno, conditions.
pub(super) struct Conditional {
    /// The call.
    pub(super) name: &'static str,
    /// What it returns; 0 means that it seems to have worked.
    pub(super) errno: u16,
    /// Conditions that must all hold.
    pub(super) args: &'static [Arg],
}

/// The low 32 bits: the kernel takes ioctl's `cmd` and socket's `domain` as 32-bit integers, so a
/// comparison of all 64 bits can be passed by with a bit above them (CVE-2019-7303).
const INT: u64 = 0xffff_ffff;

const fn masked(index: u32, mask: u64, value: u64) -> Arg {
    Arg { index, value: mask, value_two: value, op: Op::MaskedEqual }
}

const fn refuse(name: &'static str, errno: i32, args: &'static [Arg]) -> Conditional {
    Conditional { name, errno: errno as u16, args }
}

/// Arguments that are always refused.
///
/// - TIOCSTI and TIOCLINUX type into, or paste onto, a terminal that may be the caller's
///   (CVE-2017-5226, CVE-2023-28100).
/// - AF_ALG reaches the page cache of read-only files (CVE-2026-31431); AF_VSOCK reaches the hypervisor
///   and is not divided by network namespaces. EAFNOSUPPORT is what a kernel without them says, which
///   every user of them copes with.
/// - socketcall(2) of 32-bit ABIs hides its arguments in memory, where no filter sees them. Refused as
///   ENOSYS: musl, Go and glibc built for Linux 4.3 or later then make the direct calls; older i386
///   programs have no sockets.
pub(super) const REFUSED_IF: &[Conditional] = &[
    refuse("ioctl", libc::EPERM, &[masked(1, INT, 0x5412)]),
    refuse("ioctl", libc::EPERM, &[masked(1, INT, 0x541c)]),
    refuse("socket", libc::EAFNOSUPPORT, &[masked(0, INT, libc::AF_ALG as u64)]),
    refuse("socket", libc::EAFNOSUPPORT, &[masked(0, INT, libc::AF_VSOCK as u64)]),
    refuse("socketpair", libc::EAFNOSUPPORT, &[masked(0, INT, libc::AF_ALG as u64)]),
    refuse("socketpair", libc::EAFNOSUPPORT, &[masked(0, INT, libc::AF_VSOCK as u64)]),
    refuse("socketcall", libc::ENOSYS, &[]),
];

/// What changes the caller's own ids: does nothing and says that it worked, where only one id is mapped and
/// the kernel would answer EINVAL. (Owners of files are for [`super::remember`].)
pub(super) const PRETENDED: &[&str] = &[
    "setfsgid",
    "setfsgid32",
    "setfsuid",
    "setfsuid32",
    "setgid",
    "setgid32",
    "setgroups",
    "setgroups32",
    "setregid",
    "setregid32",
    "setresgid",
    "setresgid32",
    "setresuid",
    "setresuid32",
    "setreuid",
    "setreuid32",
    "setuid",
    "setuid32",
];

/// What a sandbox inside the sandbox calls: namespaces and mounts. Every rule of the profile for these
/// is replaced. The payload still has no CAP_SYS_ADMIN but in user namespaces of its own making.
pub(super) const NESTED: &[&str] = &[
    "clone",
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "setdomainname",
    "sethostname",
    "setns",
    "umount",
    "umount2",
    "unshare",
];
