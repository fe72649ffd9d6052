//! Makes the text of what a child reports as `(stage, detail, errno)`.

use rustix::io::Errno;

use super::join::NOT_BEGUN;
use super::outcome::{NOT_EXECUTABLE, NOT_FOUND, OURS};
use super::spec::RunSpec;
use super::user::Part;
use super::wire::{Failure, Stage};
use crate::fault::{FREE_SPACE, Fault, Kind, MORE_FILES, printable, why};
use crate::isolate::vital;
use crate::remedy::{self, Host, Spaces};
use crate::rootfs::copy_up::MOST_ENTRIES;
use crate::rootfs::overlay::MOUNTED_BENEATH;
use crate::rootfs::plan::Op;

/// What the text of a failure needs of the spec, kept by the parent.
#[derive(Debug)]
pub struct Told {
    command: String,
    workdir: String,
    user: String,
    steps: Vec<Op>,
    copy_up: Vec<String>,
    lowers: Vec<String>,
}

impl Told {
    /// Keeps what a later message may need.
    pub fn of(spec: &RunSpec) -> Self {
        let command = spec
            .argv
            .as_slice()
            .first()
            .map_or_else(String::new, |word| printable(&word.to_string_lossy()));
        Self {
            command,
            workdir: printable(&spec.workdir.to_string_lossy()),
            user: spec.user.as_ref().map_or_else(String::new, ToString::to_string),
            steps: spec.plan.ops.clone(),
            copy_up: spec.copy_up.iter().map(|step| printable(&step.place)).collect(),
            lowers: spec.lowers.clone(),
        }
    }

    /// The exit code of ours and the fault for a failure.
    pub fn explain(&self, failure: Failure) -> (u8, Fault) {
        let (code, fault) = self.told(failure);
        (code, fault.of(failure.errno))
    }

    fn told(&self, failure: Failure) -> (u8, Fault) {
        let Failure { stage, detail, errno } = failure;
        let reason = why(errno);
        match stage {
            Stage::Exec => self.exec(errno, &reason),
            Stage::Workdir => (
                OURS,
                Fault::failed(format!("enter working directory: {}: {reason}", self.workdir))
                    .hint("give one that exists inside with --workdir"),
            ),
            Stage::User => (OURS, self.bad_user(Part::of(detail), errno, &reason)),
            Stage::Prepare | Stage::Mount => (OURS, self.step(failure, &reason)),
            Stage::Over if detail == NOT_BEGUN => {
                (OURS, Fault::not_found("join run: it has just ended").hint("`sandbox ps`"))
            }
            // As a command that SIGKILL has ended.
            Stage::Over => (137, Fault::failed("exec: the run has ended, and the command with it")),
            Stage::CopyUp => (OURS, self.copied_up(detail, errno, &reason)),
            Stage::Layer => {
                let layer = self.lowers.get(detail as usize).map_or("?", String::as_str);
                let message = format!("open layer: {layer}: {reason}");
                match errno {
                    Errno::MFILE | Errno::NFILE => (OURS, Fault::failed(message).hint(MORE_FILES)),
                    _ => (OURS, Fault::damaged(message)),
                }
            }
            _ => (OURS, host(stage, errno, &reason)),
        }
    }

    fn exec(&self, errno: Errno, reason: &str) -> (u8, Fault) {
        let command = &self.command;
        match errno {
            Errno::NOENT => (
                NOT_FOUND,
                Fault::not_found(format!("run command: {command}: command not found")).hint(
                    match command.as_str() {
                        // That is what a shell would be.
                        "/bin/sh" => "look inside with programs of this machine: `sandbox unshare -- sh -c 'ls $SANDBOX_ROOT'`",
                        _ => "look for it inside with `sandbox shell`",
                    },
                ),
            ),
            Errno::LIBBAD => (
                NOT_EXECUTABLE,
                Fault::failed(format!(
                    "run command: {command}: its interpreter or dynamic loader is missing inside"
                )),
            ),
            Errno::NOEXEC => (
                NOT_EXECUTABLE,
                Fault::failed(format!("run command: {command}: not a program of this machine"))
                    .hint("a script needs a first line such as `#!/bin/sh`"),
            ),
            Errno::ACCESS => {
                (NOT_EXECUTABLE, Fault::failed(format!("run command: {command}: not executable")))
            }
            _ => (NOT_EXECUTABLE, Fault::failed(format!("run command: {command}: {reason}"))),
        }
    }

