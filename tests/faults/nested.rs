//! This program again, in a mount namespace of its own or under a seccomp filter.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

use crate::world::{fell, ids};

/// What `--inside NAME` does.
const INSIDE: &[(&str, fn())] = &[
    ("space", crate::full::space_inside),
    ("inodes", crate::full::inodes_inside),
    ("ext4", crate::full::ext4_inside),
    ("disk_cannot_write", crate::disks::cannot_write_inside),
    ("disk_cannot_read", crate::disks::cannot_read_inside),
    ("disk_broken_directories", crate::disks::broken_directories_inside),
    ("disk_broken_folders", crate::disks::broken_folders_inside),
    ("read_only", crate::full::read_only_inside),
    ("no_user_xattrs", crate::full::no_user_xattrs_inside),
    ("filtered", crate::host::filtered_inside),
    ("same_words", crate::host::same_words_inside),
    ("no_pivot_root", crate::weaker::no_pivot_root_inside),
    ("no_listener", crate::weaker::no_listener_inside),
    ("no_landlock", crate::weaker::no_landlock_inside),
];

/// Does what the harness asks of itself, if these words are of that kind.
pub(crate) fn helper(words: &[String]) -> Option<ExitCode> {
    match words.first()?.as_str() {
        "--inside" => {
            let (_, case) = INSIDE.iter().find(|(name, _)| *name == words[1]).expect("a name");
            case();
            fell();
            Some(ExitCode::SUCCESS)
        }
        "--deny" => Some(deny(&words[1], &words[2..])),
        _ => None,
    }
}

/// unshare(1) into a mount namespace, where needed with a user namespace of the ids of this mode around.
pub(crate) fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
        if ids() == "subuid" {
            command.arg("--map-auto");
        }
    }
    command
}

/// Does a case of [`INSIDE`] in there.
#[track_caller]
pub(crate) fn inside(name: &str) {
    let mut command = unshare();
    command.arg(env::current_exe().expect("own path")).args(["--inside", name]);
    // There, the ids of a range are simply the ids.
    command.env("SANDBOX_TEST_IDS", if ids() == "subuid" { "identity".to_owned() } else { ids() });
    assert!(command.status().expect("run unshare").success(), "{name} failed inside");
}

/// A command whose words are run where these system calls answer ENOSYS, or with another number: `unshare=1`.
pub(crate) fn denied(names: &str, command: &Command) -> Command {
    let mut wrapped = Command::new(env::current_exe().expect("own path"));
    wrapped.args(["--deny", names]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    wrapped.current_dir(command.get_current_dir().expect("directory"));
    wrapped
}

/// In place of a system call: a second listener of a seccomp filter (SECCOMP_FILTER_FLAG_NEW_LISTENER).
pub(crate) const LISTENER: &str = "listener";

fn deny(names: &str, words: &[String]) -> ExitCode {
    const ENOSYS: i32 = 38;
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).expect("filter");
    for name in names.split(',') {
        if name == LISTENER {
            // As the kernel does where a filter of the caller has one.
            let flag = ScmpArgCompare::new(1, ScmpCompareOp::MaskedEqual(8), 8);
            let call = ScmpSyscall::from_name("seccomp").expect("system call");
            let busy = ScmpAction::Errno(16);
            filter.add_rule_conditional(busy, call, &[flag]).expect("rule");
            continue;
        }
        let (name, errno) = match name.split_once('=') {
            Some((name, errno)) => (name, errno.parse().expect("an errno")),
            None => (name, ENOSYS),
        };
        let call = ScmpSyscall::from_name(name).expect("system call");
        filter.add_rule(ScmpAction::Errno(errno), call).expect("rule");
    }
    filter.load().expect("load filter");
    panic!("{}", Command::new(&words[0]).args(&words[1..]).exec());
}
