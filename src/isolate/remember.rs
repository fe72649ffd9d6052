//! The filter that asks the handler (`run/answer`) about calls whose effect is remembered instead of made:
//! changes of owner that the id map cannot hold, device nodes and, where there is one id only, attributes,
//! among which may be access control lists of ids that are not there.
//!
//! It is a program of its own beside that of the profile, because a thread may have one listener, and
//! because it hangs on the id map. The kernel takes the strictest verdict of both: the profile's program has
//! to allow these calls. It is short and made anew for each run; a call that it says nothing about costs
//! nothing, because the kernel keeps "always allowed" per call number (Linux 5.11).

use crate::ids::{IdMap, Mode};

/// The size of struct sock_filter is 8 bytes: code, jump if true, jump if false, value.
type Instruction = (u16, u8, u8, u32);

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_NOT_LESS: u16 = 0x35;
const RET: u16 = 0x06;

/// SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ERRNO.
const ALLOW: u32 = 0x7fff_0000;
const ASK: u32 = 0x7fc0_0000;
const SEEMS_DONE: u32 = 0x0005_0000;

/// Offsets in struct seccomp_data, of the low half of an argument on little-endian machines (all that a
/// profile may name are).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
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
        ],
    ),
];

/// i386.
const SMALL: [(u32, Form); 12] = [
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
    /// For whoever cannot have a handler. Where there is one id only, says that it is done; else nothing.
    pub pretend: Option<Vec<u8>>,
}

/// The programs for runs with this map.
pub fn programs(map: &IdMap) -> Programs {
    let single = map.mode == Mode::Single;
    Programs { ask: program(map, ASK), pretend: single.then(|| program(map, SEEMS_DONE)) }
}

fn program(map: &IdMap, verdict: u32) -> Vec<u8> {
    let mut all: Vec<Instruction> = vec![(LOAD, 0, 0, ARCHITECTURE)];
    for (arch, calls) in TABLES.iter().filter(|(arch, _)| OURS.contains(arch)) {
        let block = block(calls, map, verdict);
        // Blocks may be longer than a conditional jump reaches.
        all.push((IF_EQUAL, 1, 0, *arch));
        all.push((0x05, 0, 0, block.len() as u32));
        all.extend(block);
    }
    all.push((RET, 0, 0, ALLOW));
    let mut bytes = Vec::with_capacity(all.len() * 8);
    for (code, if_true, if_false, value) in all {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([if_true, if_false]);
        bytes.extend(value.to_ne_bytes());
    }
    bytes
}

