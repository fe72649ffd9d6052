//! The filter that asks the handler (`run/answer`) about calls whose effect is remembered instead of made:
//! changes of owner that the id map cannot hold, device nodes and, where there is one id only, attributes,
//! among which may be access control lists of ids that are not there.
//!
//! It hangs on the id map, so it is made anew for each run, in front of the profile's program: to load one program takes
//! the kernel less than to load two. Where the profile's verdict on one of these calls hangs on its arguments, it
//! is a program of its own, and the kernel takes the strictest verdict of both. A call that it says nothing about costs
//! nothing, because the kernel keeps "always allowed" per call number (Linux 5.11).

use super::bpf::{
    self, AND, ARCHITECTURE, IF_EQUAL, IF_GREATER, IF_NOT_LESS, INSTRUCTION, Instruction, JUMP,
    LOAD, MOST_INSTRUCTIONS, NUMBER, RET, encode,
};
use crate::ids::{IdMap, Mode};

/// SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ERRNO.
const ALLOW: u32 = 0x7fff_0000;
const ASK: u32 = 0x7fc0_0000;
const SEEMS_DONE: u32 = 0x0005_0000;
/// The same with ENOSYS.
const UNKNOWN: u32 = SEEMS_DONE | libc::ENOSYS as u32;

/// The offset in struct seccomp_data of the low half of an argument, on little-endian machines (all that a
/// profile may name are).
const fn low(argument: u32) -> u32 {
    16 + 8 * argument
}

/// "Leave it as it is", as an id.
const UNCHANGED: u32 = u32::MAX;

/// The form of a call, for the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// path, uid, gid; whether a symbolic link is followed, whether ids have 16 bits.
    Chown(bool, bool),
    /// descriptor, uid, gid; whether ids have 16 bits.
    Fchown(bool),
    /// directory, path, uid, gid, flags.
    Fchownat,
    /// path, mode, device.
    Mknod,
    /// directory, path, mode, device.
    Mknodat,
    /// path, name, value, size, flags; whether a symbolic link is followed.
    Setxattr(bool),
    /// descriptor, name, value, size, flags.
    Fsetxattr,
    /// directory, path, flags, name, struct xattr_args, its size (Linux 6.13).
    Setxattrat,
}

/// AUDIT_ARCH_*, and the calls by their numbers there.
type Table = (u32, &'static [(u32, Form)]);

const TABLES: &[Table] = &[
    (
        0xc000_003e,
        &[
            (92, Form::Chown(true, false)),
            (93, Form::Fchown(false)),
            (94, Form::Chown(false, false)),
            (260, Form::Fchownat),
            (133, Form::Mknod),
            (259, Form::Mknodat),
            (188, Form::Setxattr(true)),
            (189, Form::Setxattr(false)),
            (190, Form::Fsetxattr),
            (463, Form::Setxattrat),
        ],
    ),
    (0x4000_0003, &SMALL),
    (
        0xc000_00b7,
        &[
            (54, Form::Fchownat),
            (55, Form::Fchown(false)),
            (33, Form::Mknodat),
            (5, Form::Setxattr(true)),
            (6, Form::Setxattr(false)),
            (7, Form::Fsetxattr),
            (463, Form::Setxattrat),
        ],
    ),
    (
        0x4000_0028,
        &[
            (182, Form::Chown(true, true)),
            (16, Form::Chown(false, true)),
            (95, Form::Fchown(true)),
            (212, Form::Chown(true, false)),
            (198, Form::Chown(false, false)),
            (207, Form::Fchown(false)),
            (325, Form::Fchownat),
            (14, Form::Mknod),
            (324, Form::Mknodat),
            (226, Form::Setxattr(true)),
            (227, Form::Setxattr(false)),
            (228, Form::Fsetxattr),
            (463, Form::Setxattrat),
        ],
    ),
];

/// i386.
const SMALL: [(u32, Form); 13] = [
    (182, Form::Chown(true, true)),
    (16, Form::Chown(false, true)),
    (95, Form::Fchown(true)),
    (212, Form::Chown(true, false)),
    (198, Form::Chown(false, false)),
    (207, Form::Fchown(false)),
    (298, Form::Fchownat),
    (14, Form::Mknod),
    (297, Form::Mknodat),
    (226, Form::Setxattr(true)),
    (227, Form::Setxattr(false)),
    (228, Form::Fsetxattr),
    (463, Form::Setxattrat),
];

/// Those that this machine's kernel can take.
const OURS: [u32; 2] = if cfg!(target_arch = "x86_64") {
    [0xc000_003e, 0x4000_0003]
} else {
    [0xc000_00b7, 0x4000_0028]
};

/// What a call is, if it is one of those that may be asked about.
pub fn form(arch: u32, number: u32) -> Option<Form> {
    let (_, calls) = TABLES.iter().find(|(here, _)| *here == arch)?;
    calls.iter().find(|(here, _)| *here == number).map(|(_, form)| *form)
}

/// The programs for a run: arrays of struct sock_filter.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Asks the handler.
    pub ask: Vec<u8>,
    /// Whether that is the run's own program, too, so that nothing more is to be loaded.
    pub whole: bool,
    /// For whoever cannot have a handler. Where there is one id only, says that a change of owner is done; else nothing.
    /// (A device that was said to be made would be missed at once.)
    pub pretend: Option<Vec<u8>>,
    /// In place of the run's own, for PID 1 and the handler: the same, and what it takes to look at who asks.
    pub handler: Vec<u8>,
}

