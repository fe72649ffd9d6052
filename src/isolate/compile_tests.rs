//! The form that programs are rewritten to, and what the rules of other runtimes come to.

use super::super::profile::Profile;
use super::*;

/// The values that a program compares arguments with, and some beside them.
fn telling(program: &[u8]) -> Vec<u64> {
    let places = 0..program.len() / INSTRUCTION;
    let values = places.filter_map(|at| bpf::instruction(program, at)).map(|one| u64::from(one.3));
    // Small ones are call numbers, for the most part.
    let values = values.filter(|value| *value > 500).chain(0..48);
    let mut all: Vec<u64> = values.flat_map(|one| [one.saturating_sub(1), one, one + 1]).collect();
    all.extend([u64::MAX, 1 << 32, 0x1234_5678_9abc_def0]);
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn the_form_that_loads_faster_gives_the_same_verdicts() {
    let requests = [
        Request { single: false, nesting: false },
        Request { single: true, nesting: false },
        Request { single: true, nesting: true },
    ];
    for (name, request) in Profile::builtin_names().zip(requests.iter().cycle()) {
        let seccomp = Profile::builtin(name).and_then(|p| p.seccomp()).expect("built in");
        let architectures = architectures(&seccomp.architectures);
        let trees = in_trees(&seccomp, request, &architectures).expect("compiles");
        let short = compile(&seccomp, request).expect("compiles");
        assert!(short.len() < trees.len() / 2, "{} of {}", short.len(), trees.len());
        let values = telling(&trees);
        let mut looked = 0;
        for arch in [bpf::X86_64, bpf::I386, 0xc000_00b7, 0] {
            let x32 = bpf::X32;
            let far = (1000..5000).chain(x32 - 9..x32 + 1000).chain([0x7fff_ffff, 0xf000_0000]);
            for number in (0..500).chain(far).chain([u32::MAX]) {
                let same = |args| {
                    let verdict = bpf::verdict(&trees, arch, number, args);
                    assert!(verdict.is_some());
                    let short = bpf::verdict(&short, arch, number, args);
                    assert_eq!(short, verdict, "{arch:#x} {number:#x} {args:x?}");
                    verdict
                };
                let plain = same([0; 6]);
                if number > 500 || values.iter().all(|value| same([*value; 6]) == plain) {
                    continue;
                }
                looked += 1;
                for (place, value) in (0..6).flat_map(|at| values.iter().map(move |v| (at, *v))) {
                    let mut args = [0; 6];
                    args[place] = value;
                    same(args);
                }
            }
        }
        assert!(looked >= 4, "{name}: {looked} calls with arguments");
    }
}