/// The calls of one architecture. Ends by a return.
fn block(calls: &[(u32, Form)], map: &IdMap, verdict: u32) -> Vec<Instruction> {
    let mut block = vec![(LOAD, 0, 0, NUMBER)];
    for (number, form) in calls {
        let check = check(*form, map, verdict);
        if check.is_empty() {
            continue;
        }
        block.push((IF_EQUAL, 1, 0, *number));
        block.push((0x05, 0, 0, check.len() as u32));
        block.extend(check);
    }
    block.push((RET, 0, 0, ALLOW));
    block
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
        Form::Setxattr(_) | Form::Fsetxattr => Vec::new(),
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
            out.push((0x05, 0, 0, u32::from(behind(left))));
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
mod tests {
    use super::super::bpf;
    use super::*;
    use crate::ids::{Extent, IdMap};

    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;

    fn map(mode: Mode, lines: &[(u32, u32)]) -> IdMap {
        let extents: Vec<_> = lines
            .iter()
            .map(|&(inside, count)| Extent { inside, outside: 100_000 + inside, count })
            .collect();
        IdMap::new(mode, extents.clone(), extents).expect("valid")
    }

    fn ask(map: &IdMap, arch: u32, number: u32, args: &[u64]) -> bool {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        match bpf::verdict(&programs(map).ask, arch, number, all) {
            Some(ASK) => true,
            Some(ALLOW) => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_ids_that_the_map_lacks_are_asked_about() {
        let none = u64::from(u32::MAX);
        let many = map(Mode::Subuid, &[(0, 1000), (2000, 10), (5000, 1)]);
        let table = [
            (0, 0, false),
            (999, 2009, false),
            (5000, none, false),
            (none, none, false),
            (1000, 0, true),
            (0, 1000, true),
            (none, 2010, true),
            (5001, none, true),
            (4999, 0, true),
            (1999, none, true),
            (65_534, 65_534, true),
        ];
        for (uid, gid, asked) in table {
            for (number, args) in
                [(92, [0, uid, gid, 0]), (93, [3, uid, gid, 0]), (94, [0, uid, gid, 0])]
            {
                assert_eq!(ask(&many, X86_64, number, &args), asked, "{number} {uid} {gid}");
            }
            assert_eq!(ask(&many, X86_64, 260, &[0, 0, uid, gid]), asked, "{uid} {gid}");
            assert_eq!(ask(&many, I386, 212, &[0, uid, gid]), asked, "{uid} {gid}");
        }
        // The kernel looks at the low 32 bits only.
        assert!(ask(&many, X86_64, 92, &[0, 7 << 32 | 1000, 0]));
        assert!(!ask(&many, X86_64, 92, &[0, 7 << 32, 0]));
        assert!(!ask(&many, X86_64, 188, &[]), "attributes");
    }

    #[test]
    fn ids_of_16_bits_have_an_unchanged_of_their_own() {
        let many = map(Mode::Subuid, &[(0, 1000)]);
        assert!(!ask(&many, I386, 182, &[0, 0xffff, 0xffff]));
        assert!(ask(&many, I386, 182, &[0, 0xfffe, 0]));
        assert!(!ask(&many, I386, 182, &[0, 0x1_0001, 0]));
    }

    #[test]
    fn with_one_id_all_changes_are_asked_about() {
        let none = u64::from(u32::MAX);
        let one = map(Mode::Single, &[(0, 1)]);
        assert!(ask(&one, X86_64, 92, &[0, 0, 0]));
        assert!(ask(&one, X86_64, 260, &[0, 0, none, 33]));
        assert!(!ask(&one, X86_64, 260, &[0, 0, none, none]));
        assert!(ask(&one, X86_64, 190, &[]) && ask(&one, I386, 226, &[]));
        let pretend = programs(&one).pretend.expect("one id");
        let verdict = |number, args| bpf::verdict(&pretend, X86_64, number, args);
        assert_eq!(verdict(92, [0, 33, 33, 0, 0, 0]), Some(SEEMS_DONE));
        assert_eq!(verdict(190, [0; 6]), Some(ALLOW));
        assert!(programs(&map(Mode::Range, &[(0, 9)])).pretend.is_none());
    }

    #[test]
    fn devices_are_asked_about_and_whiteouts_are_not() {
        for mode in [Mode::Single, Mode::Subuid] {
            let map = map(mode, &[(0, 1)]);
            let (char, block) = (u64::from(libc::S_IFCHR), u64::from(libc::S_IFBLK));
            let fifo = u64::from(libc::S_IFIFO | 0o644);
            for (arch, mknod, mknodat) in [(X86_64, 133, 259), (I386, 14, 297)] {
                for (mode, device, asked) in [
                    (char | 0o666, 0x103, true),
                    (char, 0, false),
                    (block | 0o660, 0, true),
                    (fifo, 0x103, false),
                    (0o644, 0x103, false),
                ] {
                    assert_eq!(ask(&map, arch, mknod, &[0, mode, device]), asked);
                    assert_eq!(ask(&map, arch, mknodat, &[0, 0, mode, device]), asked);
                }
            }
        }
    }

    #[test]
    fn everything_else_passes() {
        let one = map(Mode::Single, &[(0, 1)]);
        for arch in [X86_64, I386, 0xc000_00b7, 0x4000_0028, 0x1234] {
            for number in 0..1000 {
                let known = form(arch, number).is_some();
                let verdict = bpf::verdict(&programs(&one).ask, arch, number, [1; 6]);
                assert!(verdict == Some(ALLOW) || known, "{arch:#x} {number}");
            }
        }
    }
}
