//! Verdicts of the compiled programs, by our interpreter. What
//! the kernel makes of them is tried in `tests/seccomp.rs`.

use std::os::fd::AsFd;

use libseccomp::{ScmpArch, ScmpSyscall};

use super::super::caps::CapSet;
use super::super::change::Changes;
use super::super::docker;
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;
/// The bits of clone(2) and unshare(2) that stand for namespaces, one by one.
const NAMESPACES: [u64; 7] =
    [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

const fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}

fn verdict(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    super::super::bpf::verdict(program, arch, number, args).expect("a verdict")
}

struct Filter(Vec<u8>);

impl Filter {
    fn of(profile: &str, single: bool, nesting: bool) -> Self {
        let profile = Profile::builtin(profile).expect("built in");
        Self(compiled(&profile, &Request { single, nesting }).expect("compiles"))
    }

    fn of_text(seccomp: &str) -> Self {
        let seccomp = serde_json::from_str(seccomp).expect("parses");
        Self(compile::compile(&seccomp, &Request::default()).expect("compiles"))
    }

    fn on(&self, arch: u32, name: &str, args: &[u64]) -> u32 {
        let of = if arch == X86_64 { ScmpArch::X8664 } else { ScmpArch::X86 };
        let mut number = ScmpSyscall::from_name_by_arch(name, of).expect("known").as_raw_syscall();
        if arch == I386 && (-120..=-100).contains(&number) {
            // libseccomp's numbers for what goes through socketcall: take the direct calls.
            number = match name {
                "socket" => 359,
                "socketpair" => 360,
                "connect" => 362,
                other => panic!("{other}"),
            };
        }
        let mut six = [0; 6];
        six[..args.len()].copy_from_slice(args);
        verdict(&self.0, arch, number as u32, six)
    }
}

const HIGH: u64 = 0xdead_beef_0000_0000;

#[test]
fn the_floor_holds_in_every_profile_and_architecture() {
    for (profile, arches) in
        [("build", &[X86_64, I386][..]), ("dev", &[X86_64, I386]), ("strict", &[X86_64])]
    {
        for (single, nesting) in [(false, false), (true, false), (false, profile != "strict")] {
            let filter = Filter::of(profile, single, nesting);
            for &arch in arches {
                for high in [0, HIGH, !0 << 32] {
                    assert_eq!(filter.on(arch, "ioctl", &[0, 0x5412 | high]), errno(1));
                    assert_eq!(filter.on(arch, "ioctl", &[0, 0x541c | high]), errno(1));
                    assert_eq!(filter.on(arch, "ioctl", &[0, 0x5401 | high]), ALLOW);
                    assert_eq!(filter.on(arch, "socket", &[38 | high]), errno(97));
                    assert_eq!(filter.on(arch, "socket", &[40 | high]), errno(97));
                    assert_eq!(filter.on(arch, "socketpair", &[38 | high]), errno(97));
                    assert_eq!(filter.on(arch, "socket", &[2 | high]), ALLOW);
                }
                for name in super::super::policy::REFUSED {
                    assert_eq!(filter.on(arch, name, &[]), errno(1), "{profile} {name}");
                }
                assert_eq!(filter.on(arch, "open_by_handle_at", &[]), errno(1));
                assert_eq!(filter.on(arch, "userfaultfd", &[]), errno(1));
            }
        }
    }
}

#[test]
fn socketcall_is_refused_whatever_it_stands_for() {
    for profile in ["build", "dev", "strict"] {
        let filter = Filter::of(profile, false, false);
        for call in 0..25 {
            assert_eq!(verdict(&filter.0, I386, 102, [call, 0, 0, 0, 0, 0]), errno(38));
        }
    }
}

#[test]
fn namespaces_need_nesting() {
    for profile in ["build", "dev", "strict"] {
        let filter = Filter::of(profile, false, false);
        for bit in NAMESPACES {
            assert_eq!(filter.on(X86_64, "clone", &[bit | 17 | HIGH]), errno(1));
            assert_eq!(filter.on(X86_64, "unshare", &[bit]), errno(1));
        }
        assert_eq!(filter.on(X86_64, "unshare", &[0x80]), errno(1));
        assert_eq!(filter.on(X86_64, "unshare", &[0x400]), ALLOW);
        assert_eq!(filter.on(X86_64, "clone", &[0x3d_0f00]), ALLOW);
        assert_eq!(filter.on(X86_64, "clone3", &[]), errno(38));
        assert_eq!(filter.on(X86_64, "setns", &[]), errno(1));
        assert_eq!(filter.on(X86_64, "mount", &[]), errno(1));
    }
    for arch in [X86_64, I386] {
        let nested = Filter::of("build", false, true);
        for name in super::super::policy::NESTED {
            let known = ScmpSyscall::from_name_by_arch(name, ScmpArch::X8664).expect("known");
            if arch == I386 || known.as_raw_syscall() >= 0 {
                assert_eq!(nested.on(arch, name, &[0x1000_0000]), ALLOW, "{name}");
            }
        }
    }
    let strict = Profile::builtin("strict").expect("built in");
    let refused = compiled(&strict, &Request { single: false, nesting: true });
    assert_eq!(refused.expect_err("refused").kind, crate::fault::Kind::Usage);
}

