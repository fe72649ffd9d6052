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
    match bpf::verdict(&programs(map, &[]).ask, arch, number, all) {
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
    let pretend = programs(&one, &[]).pretend.expect("one id");
    let verdict = |number, args| bpf::verdict(&pretend, X86_64, number, args);
    assert_eq!(verdict(92, [0, 33, 33, 0, 0, 0]), Some(SEEMS_DONE));
    // What is not there afterwards was not made.
    let device = [0, u64::from(libc::S_IFCHR) | 0o666, 0x103, 0, 0, 0];
    assert_eq!(verdict(133, device), Some(ALLOW));
    assert_eq!(verdict(190, [0; 6]), Some(ALLOW));
    assert!(programs(&map(Mode::Range, &[(0, 9)]), &[]).pretend.is_none());
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
            let verdict = bpf::verdict(&programs(&one, &[]).ask, arch, number, [1; 6]);
            assert!(verdict == Some(ALLOW) || known, "{arch:#x} {number}");
        }
    }
}

/// One program says what two would: the stricter of both.
#[test]
fn in_front_of_a_profile_the_stricter_verdict_counts() {
    const REFUSED: u32 = 0x0005_0001;
    const LOGGED: u32 = 0x7ffc_0000;
    const KILLED: u32 = 0x8000_0000;
    let action = |verdict: u32| (verdict & 0xffff_0000).cast_signed();
    for map in [map(Mode::Single, &[(0, 1)]), map(Mode::Subuid, &[(0, 1000), (2000, 10)])] {
        let alone = programs(&map, &[]);
        assert!(!alone.whole);
        for others in [ALLOW, LOGGED, REFUSED, KILLED] {
            // Another verdict on fchownat, mknod and i386's chown32.
            let profile = encode([
                (LOAD, 0, 0, NUMBER),
                (IF_EQUAL, 3, 0, 260),
                (IF_EQUAL, 2, 0, 133),
                (IF_EQUAL, 1, 0, 212),
                (RET, 0, 0, ALLOW),
                (RET, 0, 0, others),
            ]);
            let both = programs(&map, &profile);
            assert!(both.whole);
            for (arch, number) in [X86_64, I386, 0x1234]
                .into_iter()
                .flat_map(|arch| (0..500).map(move |number| (arch, number)))
            {
                for args in [[0; 6], [1; 6], [1500; 6], [0, 0x2001, 0x2001, 5, 5, 5]] {
                    let verdict = |program: &[u8]| {
                        bpf::verdict(program, arch, number, args).expect("a verdict")
                    };
                    let two = [verdict(&alone.ask), verdict(&profile)];
                    let stricter = two.into_iter().min_by_key(|one| action(*one));
                    assert_eq!(Some(verdict(&both.ask)), stricter, "{arch:#x} {number} {args:?}");
                }
            }
        }
    }
}

/// A profile that looks at the arguments of such a call keeps a program of its own.
#[test]
fn what_hangs_on_arguments_is_not_in_front() {
    let one = map(Mode::Single, &[(0, 1)]);
    let looks = |number: u32| {
        encode([
            (LOAD, 0, 0, NUMBER),
            (IF_EQUAL, 0, 3, number),
            (LOAD, 0, 0, 16),
            (IF_EQUAL, 0, 1, 7),
            (RET, 0, 0, 0x0005_0001),
            (RET, 0, 0, ALLOW),
        ])
    };
    assert!(!programs(&one, &looks(92)).whole);
    assert_eq!(programs(&one, &looks(92)).ask, programs(&one, &[]).ask);
    assert!(programs(&one, &looks(2)).whole);
    // Nor one that would be too long with it.
    let long = encode(std::iter::repeat_n((RET, 0, 0, ALLOW), 4000));
    assert!(!programs(&one, &long).whole);
}

#[test]
fn the_handler_may_look_and_otherwise_what_the_run_may() {
    let refused = 0x0005_0001;
    let profile = encode([(RET, 0, 0, refused)]);
    let program = programs(&map(Mode::Single, &[(0, 1)]), &profile).handler;
    let looks = [libc::SYS_process_vm_readv, libc::SYS_pidfd_open, libc::SYS_pidfd_getfd];
    for arch in [OURS[0], OURS[1], 0x1234] {
        for number in 0..1000 {
            let looks = arch == OURS[0] && looks.contains(&i64::from(number));
            let verdict = bpf::verdict(&program, arch, number, [1; 6]);
            assert_eq!(verdict, Some(if looks { ALLOW } else { refused }), "{arch:#x} {number}");
        }
    }
}

/// Where it is not, every start takes longer.
#[test]
fn the_built_in_profiles_are_behind_it() {
    use crate::isolate::profile::Profile;
    use crate::isolate::seccomp::{Request, compiled};
    for name in Profile::builtin_names() {
        let profile = Profile::builtin(name).expect(name);
        for (mode, single) in [(Mode::Single, true), (Mode::Subuid, false)] {
            let request = Request { single, nesting: false };
            let program = compiled(&profile, &request).expect(name);
            assert!(programs(&map(mode, &[(0, 1)]), &program).whole, "{name} {mode:?}");
        }
    }
}