    fn bad_user(&self, part: Part, errno: Errno, reason: &str) -> Fault {
        let user = &self.user;
        let bad = |why: &str| Fault::usage(format!("user: {user}: {why}"));
        let by_number = "--user UID:GID needs neither file inside";
        let of_file = |file: &str| match errno {
            Errno::NOENT => bad("not in the passwd or group inside"),
            Errno::INVAL => bad(&format!("{file} inside is no regular file")).hint(by_number),
            Errno::FBIG => bad(&format!("{file} inside is larger than 1 MiB")).hint(by_number),
            _ => bad(&format!("{file} inside: {reason}")).hint(by_number),
        };
        match part {
            Part::Passwd => of_file("/etc/passwd"),
            Part::Group => of_file("/etc/group"),
            Part::Uid => bad("its uid in the passwd inside is no number").hint(by_number),
            Part::Gid => bad("its gid in the passwd or group inside is no number").hint(by_number),
            Part::Change if errno == Errno::INVAL => bad("the id map does not hold it")
                .hint("`sandbox show` tells the map; a box in single mode has uid 0 only, and --as-user makes that uid 1000"),
            Part::Change => Fault::failed(format!("become user: {user}: {reason}")),
        }
    }

    fn step(&self, failure: Failure, reason: &str) -> Fault {
        let Failure { stage, detail, errno } = failure;
        let Some(step) = self.steps.get(detail as usize) else {
            return Fault::failed(format!("mount: step {detail}: {reason}"));
        };
        let what = step.describe();
        let fault = Fault::failed(format!("mount: {what}: {reason}"));
        let of_caller = matches!(step, Op::Bind { required: true, .. } | Op::OverlayBind { .. });
        match (step, errno) {
            (_, Errno::MFILE | Errno::NFILE) => fault.hint(MORE_FILES),
            (Op::Proc, Errno::PERM) => Fault { kind: Kind::Host, ..fault }.hint(format!(
                "the outer /proc is masked: {}; or run without --strict",
                remedy::in_one_line(&remedy::proc(Host::read()))
            )),
            // What of ours is refused is refused by the host; with a bind it may be the place.
            (_, Errno::NOSYS) => refused(fault, errno),
            (_, Errno::PERM | Errno::ACCESS | Errno::NODEV) if !of_caller => refused(fault, errno),
            (Op::Bind { .. } | Op::OverlayBind { .. } | Op::Tmpfs { .. }, Errno::NOENT)
                if stage == Stage::Mount =>
            {
                fault.hint(
                    "the target goes through a symlink to nowhere, or into another mount, which has no such place",
                )
            }
            (Op::Bind { .. } | Op::OverlayBind { .. }, Errno::LOOP) => {
                fault.hint("the source changed into a symlink while the run began; try again")
            }
            (Op::Bind { .. } | Op::OverlayBind { .. }, Errno::NOTDIR | Errno::INVAL)
                if stage == Stage::Mount =>
            {
                fault.hint("a file is bound onto a file, a directory onto a directory")
            }
            _ => fault,
        }
    }

    fn copied_up(&self, detail: u32, errno: Errno, reason: &str) -> Fault {
        let place = self.copy_up.get(detail as usize).map_or("?", String::as_str);
        match errno {
            Errno::TOOBIG => Fault::failed(format!(
                "copy up: {place}: more than {MOST_ENTRIES} files and directories"
            ))
            .hint("name the directory of the database itself"),
            Errno::NOSPC | Errno::DQUOT => Fault::failed(format!("copy up: {place}: {reason}"))
                .hint("free some space (`sandbox gc`), or leave it out: --touch-rpmdb=never"),
            _ => Fault::failed(format!("copy up: {place}: {reason}")),
        }
    }
}

