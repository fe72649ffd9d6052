//! Rows about users, groups and what files lend to who runs them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::{Ids, ids, mode};
use crate::host::{Host, open_to_all, refused, text};

/// CVE-2026-30892: an id of the layer's passwd that means "stay who you are", which is root.
#[test]
fn a_user_of_the_layer_is_never_root_by_accident() {
    let host = Host::with(|tree| {
        fs::write(
            tree.join("etc/passwd"),
            "bob:x:4294967295:0::/:/bin/sh\nann:x:0:4294967295::/:\n",
        )
        .unwrap();
        fs::write(tree.join("etc/group"), "g:x:4294967295:root\n").unwrap();
    });
    for user in ["bob", "ann", "0:g"] {
        let out = host.run(&["--user", user], &["/bin/true"]);
        assert_eq!(out.status.code(), Some(125), "{user}");
    }
}

/// CVE-2026-30892: who cannot be told exactly is nobody, and never root.
#[test]
fn a_user_is_a_name_or_a_plain_number() {
    let host = Host::plain();
    let cases = [
        "",
        "-1",
        "0x0",
        "4294967295",
        "4294967296",
        "1:2:3",
        ":",
        "0:",
        ":0",
        " 0",
        "0 ",
        "+0",
        "0.0",
        "1e0",
        "٠",
        "0\n",
        "../root",
        "a/b",
        "-",
    ];
    for user in cases {
        let out = host.run(&[&format!("--user={user}")], &["/usr/bin/id"]);
        refused(&out, "user");
    }
    let long = "a".repeat(300);
    refused(&host.run(&["--user", &long], &["/usr/bin/id"]), "user");
    // A setting of the box is read in the same way.
    let set = host.sandbox(&["box", "set", "user=-1"]).output().unwrap();
    assert_eq!(set.status.code(), Some(2), "{}", text(&set.stderr));
}

/// CVE-2024-9676, CVE-2026-47262: names are looked for in what the layer has at the place of passwd and group: a pipe that
/// never ends, 10 GiB of nothing, endless zeroes, a directory, the caller's own input.
#[test]
fn names_are_read_from_small_plain_files_only() {
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 6] = [
        ("a FIFO", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("10 GiB", |path| fs::File::create(path).unwrap().set_len(10 << 30).unwrap()),
        ("zeroes", |path| symlink("/dev/zero", path).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("the caller's input", |path| symlink("/proc/self/fd/0", path).unwrap()),
        ("a loop", |path| symlink("passwd", path).unwrap()),
    ];
    for (what, plant) in plants {
        let host = Host::with(|tree| {
            plant(&tree.join("etc/passwd"));
            plant(&tree.join("etc/group"));
        });
        for user in ["root", "bob", "0:staff", "bob:0"] {
            let run = host.running(&["--user", user], &["/bin/true"]);
            let mut limited = Command::new("timeout");
            limited.args(["--kill-after=1", "60"]).arg(run.get_program()).args(run.get_args());
            // A pipe that stays open: whoever reads it waits.
            let (reader, writer) = std::io::pipe().unwrap();
            let out = limited.stdin(reader).env("SANDBOX_BUDGET", "off").output().unwrap();
            drop(writer);
            refused(&out, "user");
            assert!(crate::common::left::names(&host.path("store/runs")).is_empty(), "{what}");
        }
    }
}

/// A path of the host, executable, that lends its owner's rights by a set-user-ID bit; none where this user
/// cannot make one.
fn lending(host: &Host, name: &str) -> Option<std::path::PathBuf> {
    let path = host.path(name);
    let copied = Command::new("cp").arg(crate::common::env::binary()).arg(&path).status().unwrap();
    assert!(copied.success());
    let line = "chown 1:1 \"$0\" && chmod 4755 \"$0\"";
    let done = match ids() {
        Ids::Range | Ids::Identity if mode::real_root() => {
            Command::new("sh").args(["-c", line]).arg(&path).status()
        }
        // In a namespace with sub-ids a user can give files to them, also set-user-ID ones.
        Ids::Subuid => Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "sh", "-c", line])
            .arg(&path)
            .status(),
        _ => return None,
    };
    assert!(done.unwrap().success());
    Some(path)
}