/// The programs for runs with this map and this program of the profile.
pub fn programs(map: &IdMap, profile: &[u8]) -> Programs {
    let single = map.mode == Mode::Single;
    let front = in_front(map, profile);
    let owner = |arch, number| !matches!(form(arch, number), Some(Form::Mknod | Form::Mknodat));
    Programs {
        whole: front.is_some(),
        ask: front.unwrap_or_else(|| encode(program(map, ASK, |_, _| true))),
        pretend: single.then(|| encode(program(map, SEEMS_DONE, owner))),
        handler: handler(profile),
    }
}

/// What asks, and behind it the profile's program. Only if that gives each of the calls one verdict whatever the arguments
/// are (what it refuses is not asked about), and only if the kernel takes a program as long as both.
fn in_front(map: &IdMap, profile: &[u8]) -> Option<Vec<u8>> {
    let verdict = |arch, number| bpf::constant(profile, arch, number);
    let ours = TABLES.iter().filter(|(arch, _)| OURS.contains(arch));
    let mut calls = ours.flat_map(|(arch, calls)| calls.iter().map(|(number, _)| (*arch, *number)));
    if !calls.all(|(arch, number)| verdict(arch, number).is_some()) {
        return None;
    }
    // As the kernel orders them (ACTION_ONLY in kernel/seccomp.c): as signed numbers, the strictest is the smallest.
    let action = |verdict: u32| (verdict & 0xffff_0000).cast_signed();
    let asked = |arch, number| verdict(arch, number).is_some_and(|one| action(one) > action(ASK));
    let mut all = program(map, ASK, asked);
    let length = all.len();
    for (at, instruction) in all.iter_mut().enumerate() {
        if *instruction == (RET, 0, 0, ALLOW) {
            *instruction = (JUMP, 0, 0, (length - at - 1) as u32);
        }
    }
    let both = [encode(all), profile.to_vec()].concat();
    (both.len() <= MOST_INSTRUCTIONS * INSTRUCTION).then_some(both)
}

/// The profile's program behind three calls that it may refuse. They give nothing that /proc does not give to the same
/// process, in fewer calls.
fn handler(profile: &[u8]) -> Vec<u8> {
    let looks = [libc::SYS_process_vm_readv, libc::SYS_pidfd_open, libc::SYS_pidfd_getfd];
    let looks = looks.map(|number| number as u32);
    // The smallest first: most numbers are below, and have nothing more to be compared with.
    let mut all = vec![(LOAD, 0, 0, NUMBER), (IF_NOT_LESS, 0, looks.len() as u8 + 3, looks[0])];
    for (place, number) in looks.into_iter().enumerate() {
        let found = (looks.len() - place - 1) as u8;
        let next = if found == 0 { 3 } else { 0 };
        all.push((IF_EQUAL, found, next, number));
    }
    all.extend([(LOAD, 0, 0, ARCHITECTURE), (IF_EQUAL, 0, 1, OURS[0]), (RET, 0, 0, ALLOW)]);
    [encode(all), profile.to_vec()].concat()
}

fn program(map: &IdMap, verdict: u32, wanted: impl Fn(u32, u32) -> bool) -> Vec<Instruction> {
    let mut all: Vec<Instruction> = vec![(LOAD, 0, 0, ARCHITECTURE)];
    for (arch, calls) in TABLES.iter().filter(|(arch, _)| OURS.contains(arch)) {
        let calls = calls.iter().filter(|(number, _)| wanted(*arch, *number));
        let block = block(calls, map, verdict);
        // Blocks may be longer than a conditional jump reaches.
        all.push((IF_EQUAL, 1, 0, *arch));
        all.push((JUMP, 0, 0, block.len() as u32));
        all.extend(block);
    }
    all.push((RET, 0, 0, ALLOW));
    all
}