/// A mount that the host refuses.
fn refused(fault: Fault, errno: Errno) -> Fault {
    let remedy = remedy::mounts(errno, Host::read());
    Fault { kind: Kind::Host, ..fault }.hint(remedy::in_one_line(&remedy))
}

/// A stage that fails because of the host, not of what was asked for.
fn host(stage: Stage, errno: Errno, reason: &str) -> Fault {
    let what = match stage {
        Stage::Ids => "map ids: for the sandbox",
        Stage::Private => "make mounts private: in the sandbox",
        Stage::Base => "clone the mount of: the store",
        Stage::Upper => "prepare the upper: in the store",
        Stage::Overlay => "mount overlay: of the layers",
        Stage::Place => "put in place: the overlay",
        Stage::Root => "switch the root: to the overlay",
        Stage::OldRoot => "unmount: the old root",
        Stage::Namespaces => "make: namespaces of IPC and of the host name",
        Stage::Network => "make: a network namespace",
        Stage::Hostname => "set: the host name",
        Stage::Loopback => "bring up: the loopback device",
        Stage::Terminal => "open: a terminal in the sandbox",
        Stage::Life => "bind the life of the sandbox: to that of its supervisor",
        Stage::Fork => "make: the payload's process",
        Stage::Session => "make: a session",
        Stage::Limits => "set: resource limits",
        Stage::Wall => "restrict: the command by Landlock",
        Stage::Cgroup => "enter: the cgroup of the run",
        Stage::Capabilities => "drop: capabilities",
        Stage::NoNewPrivs => "set: no_new_privs",
        Stage::Seccomp => "load: the seccomp filter",
        Stage::Join => "join: the run",
        _ => "set up: the sandbox",
    };
    let spaces = match stage {
        Stage::Namespaces => Some(Spaces::OTHERS),
        Stage::Cgroup => Some(Spaces::CGROUP),
        Stage::Network => Some(Spaces::NETWORK),
        _ => None,
    };
    let reason = spaces.map_or_else(
        || reason.to_owned(),
        |spaces| remedy::why_no_namespace(errno, spaces, Host::read()),
    );
    let message = format!("{what}: {reason}");
    match errno {
        Errno::OPNOTSUPP if stage == Stage::Upper => Fault::host(
            "prepare the upper: in memory: the tmpfs of this kernel has no user xattrs (Linux 6.6 has)",
        )
        .hint("leave out --upper tmpfs"),
        Errno::INVAL if stage == Stage::Base => Fault::host(message).hint(MOUNTED_BENEATH),
        Errno::TOOBIG if stage == Stage::Wall => Fault::host(format!(
            "{what}: there are sixteen Landlock domains around it already"
        ))
        .hint("start it outside of some of them"),
        Errno::BUSY if stage == Stage::Seccomp => Fault::host(message).hint(
            "a sandbox around this one has the listener of system calls: owners outside the id map are remembered \
             by that one alone; run without --strict, or with a profile that does not remember them",
        ),
        Errno::ACCESS | Errno::PERM if stage == Stage::Cgroup => Fault::host(message).hint(
            "join from a cgroup beneath one that is yours, as the run is: `systemd-run --user --scope sandbox ...`",
        ),
        Errno::NOSPC | Errno::DQUOT if spaces.is_none() => {
            Fault::failed(message).hint(FREE_SPACE)
        }
        Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM => {
            Fault::failed(message).hint("end other programs, or raise the limit (`ulimit -a`)")
        }
        _ => match remedy_of(stage, errno, Host::read()) {
            Some(remedy) => Fault::host(message).hint(remedy::in_one_line(&remedy)),
            None => Fault::host(message).hint("`sandbox doctor` tells what this host allows"),
        },
    }
}

