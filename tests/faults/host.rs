//! Machines that do not let us: each refusal says what to do about it.

use std::process::Command;

use crate::Case;
use crate::nested;
use crate::watch;
use crate::world::{Place, Said, ids, program, tree};

pub(crate) const CASES: &[Case] = &[
    ("no_user_namespaces", no_user_namespaces),
    ("no_namespaces_of_a_kind", no_namespaces_of_a_kind),
    ("no_ranges", no_ranges),
    ("same_words", same_words),
    ("no_proc", no_proc),
    ("in_a_run", in_a_run),
    ("missing_system_calls", missing_system_calls),
    ("ways_to_look", ways_to_look),
    ("as_who_asks", as_who_asks),
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
        // What the kernel says of it would be true of a full disk.
        assert!(said.err.contains("user.max_user_namespaces is 0"), "{said:?}");
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

/// Each kind has a limit of its own, which is named whoever meets it.
fn no_namespaces_of_a_kind() {
    let place = Place::empty();
    line(&place, &[], "\"$SANDBOX\" init --from \"$TREE\"").code(0);
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup", "net"] {
        let limit = format!("user.max_{kind}_namespaces");
        let off = format!("echo 0 >/proc/sys/user/max_{kind}_namespaces && exec \"$SANDBOX\"");
        let remedy = format!("sysctl -w {limit}=15000");
        let said = line(&place, &[], &format!("{off} run -- true"));
        assert!(said.err.contains(&format!("{limit} is 0")), "{said:?}");
        said.refused(125, &remedy);
        let said = line(&place, &[], &format!("{off} doctor"));
        assert_eq!(said.code, 6, "{said:?}");
        for row in said.out.split("\nno ").skip(1).filter(|row| !row.contains("not tried")) {
            assert!(row.contains(&format!("remedy: as root: `{remedy}`")), "{row}: {said:?}");
        }
    }
}

fn no_proc() {
    let place = Place::empty();
    let off = "mount -t tmpfs none /proc && exec \"$SANDBOX\"";
    let said = line(&place, &["--mount"], &format!("{off} doctor"));
    assert!(said.code == 6 && said.out.contains("cannot be made: there is no /proc"), "{said:?}");
    assert!(said.out.contains("remedy: /proc is not mounted"), "{said:?}");
    line(&place, &[], "\"$SANDBOX\" init --from \"$TREE\"").code(0);
    line(&place, &["--mount"], &format!("{off} run -- true")).refused(125, "/proc is not mounted");
    let other = Place::empty();
    let init = format!("{off} init --from \"$TREE\"");
    line(&other, &["--mount"], &init).refused(6, "/proc is not mounted");
}

/// Where no sandbox may be inside the sandbox, it is the one around that has to allow it.
fn in_a_run() {
    let place = Place::new();
    let program = program().canonicalize().expect("the program");
    let program = program.to_str().expect("text");
    std::fs::create_dir(place.work().join("source")).expect("mkdir");
    let bind = format!("{program}:/srv/sandbox");
    let flags = ["run", "--bind", &bind, "--tmpfs", "/srv/store"];
    // As the program is one that wants libraries, they are the host's.
    let host = ["/usr", "/lib", "/lib64"].iter().filter(|path| std::path::Path::new(path).exists());
    let binds: Vec<_> =
        host.flat_map(|path| ["--bind".to_owned(), format!("{path}:{path}")]).collect();
    let binds: Vec<&str> = binds.iter().map(String::as_str).collect();
    for words in ["--base-dir /srv/store/s doctor", "--base-dir /tmp/s doctor"] {
        let line = format!("/srv/sandbox {words}");
        let said = place.said(&[&flags[..], &binds, &["--", "sh", "-c", &line]].concat());
        let remedy = "start the run around this one with `--nest`";
        assert!(said.code == 6 && said.out.contains(remedy), "{words}: {said:?}");
        assert!(!said.out.contains("seccomp=docker"), "{words}: {said:?}");
    }
}

/// What is refused is what doctor says, with the same remedy.
fn same_words() {
    nested::inside("same_words");
}