/// CVE-2020-5291, CVE-2026-41163: our program with a set-user-ID bit would act in its owner's store.
#[test]
fn a_set_id_program_refuses() {
    let host = Host::plain();
    let Some(copy) = lending(&host, "copy") else {
        // Who has one id can only make it lend his own rights, which changes nothing.
        let copy = host.path("copy");
        open_to_all(&copy, 0o6755);
        assert!(host.program(&copy, &["list"]).status().unwrap().success());
        return;
    };
    open_to_all(&host.path("."), 0o755);
    let out = host.program(&copy, &["list"]).output().unwrap();
    assert_eq!(out.status.code(), Some(6), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("set-id bits"), "{}", text(&out.stderr));
    if mode::real_root() {
        for (owner, group, bits) in [(Some(65534), None, 0o4755), (None, Some(65534), 0o2755)] {
            std::os::unix::fs::chown(&copy, owner.or(Some(0)), group.or(Some(0))).unwrap();
            open_to_all(&copy, bits);
            let out = host.program(&copy, &["list"]).output().unwrap();
            assert_eq!(out.status.code(), Some(6), "{bits:o}: {}", text(&out.stderr));
        }
    } else {
        // The remover of this host cannot take away what belongs to a sub-id.
        fs::remove_file(&copy).unwrap();
    }
}

/// CVE-2022-36109, CVE-2022-2989, CVE-2018-7169: who gives up a group may open what denies that group.
#[test]
fn groups_that_deny_go_on_denying() {
    if !mode::real_root() {
        // A plain user keeps his groups, and with one id no process inside can give them up.
        let host = Host::plain();
        let line = "cat /proc/self/setgroups; grep ^Groups /proc/self/status | wc -w";
        let out = host.shell(&[], line);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let own =
            own.lines().find(|line| line.starts_with("Groups")).unwrap().split_whitespace().count();
        let setgroups = if ids() == Ids::Single { "deny" } else { "allow" };
        assert_eq!(text(&out.stdout), format!("{setgroups}\n{own}\n"), "{}", text(&out.stderr));
        return;
    }
    // A user of this machine without ranges: no process inside gives a group up.
    for flags in [&[][..], &["--user", "root"], &["--user", "0:0"]] {
        let shown = denied("4242", "4242", "single", flags);
        assert!(shown == "closed\nclosed\n" || shown == "refused", "{flags:?}: {shown}");
    }
    // One with ranges, as integration/users.sh makes him: who has CAP_SETGID inside does, and others may open it.
    let id = |flag| Command::new("id").args([flag, "sandbox-test"]).output().unwrap();
    let (user, group) = (id("-u"), id("-g"));
    if user.status.success() {
        let (user, group) = (text(&user.stdout), text(&group.stdout));
        let shown = |flags| denied(user.trim(), group.trim(), "subuid", flags);
        assert_eq!(shown(&[]), "closed\nopen\n");
        assert_eq!(shown(&["--profile", "strict"]), "closed\nclosed\n");
    }
}

/// What a command of this user sees of a file that everybody may open but a group he is in, before and after it gives up its
/// groups; or that the run was refused.
fn denied(user: &str, primary: &str, ids: &str, flags: &[&str]) -> String {
    let host = Host::without_box(|_| ());
    let group = 12345;
    fs::create_dir(host.path("given")).unwrap();
    fs::write(host.path("given/denied"), "denied").unwrap();
    std::os::unix::fs::chown(host.path("given/denied"), Some(0), Some(group)).unwrap();
    open_to_all(&host.path("given/denied"), 0o707);
    fs::create_dir(host.path("store")).unwrap();
    open_to_all(&host.path("store"), 0o700);
    let owner = (user.parse().ok(), primary.parse().ok());
    std::os::unix::fs::chown(host.path("store"), owner.0, owner.1).unwrap();
    let group = group.to_string();
    let by = |command: &Command| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", user, "--regid", primary, "--groups", &group, "--inh-caps=-all"]);
        setpriv.arg(command.get_program()).args(command.get_args()).env("SANDBOX_BUDGET", "off");
        setpriv.output().unwrap()
    };
    let made = by(&host.sandbox(&["init", "--ids", ids, "--from", &host.word("tree")]));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let code = format!(
        "print open(my $e, '<', '/mnt/denied') ? 'open' : 'closed', qq(\\n); syscall({}, 0, 0); $( = 0; $) = '0 0'; \
         print open(my $f, '<', '/mnt/denied') ? 'open' : 'closed', qq(\\n)",
        libc::SYS_setgroups
    );
    let bind = format!("{}:/mnt", host.word("given"));
    let flags = [&["--bind", &bind], flags].concat();
    let out = by(&host.running(&flags, &["/usr/bin/perl", "-e", &code]));
    match out.status.code() {
        Some(125) if out.stdout.is_empty() => "refused".into(),
        _ => text(&out.stdout) + &text(&out.stderr),
    }
}

