//! Rows about /proc, descriptors, the environment and our own program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::common::{Ids, ids};
use crate::host::{Host, open_to_all, refused, text};

/// CVE-2024-21626: a working directory that is a symlink of the layer to a descriptor of ours.
#[test]
fn the_working_directory_is_inside() {
    let host = Host::with(|tree| {
        for number in 0..40 {
            symlink(format!("/proc/self/fd/{number}"), tree.join(format!("self{number}"))).unwrap();
            symlink(format!("/proc/1/fd/{number}"), tree.join(format!("init{number}"))).unwrap();
        }
        symlink("/proc/1/cwd", tree.join("init-cwd")).unwrap();
        symlink("/proc/1/root", tree.join("init-root")).unwrap();
    });
    let numbered = (0..40).flat_map(|number| [format!("/self{number}"), format!("/init{number}")]);
    for dir in numbered.chain(["/init-cwd".into(), "/init-root".into()]) {
        let out = host.run(&["--workdir", &dir], &["/bin/ls"]);
        assert_eq!(out.status.code(), Some(125), "{dir}: {}", text(&out.stdout));
    }
    // A standard descriptor of the caller's is no way either.
    let mut run =
        host.sandbox(&["run", "--bind", "/usr:/usr", "--workdir", "/self0", "--", "/bin/ls"]);
    let out = run.stdin(fs::File::open(host.path(".")).unwrap()).output().unwrap();
    assert_eq!(out.status.code(), Some(125), "{}", text(&out.stdout));
}

/// The payload sees no descriptor of ours, and nothing of PID 1, in any profile.
#[test]
fn nothing_of_ours_is_in_proc() {
    let host = Host::plain();
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let flags = ["--profile", profile, "--net", "none"];
        let out = host.run(&flags, &["/bin/ls", "/proc/self/fd"]);
        assert_eq!(text(&out.stdout), "0\n1\n2\n3\n", "{profile}: {}", text(&out.stderr));
        let closed = |line: &str| {
            let out = host.shell(&flags, line);
            assert!(!out.status.success(), "{profile}: {line}: {}", text(&out.stdout));
            assert_eq!(text(&out.stdout), "", "{profile}: {line}");
        };
        for name in ["environ", "maps", "mem", "exe", "auxv", "task/1/mem"] {
            closed(&format!("cat /proc/1/{name}"));
        }
        for name in ["cwd/", "root/", "fdinfo/", "task/1/cwd/", "task/1/root/"] {
            closed(&format!("ls /proc/1/{name}"));
        }
        for name in ["fd", "task/1/fd", "map_files"] {
            // Root of an identity map reads the numbers; what is behind them nobody.
            if ids() != Ids::Identity {
                closed(&format!("ls /proc/1/{name}/"));
            }
            closed(&format!(
                "found=1; for f in /proc/1/{name}/*; do readlink $f && found=0; cat $f && found=0; \
                 ls $f/ && found=0; done; exit $found"
            ));
        }
    }
}

/// The first process acts with one capability only, that to signal anybody. Where owners are remembered it could take on what
/// their handler needs, which is made of it; else there is nothing more.
#[test]
fn the_first_process_has_few_capabilities() {
    let host = Host::plain();
    // KILL. And CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SYS_CHROOT, SYS_PTRACE, MKNOD, SETFCAP.
    // (What it might gain by an exec says nothing: it never does one.)
    let kill = 1_u64 << 5;
    let handler =
        [0, 1, 2, 3, 4, 6, 7, 18, 19, 27, 31].iter().fold(0_u64, |set, bit| set | 1 << bit);
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let words = ["/bin/grep", "-E", "^Cap(Inh|Prm|Eff|Amb)", "/proc/1/status"];
        let out = host.run(&["--profile", profile], &words);
        let permitted = if profile == "strict" { kill } else { kill | handler };
        let wanted = [("CapInh", 0), ("CapPrm", permitted), ("CapEff", kill), ("CapAmb", 0)];
        let wanted: String =
            wanted.iter().map(|(name, set)| format!("{name}:\t{set:016x}\n")).collect();
        assert_eq!(text(&out.stdout), wanted, "{profile}");
    }
}

/// A number that the caller has not opened is not one of ours either: 3 is the store.
#[test]
fn only_the_callers_descriptors_can_be_kept() {
    let host = Host::plain();
    for number in 3..10 {
        let number = number.to_string();
        let run = host.sandbox(&["run", "--preserve-fd", &number, "--", "/bin/true"]);
        // What this test itself was started with is closed first.
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; exec \"$0\" \"$@\"");
        let out = shell.arg(run.get_program()).args(run.get_args()).output().unwrap();
        assert_eq!(out.status.code(), Some(125), "{number}");
        assert!(text(&out.stderr).contains("not open"), "{number}: {}", text(&out.stderr));
    }
}