/// The calls of one architecture. Ends by a return.
fn block<'c>(
    calls: impl Iterator<Item = &'c (u32, Form)>,
    map: &IdMap,
    verdict: u32,
) -> Vec<Instruction> {
    let checks = calls.map(|(number, form)| (*number, check(*form, map, verdict)));
    let mut checks: Vec<_> = checks.filter(|(_, check)| !check.is_empty()).collect();
    checks.sort_unstable_by_key(|(number, _)| *number);
    [vec![(LOAD, 0, 0, NUMBER)], search(&checks)].concat()
}

/// A binary search for the number in the accumulator: to load a filter, the kernel walks through it for every number
/// that there is. Ends by a return.
fn search(checks: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    match checks {
        [] => vec![(RET, 0, 0, ALLOW)],
        [(number, check)] => {
            [vec![(IF_EQUAL, 1, 0, *number), (RET, 0, 0, ALLOW)], check.clone()].concat()
        }
        _ => {
            let (low, high) = checks.split_at(checks.len() / 2);
            let low = search(low);
            // It may be longer than a conditional jump reaches.
            let behind_low = (JUMP, 0, 0, low.len() as u32);
            [vec![(IF_NOT_LESS, 0, 1, high[0].0), behind_low], low, search(high)].concat()
        }
    }
}

/// The verdict on one call. Ends by a return; empty if it is always allowed.
fn check(form: Form, map: &IdMap, verdict: u32) -> Vec<Instruction> {
    let single = map.mode == Mode::Single;
    let (uids, gids) = (held(map, false), held(map, true));
    match form {
        Form::Chown(_, short) => owners(1, short, single, &uids, &gids, verdict),
        Form::Fchown(short) => owners(1, short, single, &uids, &gids, verdict),
        Form::Fchownat => owners(2, false, single, &uids, &gids, verdict),
        Form::Mknod => devices(1, verdict),
        Form::Mknodat => devices(2, verdict),
        // Without a handler access control lists fail, as they do everywhere else.
        Form::Setxattr(_) | Form::Fsetxattr if single && verdict == ASK => vec![(RET, 0, 0, ASK)],
        // Programs do the same by those then, as before Linux 6.13.
        Form::Setxattrat if single && verdict == ASK => vec![(RET, 0, 0, UNKNOWN)],
        Form::Setxattr(_) | Form::Fsetxattr | Form::Setxattrat => Vec::new(),
    }
}

/// As many stretches as conditional jumps reach over. The handler does what the kernel could have done.
const MOST: usize = 80;

/// First and last of each stretch of ids that the map holds.
fn held(map: &IdMap, groups: bool) -> Vec<(u32, u32)> {
    let extents = if groups { &map.gids } else { &map.uids };
    extents
        .iter()
        .take(MOST)
        .map(|extent| (extent.inside, extent.inside + (extent.count - 1)))
        .collect()
}

/// Where there is one id, its own comes through too: a file may have another owner by the record, which
/// ends then.
fn owners(
    first: u32,
    short: bool,
    single: bool,
    uids: &[(u32, u32)],
    gids: &[(u32, u32)],
    verdict: u32,
) -> Vec<Instruction> {
    let mut out = Vec::new();
    for (argument, stretches) in [(first, uids), (first + 1, gids)] {
        let stretches = if single { &[] } else { stretches };
        out.push((LOAD, 0, 0, low(argument)));
        if short {
            out.push((AND, 0, 0, 0xffff));
        }
        // What is held jumps behind the verdict of this id.
        let unchanged = if short { 0xffff } else { UNCHANGED };
        let behind = |left: usize| (3 * left + 1) as u8;
        out.push((IF_EQUAL, behind(stretches.len()), 0, unchanged));
        for (place, (low, high)) in stretches.iter().enumerate() {
            let left = stretches.len() - place - 1;
            // Not below `low`, and not above `high`: held.
            out.push((IF_NOT_LESS, 0, 2, *low));
            out.push((IF_GREATER, 1, 0, *high));
            out.push((JUMP, 0, 0, u32::from(behind(left))));
        }
        out.push((RET, 0, 0, verdict));
    }
    out.push((RET, 0, 0, ALLOW));
    out
}

/// Device nodes, but for the character device 0:0: overlayfs uses it as whiteout, and everybody may make one.
fn devices(mode: u32, verdict: u32) -> Vec<Instruction> {
    vec![
        (LOAD, 0, 0, low(mode)),
        (AND, 0, 0, libc::S_IFMT),
        (IF_EQUAL, 3, 0, libc::S_IFBLK),
        (IF_EQUAL, 0, 3, libc::S_IFCHR),
        (LOAD, 0, 0, low(mode + 1)),
        (IF_EQUAL, 1, 0, 0),
        (RET, 0, 0, verdict),
        (RET, 0, 0, ALLOW),
    ]
}

#[cfg(test)]
#[path = "remember_tests.rs"]
mod tests;