/// CVE-2022-29162: capabilities that are inherited reach what is executed later.
#[test]
fn nothing_is_inherited() {
    let host = Host::plain();
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let out = host.shell(&["--profile", profile], "cp /usr/bin/grep /tmp/g; setcap cap_kill,cap_chown+ei /tmp/g 2>/dev/null; \
             for p in /usr/bin/grep /tmp/g; do $p -E '^Cap(Inh|Amb)' /proc/self/status || echo refused; done");
        let zero = "0".repeat(16);
        let none = format!("CapInh:\t{zero}\nCapAmb:\t{zero}\n");
        assert_eq!(text(&out.stdout), none.repeat(2), "{profile}: {}", text(&out.stderr));
    }
}

/// CVE-2021-3493, CVE-2023-2640: capabilities of a file of a layer work on the host. They name the root of the
/// box's namespace, who is nobody's root outside.
#[test]
fn capabilities_of_files_are_of_the_boxs_root() {
    let host = Host::plain();
    let line = "cp /bin/true /powerful && setcap cap_sys_admin,cap_setuid+ep /powerful";
    let out = host.shell(&["--commit", "a"], line);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let file = host.layer().join("fs/powerful");
    let xattr = Command::new("getfattr")
        .args(["--absolute-names", "--only-values", "-n", "security.capability"])
        .arg(&file)
        .output()
        .unwrap()
        .stdout;
    let identity = ids() == Ids::Identity && mode::real_root();
    // vfs_cap_data: revision 3 has 24 bytes, the last four of which are the uid of the root that it is for.
    let owner = fs::metadata(file.parent().unwrap()).unwrap().uid();
    if identity {
        assert_eq!(xattr.len(), 20, "root inside is root outside: this mode is no boundary");
    } else {
        assert_eq!((xattr.len(), xattr[3]), (24, 3), "{xattr:?}");
        let root = u32::from_le_bytes(xattr[20..].try_into().unwrap());
        assert_eq!((root, root == 0), (owner, false));
    }
    assert!(!file.as_os_str().as_bytes().is_empty());
}

/// CVE-2023-0386, CVE-2021-3847: a set-user-ID file of the host is copied up from below a bind, and keeps its power.
#[test]
fn set_id_files_of_binds_have_no_power() {
    let host = Host::plain();
    host.folder("given");
    let owner = fs::metadata(host.path("given")).unwrap().uid();
    let Some(_) = lending(&host, "given/lends") else {
        open_to_all(&host.path("given/lends"), 0o6755);
        let out = host.shell(
            &["--bind", &format!("{}:/d:overlay", host.word("given"))],
            "touch /d/lends && stat -c %u /d/lends && grep NoNewPrivs /proc/self/status",
        );
        assert_eq!(text(&out.stdout), "0\nNoNewPrivs:\t1\n", "{}", text(&out.stderr));
        return;
    };
    let copied = Command::new("cp")
        .args(["--preserve=mode", "--no-preserve=ownership"])
        .arg("/usr/bin/id")
        .arg(host.path("given/id"))
        .status()
        .unwrap();
    assert!(copied.success());
    for mode in ["overlay", "ro"] {
        let bind = format!("{}:/d:{mode}", host.word("given"));
        let line = "for f in /d/*; do chmod 6755 $f; touch $f; done 2>/dev/null; /d/id -u; grep NoNewPrivs /proc/self/status";
        let out = host.shell(&["--user", "2:2", "--bind", &bind], line);
        assert_eq!(text(&out.stdout), "2\nNoNewPrivs:\t1\n", "{mode}: {}", text(&out.stderr));
    }
    if ids() == Ids::Subuid {
        fs::remove_file(host.path("given/lends")).unwrap();
    }
    assert_eq!(fs::metadata(host.path("given")).unwrap().uid(), owner);
}
