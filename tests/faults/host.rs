//! Machines that do not let us: each refusal says what to do about it.

use std::process::Command;

use crate::Case;
use crate::nested;
use crate::watch;
use crate::world::{Place, Said, ids, program, tree};

pub(crate) const CASES: &[Case] = &[
    ("no_user_namespaces", no_user_namespaces),
    ("no_ranges", no_ranges),
    ("missing_system_calls", missing_system_calls),
];

/// A shell line as root of a user namespace of one id. `$SANDBOX` is the program, `$TREE` the tree.
fn line(place: &Place, flags: &[&str], line: &str) -> Said {
    let mut command = Command::new("unshare");
    command.arg("--map-root-user").args(flags).args(["sh", "-c", line]);
    command.env("SANDBOX_BASE_DIR", &place.base).env("SANDBOX", program()).env("TREE", tree());
    command.current_dir(place.work()).output().expect("unshare").into()
}

fn no_user_namespaces() {
    let place = Place::empty();
    line(&place, &[], "\"$SANDBOX\" init --from \"$TREE\"").code(0);
    let off = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$SANDBOX\"";
    for command in ["run -- true", "shell", "run --commit x -- true"] {
        let said = line(&place, &[], &format!("{off} {command}"));
        said.refused(125, "max_user_namespaces");
        assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
    }
    line(&place, &[], &format!("{off} init other --from \"$TREE\""))
        .refused(6, "max_user_namespaces");
    let said = line(&place, &[], &format!("{off} doctor"));
    assert_eq!(said.code, 6, "{said:?}");
    assert!(format!("{}{}", said.out, said.err).contains("max_user_namespaces"), "{said:?}");
    line(&place, &[], &format!("{off} list")).code(0);
    let fresh = Place::empty();
    line(&fresh, &[], &format!("{off} init --from \"$TREE\"")).refused(6, "max_user_namespaces");
    assert!(!fresh.base.exists(), "a store is left of a failed init");
}

fn no_ranges() {
    let place = Place::empty();
    if ids() == "single" && !rustix::process::geteuid().is_root() {
        place.said(&["init", "--ids", "subuid", "--from", "scratch"]).refused(6, "/etc/subuid");
        place.said(&["init", "--from", "mmdebstrap:stable"]).refused(6, "tar:");
    }
    let said = line(&place, &[], "\"$SANDBOX\" init --ids subuid --from \"$TREE\"");
    said.refused(6, "plain user");
    let said = line(&place, &[], "\"$SANDBOX\" init --from mmdebstrap:stable");
    said.refused(6, "tar:");
    assert!(!place.base.exists(), "a store is left of a failed init");
}

/// Old kernels and the filters of containers.
fn missing_system_calls() {
    nested::inside("filtered");
}

pub(crate) fn filtered_inside() {
    let place = Place::new();
    for (index, names) in
        ["clone3", "close_range", "clone3,close_range", "statx", "pidfd_send_signal", "faccessat2"]
            .iter()
            .enumerate()
    {
        let name = format!("n{index}");
        let line = "touch /x && for fd in /proc/self/fd/*; do case $fd in */[012]) ;; *) [ ! -e $fd ] || echo $fd ;; esac; done";
        let words = ["run", "--commit", &name, "--", "sh", "-c", line];
        let said: Said = nested::denied(names, &place.command(words)).output().expect("run").into();
        assert_eq!(said.code, 0, "without {names}: {said:?}");
        assert_eq!(said.out, "", "descriptors are left open without {names}");
        let said: Said = nested::denied(names, &place.command(["run", "--", "no-such"]))
            .output()
            .expect("run")
            .into();
        said.code(127);
    }
    // What has no substitute yet is refused, and named.
    for names in ["openat2", "fsopen", "move_mount", "pidfd_open", "memfd_create", "seccomp"] {
        let said: Said = nested::denied(names, &place.command(["run", "--", "true"]))
            .output()
            .expect("run")
            .into();
        if said.code != 0 {
            said.refused(125, "function not implemented");
        }
    }
    assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
    place.pristine();
}