#[test]
fn a_single_id_is_pretended_to_be_many() {
    const FAKE: u32 = errno(0);
    let (char_device, block) = (0o20_666, 0o60_666);
    let single = Filter::of("build", true, false);
    for name in super::super::policy::PRETENDED {
        if !name.ends_with("32") {
            assert_eq!(single.on(X86_64, name, &[]), FAKE, "{name}");
        }
        assert_eq!(single.on(I386, name, &[]), FAKE, "{name}");
    }
    for arch in [X86_64, I386] {
        // For the filter beside this one (`remember`), whose verdicts an error here would hide.
        for name in ["chown", "fchown", "lchown", "fchownat", "setxattr", "fsetxattr"] {
            assert_eq!(single.on(arch, name, &[0, 1, 1]), ALLOW, "{name}");
        }
        assert_eq!(single.on(arch, "mknod", &[0, char_device, 0x103]), ALLOW);
        assert_eq!(single.on(arch, "mknodat", &[0, 0, block, 0x103]), ALLOW);
    }
    for filter in [Filter::of("build", false, false), Filter::of("strict", true, false)] {
        assert_eq!(filter.on(X86_64, "chown", &[]), ALLOW);
        assert_eq!(filter.on(X86_64, "mknod", &[0, char_device, 0x103]), ALLOW);
    }
}

#[test]
fn unknown_calls_and_architectures_do_not_exist() {
    for profile in ["build", "dev", "strict"] {
        let filter = Filter::of(profile, false, false);
        for number in (457..=461).chain(472..1100).chain([9999, 0x3fff_ffff, u32::MAX]) {
            assert_eq!(verdict(&filter.0, X86_64, number, [0; 6]), errno(38), "{number}");
        }
        for number in 0..600 {
            let x32 = verdict(&filter.0, X86_64, number | X32_BIT, [0; 6]);
            assert_eq!(x32, errno(38), "{profile} x32 {number}");
            assert_eq!(verdict(&filter.0, 0xc000_00b7, number, [0; 6]), errno(38));
            if profile == "strict" {
                assert_eq!(verdict(&filter.0, I386, number, [0; 6]), errno(38));
            }
        }
    }
}

#[test]
fn profiles_differ_where_they_should() {
    let table = [
        ("ptrace", errno(1), ALLOW, errno(1)),
        ("perf_event_open", errno(1), ALLOW, errno(1)),
        ("process_vm_readv", errno(1), ALLOW, errno(1)),
        ("chroot", ALLOW, ALLOW, errno(1)),
        ("mbind", ALLOW, ALLOW, errno(1)),
        ("io_setup", ALLOW, ALLOW, errno(1)),
        ("read", ALLOW, ALLOW, ALLOW),
        ("memfd_create", ALLOW, ALLOW, ALLOW),
    ];
    let [build, dev, strict] = ["build", "dev", "strict"].map(|p| Filter::of(p, false, false));
    for (name, in_build, in_dev, in_strict) in table {
        assert_eq!(build.on(X86_64, name, &[]), in_build, "{name}");
        assert_eq!(dev.on(X86_64, name, &[]), in_dev, "{name}");
        assert_eq!(strict.on(X86_64, name, &[]), in_strict, "{name}");
    }
    for (value, in_build, in_strict) in [
        (0, ALLOW, ALLOW),
        (u64::MAX, ALLOW, ALLOW),
        (8, ALLOW, errno(1)),
        (0x4_0000, errno(1), errno(1)),
    ] {
        assert_eq!(build.on(X86_64, "personality", &[value]), in_build);
        assert_eq!(strict.on(X86_64, "personality", &[value]), in_strict);
    }
    assert_eq!(strict.on(X86_64, "socket", &[16, 3, 0]), ALLOW);
    assert_eq!(strict.on(X86_64, "socket", &[16, 3, 12]), errno(97));
    assert_eq!(strict.on(X86_64, "socket", &[17]), errno(97));
    assert_eq!(build.on(X86_64, "socket", &[17]), ALLOW);
}

#[test]
fn a_lax_file_cannot_go_below_the_floor() {
    let lax = Filter::of_text(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["bpf","ioctl"],"action":"SCMP_ACT_ALLOW"},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW",
             "args":[{"index":0,"value":1,"op":"SCMP_CMP_NE"}]}]}"#,
    );
    assert_eq!(lax.on(X86_64, "bpf", &[]), errno(1));
    assert_eq!(lax.on(X86_64, "ioctl", &[0, 0x5412 | HIGH]), errno(1));
    assert_eq!(lax.on(X86_64, "socket", &[38 | HIGH]), errno(97));
    assert_eq!(lax.on(X86_64, "socket", &[2]), ALLOW);
    assert_eq!(verdict(&lax.0, X86_64, X32_BIT | 1, [0; 6]), errno(38));
}