/// What to do about it, if that is known.
fn remedy_of(stage: Stage, errno: Errno, host: Host) -> Option<String> {
    let refused = matches!(errno, Errno::PERM | Errno::ACCESS | Errno::NOSYS);
    Some(match stage {
        Stage::Ids if errno == Errno::ROFS => remedy::proc(host),
        Stage::Ids if refused || errno == Errno::NOENT => remedy::id_map(host),
        Stage::Namespaces => remedy::namespaces(errno, Spaces::OTHERS, host),
        Stage::Cgroup => remedy::namespaces(errno, Spaces::CGROUP, host),
        Stage::Network => remedy::network(errno, host),
        Stage::Private | Stage::Base | Stage::Upper | Stage::Overlay
            if refused || errno == Errno::NODEV =>
        {
            remedy::mounts(errno, host)
        }
        Stage::Place | Stage::OldRoot if refused => remedy::mounts(errno, host),
        Stage::Root if refused => format!(
            "pivot_root is refused: {}; or run without --strict and without CAP_SYS_ADMIN inside",
            remedy::in_one_line(&remedy::pivot_root(host))
        ),
        Stage::Hostname if refused => remedy::pivot_root(host),
        Stage::Seccomp => remedy::filter(errno, host),
        _ if refused => remedy::seccomp(host),
        _ => return None,
    })
}

/// The fault of a child that ended without a word.
pub fn vanished() -> Fault {
    Fault::failed("run: the sandbox: ended without telling how, killed from outside")
}

/// [`vanished`], with what may have been the reason and what to do.
pub fn vanished_from(spec: &RunSpec) -> Fault {
    let refused = vital::ours(&spec.seccomp);
    if refused.is_empty() {
        return vanished().hint("run it again; `sandbox doctor` tells what this host allows");
    }
    let message = "run: the sandbox: its seccomp rules refuse what it takes to execute a command";
    Fault::failed(message).hint(format!("allow also {}", refused.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told {
            command: "rpm".into(),
            workdir: "/w".into(),
            user: "bob".into(),
            steps: vec![Op::Proc],
            copy_up: vec!["/srv".into()],
            lowers: vec!["layers/x/fs".into()],
        }
    }

    #[test]
    fn documented_codes() {
        let code = |errno| told().explain(Failure { stage: Stage::Exec, detail: 0, errno }).0;
        assert_eq!(code(Errno::NOENT), 127);
        assert_eq!(code(Errno::ACCESS), 126);
        assert_eq!(code(Errno::LIBBAD), 126);
        let failure = Failure { stage: Stage::Overlay, detail: 0, errno: Errno::PERM };
        assert_eq!(told().explain(failure).0, 125);
    }

    #[test]
    fn why_a_user_cannot_be_is_told_apart() {
        for (part, errno, why) in [
            (Part::Passwd, Errno::NOENT, "not in the passwd"),
            (Part::Passwd, Errno::INVAL, "/etc/passwd inside is no regular file"),
            (Part::Group, Errno::FBIG, "/etc/group inside is larger"),
            (Part::Uid, Errno::INVAL, "its uid in the passwd inside is no number"),
            (Part::Gid, Errno::INVAL, "its gid in the passwd or group inside is no number"),
            (Part::Change, Errno::INVAL, "the id map does not hold it"),
        ] {
            let (code, fault) = told().explain(part.failed()(errno));
            assert_eq!(code, 125);
            assert!(fault.message.contains(why), "{part:?}: {fault}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_copied_up_is_named() {
        let failure = Failure { stage: Stage::CopyUp, detail: 0, errno: Errno::TOOBIG };
        let (code, fault) = told().explain(failure);
        assert_eq!(code, 125);
        assert_eq!(fault.message, "copy up: /srv: more than 10000 files and directories");
    }

    #[test]
    fn a_masked_proc_names_its_remedy() {
        let failure = Failure { stage: Stage::Prepare, detail: 0, errno: Errno::PERM };
        let (_, fault) = told().explain(failure);
        assert_eq!(fault.kind, Kind::Host);
        assert!(fault.hint.expect("hint").contains("systempaths=unconfined"));
    }
}