/// CVE-2019-5736: our own program on the host, by the payload's /proc/self/exe.
#[test]
fn our_program_is_not_started_inside() {
    let host = Host::with(|tree| {
        symlink("/proc/self/exe", tree.join("link")).unwrap();
        fs::write(tree.join("loaded"), loaded_by_us()).unwrap();
        fs::write(tree.join("script"), "#!/proc/self/exe\n").unwrap();
        fs::write(tree.join("twice"), "#! /script x\n").unwrap();
        fs::create_dir(tree.join("dir")).unwrap();
        symlink("/proc/self/exe", tree.join("dir/here")).unwrap();
        fs::write(tree.join("relative"), "#!here\n").unwrap();
        for name in ["script", "twice", "relative", "loaded"] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o711)).unwrap();
        }
    });
    for profile in host.profiles(&["build", "strict"]) {
        for command in ["/link", "/script", "/twice", "/loaded"] {
            let out = host.run(&["--profile", profile], &[command, "--version"]);
            assert_eq!(out.status.code(), Some(126), "{command}: {}", text(&out.stdout));
        }
    }
    // An interpreter by a relative name is looked for in the working directory.
    let out = host.run(&["--workdir", "/dir"], &["/relative", "--version"]);
    assert_eq!(out.status.code(), Some(126), "{}", text(&out.stderr));
    assert!(!text(&out.stderr).contains("missing inside"), "{}", text(&out.stderr));
    let out = host.run(&["--env", "PATH=/nowhere:/"], &["link", "--version"]);
    assert_eq!(out.status.code(), Some(126), "{}", text(&out.stdout));
}

/// `true` of the host, with /proc/self/exe for its dynamic loader.
pub(crate) fn loaded_by_us() -> Vec<u8> {
    let mut file = fs::read("/bin/true").unwrap();
    let loader = |at: &usize| {
        file[*at..].starts_with(b"/lib")
            && file[*at..].windows(4).take(40).any(|four| four == b"ld-l")
    };
    let at = (0..file.len()).find(loader).expect("a loader");
    let name = b"/proc/self/exe\0";
    file[at..at + name.len()].copy_from_slice(name);
    file
}

/// CVE-2019-5736: the program that runs is written to by way of /proc. A copy that its caller may write.
#[test]
fn the_running_program_cannot_be_written() {
    let host = Host::plain();
    let copy = host.path("sandbox");
    let copied = Command::new("cp").arg(crate::common::env::binary()).arg(&copy).status().unwrap();
    assert!(copied.success());
    open_to_all(&copy, 0o777);
    let sum = || Command::new("sha256sum").arg(&copy).output().unwrap().stdout;
    let before = sum();
    let line = "for p in /proc/[0-9]*; do \
                if (printf x >>$p/exe) 2>/dev/null || (printf x >$p/exe) 2>/dev/null; then echo wrote $p; fi; \
                done; head -c 4 /proc/1/exe 2>/dev/null; true";
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let words =
            ["run", "--profile", profile, "--bind", "/usr:/usr", "--", "/bin/sh", "-c", line];
        let out = host.program(&copy, &words).output().unwrap();
        assert_eq!(text(&out.stdout), "", "{profile}: {}", text(&out.stderr));
        assert!(out.status.success(), "{profile}: {}", text(&out.stderr));
    }
    assert_eq!(sum(), before);
}

/// CVE-2024-21626: none of the numbers up to 1024 is a descriptor of ours, in the payload or in PID 1.
#[test]
fn no_number_is_a_descriptor_of_ours() {
    let host = Host::plain();
    let code = "for my $n (3..1024) { for my $p ('self', 1) { \
                print \"$p/$n\n\" if stat \"/proc/$p/fd/$n/.\" or -e \"/proc/$p/fd/$n\" \
                or opendir(my $d, \"/proc/$p/fd/$n\") } }";
    for profile in host.profiles(&["build", "dev", "strict"]) {
        assert_eq!(host.perl(&["--profile", profile], code), "", "{profile}");
    }
}

/// CVE-2025-52881, CVE-2025-62596: a file system over the caller's own /proc, with links in it that lead what
/// is meant for the kernel to a file. The caller can do this to himself only; nobody inside can.
#[test]
fn a_covered_proc_takes_no_writes() {
    let host = Host::plain();
    let run = host.running(&[], &["/bin/stat", "-f", "-c", "%T", "/proc"]);
    let targets = ["uid_map", "gid_map", "setgroups", "attr/exec", "attr/current", "oom_score_adj"];
    let links: String = targets
        .iter()
        .map(|name| format!("ln -s {} /proc/self/{name}; ", host.word("canary")))
        .collect();
    let line = format!(
        "mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/self/fd && {links} exec \"$@\""
    );
    let mut unshare = Command::new("unshare");
    // With rights over mounts, and with ids that a box of this mode can be used with.
    match ids() {
        Ids::Range => unshare.arg("--mount"),
        Ids::Identity if rustix::process::geteuid().is_root() => unshare.arg("--mount"),
        _ => unshare.args(["--user", "--map-root-user", "--mount"]),
    };
    unshare.args(["sh", "-c", &line, "sh"]).arg(run.get_program()).args(run.get_args());
    let out = unshare.env("SANDBOX_BUDGET", "off").stdin(Stdio::null()).output().unwrap();
    let shown = text(&out.stdout);
    assert!(shown.is_empty() || shown == "proc\n", "{shown}{}", text(&out.stderr));
    assert_eq!(out.status.success(), !shown.is_empty(), "{}", text(&out.stderr));
}