#[test]
fn the_cache_gives_the_same_and_survives_damage() {
    let dir = tempfile::tempdir().expect("directory");
    let handle = std::fs::File::open(dir.path()).expect("open");
    let profile = Profile::builtin("build").expect("built in");
    let request = Request::default();
    let first = program(&profile, &request, handle.as_fd()).expect("compiles");
    let file = dir.path().join(file_name(&profile, &request));
    let whole = std::fs::read(&file).expect("kept");
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
    assert_eq!(program(&profile, &request, handle.as_fd()).expect("hit"), first);

    let mut flipped = whole.clone();
    flipped[HEADER + 20] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &whole[..8], &[], &flipped[..]] {
        std::fs::write(&file, damaged).expect("write");
        assert_eq!(program(&profile, &request, handle.as_fd()).expect("again"), first);
        assert_eq!(std::fs::read(&file).expect("made again"), whole);
    }
}

#[test]
fn each_profile_and_request_has_its_own_file() {
    let mut names = std::collections::BTreeSet::new();
    for profile in Profile::builtin_names() {
        let profile = Profile::builtin(profile).expect("built in");
        for (single, nesting) in [(false, false), (true, false), (false, true), (true, true)] {
            names.insert(file_name(&profile, &Request { single, nesting }));
        }
    }
    assert_eq!(names.len(), 12);
}

#[test]
fn calls_that_the_library_may_not_know_have_verdicts() {
    for profile in ["build", "dev", "strict"] {
        let filter = Filter::of(profile, false, false);
        let arches = if profile == "strict" { &[X86_64][..] } else { &[X86_64, I386] };
        for &arch in arches {
            assert_eq!(verdict(&filter.0, arch, 452, [0; 6]), ALLOW, "fchmodat2");
            assert_eq!(verdict(&filter.0, arch, 467, [0; 6]), errno(1), "open_tree_attr");
            assert_eq!(verdict(&filter.0, arch, 457, [0; 6]), errno(38), "statmount");
        }
    }
    let empty = r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#;
    let seccomp = docker::read(empty, &docker::Host::here(CapSet::NONE)).expect("valid");
    let program = compile::compile(&seccomp, &Request::default()).expect("compiles");
    assert_eq!(verdict(&program, X86_64, 1, [0; 6]), errno(1));
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
        {"names":["mseal"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let seccomp = docker::read(text, &docker::Host::here(CapSet::NONE)).expect("valid");
    let program = compile::compile(&seccomp, &Request::default()).expect("compiles");
    for (number, expected) in [(461, errno(1)), (462, ALLOW), (463, errno(38))] {
        assert_eq!(verdict(&program, X86_64, number, [0; 6]), expected, "{number}");
    }
}

#[test]
fn other_rules_and_capabilities_have_files_of_their_own() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s.json").display().to_string();
    let build = || Profile::builtin("build").expect("built in");
    let named =
        |changes: &Changes| file_name(&changes.apply(build()).expect("valid"), &Request::default());
    let mut names = std::collections::BTreeSet::new();
    names.insert(named(&Changes::default()));
    names.insert(named(&Changes { cap_drop: vec!["KILL".to_owned()], ..Changes::default() }));
    names.insert(named(&Changes { seccomp: Some("none".to_owned()), ..Changes::default() }));
    for errno in [1, 2] {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":{errno}}}"#);
        std::fs::write(&path, text).expect("write");
        names.insert(named(&Changes { seccomp: Some(path.clone()), ..Changes::default() }));
    }
    assert_eq!(names.len(), 5);
}

#[test]
fn none_leaves_the_floor() {
    let changes = Changes { seccomp: Some("none".to_owned()), ..Changes::default() };
    let profile = changes.apply(Profile::builtin("strict").expect("built in")).expect("valid");
    let open = Filter(compiled(&profile, &Request::default()).expect("compiles"));
    for arch in [X86_64, I386] {
        assert_eq!(open.on(arch, "ptrace", &[]), ALLOW);
        assert_eq!(open.on(arch, "unshare", &[0x1000_0000]), ALLOW);
        assert_eq!(open.on(arch, "ioctl", &[0, 0x5412 | HIGH]), errno(1));
        assert_eq!(open.on(arch, "bpf", &[]), errno(1));
    }
    assert_eq!(verdict(&open.0, X86_64, X32_BIT | 39, [0; 6]), errno(38));
}

/// A program that an older version has kept would be taken for one of ours. Whoever changes one of these verdicts
/// changes the mark.
#[test]
fn the_mark_stands_for_what_is_pretended() {
    let single = Filter::of("build", true, false);
    let verdict = |name: &str| single.on(X86_64, name, &[0, 0, 0]);
    let all = ["chown", "fchown", "setuid", "setgroups"].map(verdict);
    assert_eq!((&MARK, all), (b"sbx4", [ALLOW, ALLOW, errno(0), errno(0)]));
}