pub(crate) fn same_words_inside() {
    let place = Place::new();
    let json = |text: &str| -> serde_json::Value {
        let line = text.lines().find(|line| line.starts_with("{\"error\"")).unwrap_or(text);
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let denied = |names: &str, words: &[&str]| -> Said {
        nested::denied(names, &place.command(words)).output().expect("run").into()
    };
    for names in [
        "unshare=1",
        "unshare",
        "umount2=1",
        "seccomp=1",
        "mount_setattr=1",
        "mount_setattr",
        "move_mount=1",
        "move_mount",
        "open_tree=1",
        "fsopen=1",
        "mount=1",
        "setsid=1",
        "capset=1",
    ] {
        let said = denied(names, &["doctor", "--json"]);
        assert_eq!(said.code, 6, "{names}: {said:?}");
        let found = json(&said.out);
        let rows = found["probes"].as_array().expect("probes").iter();
        let remedies = rows.filter_map(|row| row["remedy"].as_str());
        let remedies: Vec<_> = remedies.map(|text| text.replace('\n', "; or ")).collect();
        let said = denied(names, &["run", "--json", "--", "true"]);
        assert_eq!(said.code, 125, "{names}: {said:?}");
        let fault = json(&format!("{}{}", said.out, said.err));
        assert_eq!(fault["error"]["kind"], "host", "{names}: {fault}");
        let hint = fault["error"]["hint"].as_str().expect("a hint");
        assert!(!hint.contains("tells what this host allows"), "{names}: {fault}");
        assert!(remedies.iter().any(|remedy| remedy == hint), "{names}: {fault} {remedies:?}");
    }
    let said = denied("open_tree=1", &["diff", "postinit"]);
    said.refused(6, "clone the mount of: the store: operation not permitted");
    // For these there are others.
    for names in ["mknodat=1", "mknodat", "openat2=1", "openat2"] {
        denied(names, &["doctor"]).code(0);
        denied(names, &["run", "--bind", "/usr:/mnt/usr", "--", "sh", "-c", "ls /mnt/usr"]).code(0);
    }
    place.pristine();
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

/// One process that changes owners again and again: of open files, of paths, of a mere place, in another root.
const ASKER: &str = r#"
my ($who, $group) = @ARGV;
mkdir $_ for '/srv', '/srv/d', '/srv/d/new';
sub made { open my $file, '>', $_[0] or die "$_[0]: $!"; $file }
my $other = made '/srv/d/new/c';
made '/c';
for (1..4) {
    my $file = made "/srv/d/f$_";
    chown $who, $group, $file or die "f$_: $!";
    made "/srv/d/p$_";
    chown $who, $group, "/srv/d/p$_" or die "p$_: $!";
}
sysopen my $place, '/srv/d/f1', 0x200000 or die $!;
chown 0, 0, $place and die 'a place was given away';
print $! + 0, "\n";
chroot '/srv/d/new' or die $!;
chown $who, $group, '/c' or die $!;
"#;

/// One that is another user, and has all capabilities all the same. They do not count for what has a group outside the map, so
/// it gets to the file as its owner only; to remember an owner there is refused then.
const OTHER: &str = r#"
# prctl(PR_SET_KEEPCAPS), setresuid, capset with version 3, by their numbers on x86-64.
syscall(157, 8, 1, 0, 0, 0) == 0 or die "prctl: $!";
syscall(117, 1000, 1000, 1000) == 0 or die "setresuid: $!";
my ($head, $all) = (pack('LL', 0x20080522, 0), pack('L6', 0x1b, 0x1b, 0, 0, 0, 0));
syscall(126, $head, $all) == 0 or die "capset: $!";
for (1..3) {
    chown 3000000000, -1, '/mnt/closed/file' and die 'done';
    print $! + 0, "\n";
}
"#;

fn as_who_asks() {
    // Only the machine's root can make such a file.
    if !cfg!(target_arch = "x86_64") || ids() != "range" {
        return;
    }
    let place = Place::new();
    let said = place.said(&["show", "postinit", "--json"]).code(0);
    let shown: serde_json::Value = serde_json::from_str(&said.out).expect("json");
    let first = shown["id_map"]["uids"][0]["outside"].as_u64().expect("a range");
    let closed = place.work().join("closed");
    std::fs::create_dir(&closed).expect("mkdir");
    std::fs::write(closed.join("file"), "").expect("write");
    for path in [closed.join("file"), closed.clone()] {
        let owner = u32::try_from(first + 1000).expect("an id");
        std::os::unix::fs::chown(&path, Some(owner), Some(4242)).expect("chown");
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&closed, mode).expect("chmod");
    let bind = format!("{}:/mnt:rw", place.work().display());
    // EINVAL, not EACCES.
    let said = place.said(&["run", "--bind", &bind, "--", "perl", "-e", OTHER]);
    assert_eq!(said.code(0).out, "22\n22\n22\n");
}

/// Two ways to look at who asks for another owner: by system calls made for it, and by /proc where those are refused.
fn ways_to_look() {
    let place = Place::new();
    let single = ids() == "single";
    let (who, group) = if single { (33_u32, 8_u32) } else { (3_000_000_000, 3_000_000_001) };
    for (name, refused) in
        [("all", ""), ("memory", "process_vm_readv"), ("both", "process_vm_readv,pidfd_getfd")]
    {
        if ids() == "subuid" && !refused.is_empty() {
            // newuidmap(1) has no rights under a filter of ours.
            continue;
        }
        let words = [
            "run",
            "--commit",
            name,
            "--",
            "perl",
            "-e",
            ASKER,
            &who.to_string(),
            &group.to_string(),
        ];
        let mut command = place.command(words);
        if !refused.is_empty() {
            command = nested::denied(refused, &command);
        }
        let said: Said = command.output().expect("run").into();
        // EBADF.
        assert_eq!((said.code, said.out.as_str()), (0, "9\n"), "without {refused}: {said:?}");
        let owners = std::fs::read_to_string(owners(&place, name)).unwrap_or_default();
        let mut paths: Vec<_> = owners
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("json"))
            .filter(|line| line["uid"] == who && line["gid"] == group)
            .map(|line| line["path"].as_str().expect("path").to_owned())
            .collect();
        paths.sort();
        let mut expected: Vec<String> = ["f", "p"]
            .iter()
            .flat_map(|kind| (1..=4).map(move |n| format!("srv/d/{kind}{n}")))
            .collect();
        expected.insert(4, "srv/d/new/c".to_owned());
        expected.retain(|_| ids() != "identity");
        assert_eq!(paths, expected, "without {refused}");
    }
}

/// Where a layer says whose its files are.
fn owners(place: &Place, snapshot: &str) -> std::path::PathBuf {
    let said = place.said(&["show", snapshot, "--json"]).code(0);
    let shown: serde_json::Value = serde_json::from_str(&said.out).expect("json");
    place.base.join("layers").join(shown["layer"].as_str().expect("id")).join("owners")
}