/// The same, going on while runs are started: /proc inside is always the kernel's, and of this run.
#[test]
fn a_bind_never_stands_in_for_proc() {
    let host = Host::plain();
    let fake = host.folder("fake");
    fs::create_dir(host.path("fake/self")).unwrap();
    for target in ["/proc", "/proc/self", "/proc/sys/kernel", "/proc/1", "/./proc", "/proc/"] {
        for mode in ["ro", "rw"] {
            let out = host.run(&["--bind", &format!("{fake}:{target}:{mode}")], &["/bin/true"]);
            refused(&out, "/proc");
        }
    }
    for flags in [["--tmpfs", "/proc"], ["--tmpfs", "/proc/sys"], ["--cache", "x:/proc"]] {
        refused(&host.run(&flags, &["/bin/true"]), "/proc");
    }
}

/// CVE-2021-21334: nothing of the caller's environment shows, in no process that can be seen.
#[test]
fn the_callers_environment_does_not_show() {
    let host = Host::plain();
    let line = "cat /proc/*/environ /proc/*/task/*/environ 2>/dev/null | tr '\\0' '\\n'; env";
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let mut run = host.running(&["--profile", profile], &["/bin/sh", "-c", line]);
        for name in [
            "CANARY",
            "SSH_AUTH_SOCK",
            "AWS_SECRET_ACCESS_KEY",
            "DBUS_SESSION_BUS_ADDRESS",
            "XDG_RUNTIME_DIR",
            "LD_PRELOAD_",
            "GITHUB_TOKEN",
            "DISPLAY",
        ] {
            run.env(name, "sing-no-more");
        }
        let out = run.output().unwrap();
        let shown = text(&out.stdout);
        assert!(out.status.success() && shown.contains("container=sandbox"), "{shown}");
        assert!(!shown.contains("sing-no-more"), "{profile}: {shown}");
    }
}

/// CVE-2019-12589: a policy that lies where a payload can write, for the next one to be run with.
#[test]
fn no_policy_is_in_reach() {
    let host = Host::plain();
    let names =
        ["run.json", "layer.json", "box.json", "format.json", "seccomp*", "*.bpf", "profile*.json"];
    let names = names.map(|name| format!("-name '{name}'")).join(" -o ");
    let line = format!(
        "find / \\( -path /proc -o -path /usr \\) -prune -o \\( {names} \\) -print 2>/dev/null; true"
    );
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let out = host.shell(&["--profile", profile], &line);
        assert!(out.status.success(), "{}", text(&out.stderr));
        assert_eq!(text(&out.stdout), "", "{profile}");
        // Nor is a file of the store the source of any mount but the root's layers.
        let out = host.shell(
            &["--profile", profile],
            "awk '$4 ~ /(cache|boxes|runs|trash|store)/' /proc/self/mountinfo",
        );
        assert_eq!(text(&out.stdout), "", "{profile}");
    }
}

/// Nor do the words that we were started with, which name files of the host.
#[test]
fn the_callers_command_line_does_not_show() {
    let host = Host::plain();
    let report = host.word("report.json");
    for flags in [&["--report", &report, "-e", "SECRET=swordfish"][..], &[]] {
        let out = host.run(flags, &["/bin/cat", "/proc/1/cmdline"]);
        assert_eq!(text(&out.stdout), "sandbox\0", "{}", text(&out.stderr));
    }
}

/// CVE-2024-21626 by the caller's own hand: from an open directory a way leads up to all others.
#[test]
fn no_directory_is_given_open() {
    let host = Host::plain();
    let open = || Stdio::from(fs::File::open(host.path(".")).unwrap());
    let words = ["run", "--bind", "/usr:/usr", "--", "/bin/sh", "-c", "ls /proc/self/fd/*/.. >&2"];
    let streams: [fn(&mut Command, Stdio) -> &mut Command; 3] =
        [Command::stdin, Command::stdout, Command::stderr];
    for (number, stream) in streams.into_iter().enumerate() {
        let out = stream(&mut host.sandbox(&words), open()).output().unwrap();
        assert_eq!(out.status.code(), Some(125), "{number}: {}", text(&out.stderr));
        assert!(number == 2 || text(&out.stderr).contains(&format!("{number}: it is a directory")));
    }
    let kept = host.sandbox(&["run", "--preserve-fd", "7", "--", "/bin/true"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 7<."]).arg(kept.get_program()).args(kept.get_args());
    shell.envs(kept.get_envs().filter_map(|(key, value)| Some((key, value?))));
    refused(&shell.current_dir(host.path(".")).output().unwrap(), "7: it is a directory");
}
