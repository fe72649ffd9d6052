//! The forms that trees are rewritten to, and what the rules of other runtimes come to.

use super::super::profile::Profile;
use super::*;

#[test]
fn the_short_form_gives_the_same_verdicts() {
    for name in Profile::builtin_names() {
        let seccomp = Profile::builtin(name).and_then(|p| p.seccomp()).expect("built in");
        let default = action(seccomp.default_action, seccomp.default_errno_ret);
        let architectures = architectures(&seccomp.architectures);
        // Rules with conditions are no part of the last tree.
        let mut plain = profile_table(&seccomp);
        plain.values_mut().for_each(|verdicts| verdicts.conditions.clear());
        let unknown = ScmpAction::Errno(libc::ENOSYS);
        let tree = tree(rules_of(&plain), &architectures, default, unknown).expect("compiles");
        let nothing = BTreeMap::new();
        let short = last_tree(&plain, &architectures, default, &nothing).expect("compiles");
        assert!(short.len() < tree.len() / 2, "{} of {}", short.len(), tree.len());
        for arch in [bpf::X86_64, bpf::I386, 0xc000_00b7, 0] {
            let x32 = bpf::X32;
            for number in (0..5000).chain(x32 - 9..x32 + 1000).chain([0x7fff_ffff, 0xf000_0000]) {
                let verdict = bpf::verdict(&tree, arch, number, [0; 6]);
                assert!(verdict.is_some());
                assert_eq!(bpf::verdict(&short, arch, number, [0; 6]), verdict, "{number:#x}");
            }
        }
    }
}
