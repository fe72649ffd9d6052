//! Rows about what is mounted where: symlinks of a layer at the places of mounts and binds.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::left;
use crate::host::{Host, refused, text};

/// CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: /proc or /dev is a symlink of the layer.
#[test]
fn proc_and_dev_are_directories() {
    for name in ["proc", "dev"] {
        for target in ["/", "/tmp", "../../../tmp", "/proc/self/fd/7/.."] {
            let host = Host::with(|tree| {
                fs::create_dir_all(tree.join("proc-of-layer/self/fd/7")).unwrap();
                symlink(target, tree.join(name)).unwrap();
            });
            let out = host.run(&[], &["/bin/true"]);
            assert_eq!(out.status.code(), Some(125), "{name} -> {target}");
        }
    }
}

/// CVE-2025-31133: what covers a masked path is the host's null device, not what a layer put at its place.
#[test]
fn masks_are_the_null_device() {
    let host = Host::with(|tree| {
        symlink("/dev/null", tree.join("etc/hosts")).unwrap();
        symlink("../dev/null", tree.join("etc/hostname")).unwrap();
        symlink("/dev/null", tree.join("etc/resolv.conf")).unwrap();
    });
    let line = "for f in /dev/null /proc/keys /proc/interrupts; do stat -c '%F %t:%T' $f; done";
    for flags in [&["--net", "none"][..], &["--net", "host"]] {
        let out = host.shell(flags, line);
        let lines = text(&out.stdout);
        let masks =
            lines.lines().skip(1).filter(|line| *line == "character special file 1:3").count();
        assert_eq!(masks, 2, "{flags:?}: {lines}{}", text(&out.stderr));
    }
    let out = host.shell(&[], "echo x > /dev/null; stat -c '%t:%T' /dev/null");
    assert_eq!(text(&out.stdout), "1:3\n", "{}", text(&out.stderr));
}

/// While PID 1 mounts, the old root waits beneath devpts to be unmounted: no path leads there, and it is gone before the
/// command begins.
#[test]
fn the_old_root_cannot_be_reached() {
    let host = Host::with(|tree| {
        let canary = tree.parent().unwrap().join("canary");
        let aside = format!("/dev/pts/old-root{}", canary.display());
        for name in ["hosts", "hostname"] {
            symlink(&aside, tree.join("etc").join(name)).unwrap();
        }
        fs::create_dir_all(tree.join("var")).unwrap();
        symlink("/dev/pts/old-root/var/lib", tree.join("var/lib")).unwrap();
        symlink("/dev/pts/old-root/bin/sh", tree.join("aside")).unwrap();
    });
    let line = "cat /etc/hosts /etc/hostname | grep -c untouched; ls -A /dev/pts /var/lib/; \
                grep -c -e old-root -e ' /dev/pts/' /proc/self/mountinfo";
    for flags in [&["--net", "none"][..], &["--copy-up", "/var/lib"]] {
        let out = host.shell(flags, line);
        let told = text(&out.stdout);
        assert_eq!(told, "0\n/dev/pts:\nptmx\n0\n", "{flags:?}: {}", text(&out.stderr));
    }
    let out = host.run(&[], &["/aside", "-c", "echo outside"]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(127), String::new()));
}

/// The store is bound by no path, not even one through a symlink.
#[test]
fn the_store_is_never_bound() {
    let host = Host::plain();
    let store = host.path("store");
    symlink(&store, host.path("link")).unwrap();
    let proc = format!("/proc/self/root{}", store.display());
    let inner = store.join("cache");
    let link = host.path("link");
    let dir = host.path(".");
    for path in [store.as_path(), &inner, &link, &dir, Path::new(&proc), Path::new("/")] {
        for mode in ["ro", "rw", "overlay"] {
            let bind = format!("{}:/mnt:{mode}", path.display());
            let out = host.run(&["--bind", &bind], &["/bin/ls", "/mnt"]);
            assert_eq!(out.status.code(), Some(125), "{bind}: {}", text(&out.stdout));
        }
    }
}

/// CVE-2025-31133, CVE-2025-62161: the layer's /dev/null is a way to what it covers.
#[test]
fn devices_of_the_layer_are_never_used() {
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let host = Host::with(|tree| {
        fs::create_dir(tree.join("dev")).unwrap();
        for name in ["null", "zero", "full", "random", "urandom", "tty", "fd", "stdout"] {
            symlink(PATTERN, tree.join("dev").join(name)).unwrap();
        }
    });
    let before = fs::read_to_string(PATTERN).unwrap();
    let line = "echo '|/x %p' >/dev/null; stat -c '%n %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom; \
                readlink /dev/stdout; (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote";
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let out = host.shell(&["--profile", profile], line);
        let expected = "/dev/null 1:3\n/dev/zero 1:5\n/dev/full 1:7\n/dev/random 1:8\n/dev/urandom 1:9\n/proc/self/fd/1\n";
        assert_eq!(text(&out.stdout), expected, "{profile}: {}", text(&out.stderr));
    }
    assert_eq!(fs::read_to_string(PATTERN).unwrap(), before);
}

/// CVE-2019-19921, CVE-2026-41579, CVE-2026-47766: other places of ours are symlinks of the layer. They mean
/// what they say inside, and nothing of the host.
#[test]
fn places_of_ours_may_be_symlinks() {
    for name in ["sys", "run", "tmp", "etc", "var"] {
        for target in
            ["OUTSIDE", "/", "../../../..", "/proc/1/root", "/proc/self/cwd", "/dev/pts/old-root"]
        {
            let host = Host::with(|tree| {
                let outside = tree.parent().unwrap().join("outside");
                fs::remove_dir(tree.join(name)).ok();
                let target = target.replace("OUTSIDE", outside.to_str().unwrap());
                symlink(target, tree.join(name)).unwrap();
            });
            for profile in ["build", "strict"] {
                let line = format!(
                    "ls -d {} 2>/dev/null; mkdir -p /{name}/x; echo x >/{name}/x/y; true",
                    host.word("outside")
                );
                let out = host.shell(&["--profile", profile, "--net", "host"], &line);
                let code = out.status.code();
                assert!(
                    matches!(code, Some(0 | 125)),
                    "/{name} -> {target}: {}",
                    text(&out.stderr)
                );
                assert_eq!(text(&out.stdout), "", "/{name} -> {target}");
            }
        }
    }
}

/// CVE-2026-87766: what is made for a bind was made through a symlink above it.
#[test]
fn targets_of_binds_stay_inside() {
    let host = Host::with(|tree| {
        let outside = tree.parent().unwrap().join("outside");
        let outside = outside.to_str().unwrap();
        fs::create_dir(tree.join("real")).unwrap();
        for (name, target) in [
            ("abs", outside),
            ("up", "../../../.."),
            ("oldroot", "/oldroot/home"),
            ("aside", "/dev/pts/old-root"),
            ("magic", "/proc/1/root"),
            ("cwd", "/proc/self/cwd"),
            ("loop", "loop"),
            ("in", "/real"),
        ] {
            symlink(target, tree.join(name)).unwrap();
        }
        symlink(format!("../..{outside}"), tree.join("real/up")).unwrap();
    });
    let given = host.folder("given");
    fs::write(host.path("given/file"), "given").unwrap();
    let file = host.word("given/file");
    let before = left::names(&host.path("."));
    for top in ["abs", "up", "oldroot", "aside", "magic", "cwd", "loop", "in", "real/up"] {
        for below in ["", "/new", "/new/deep", "/../x"] {
            let target = format!("/{top}{below}");
            for flags in [
                ["--bind", &format!("{given}:{target}:rw")],
                ["--bind", &format!("{file}:{target}")],
                ["--bind", &format!("{given}:{target}:overlay")],
                ["--tmpfs", &target],
                ["--cache", &format!("c:{target}")],
            ] {
                let line = format!("echo x >{target}/made; test ! -e {}", host.word("canary"));
                let out = host.shell(&flags, &line);
                assert!(
                    matches!(out.status.code(), Some(0 | 125)),
                    "{flags:?}: {}",
                    text(&out.stderr)
                );
            }
        }
    }
    fs::remove_file(host.path("given/made")).ok();
    assert_eq!(left::names(&host.path(".")), before);
    assert_eq!(left::names(&host.path("given")), ["file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "given");
}

/// CVE-2024-1753, CVE-2024-11218: a source that is a symlink to the root, options beyond the three.
#[test]
fn binds_have_three_modes_and_no_other() {
    let host = Host::plain();
    let given = host.folder("given");
    symlink("/", host.path("root")).unwrap();
    symlink(host.path(".."), host.path("above")).unwrap();
    for option in [
        "shared",
        "rshared",
        "slave",
        "bind-propagation=shared",
        "ro,shared",
        "rw,suid,dev",
        "exec",
        "idmap",
        "z",
    ] {
        refused(
            &host.run(&["--bind", &format!("{given}:/mnt:{option}")], &["/bin/true"]),
            "ro, rw, overlay",
        );
    }
    for source in ["root", "above"] {
        let bind = format!("{}:/mnt", host.word(source));
        refused(&host.run(&["--bind", &bind], &["/bin/ls", "/mnt"]), "the store");
    }
    // No mount inside hands its mounts on, or gets those of others.
    let out = host.shell(
        &["--bind", &format!("{given}:/mnt:rw"), "--tmpfs", "/t"],
        "grep -E ' (shared|master|propagate_from):' /proc/self/mountinfo",
    );
    assert_eq!(text(&out.stdout), "", "{}", text(&out.stderr));
}

/// CVE-2024-23652: what was made for a mount is taken away again, through a symlink that the payload has put above it.
#[test]
fn nothing_outside_is_tidied_up() {
    let host = Host::with(|tree| {
        fs::create_dir(tree.join("db")).unwrap();
        fs::write(tree.join("db/file"), "untouched").unwrap();
    });
    let given = host.folder("given");
    let outside = host.word("outside");
    let line = format!(
        "cd /; mv /new /moved; rm -rf /new /gone; ln -s {outside} /new; ln -s {outside} /gone; \
         rm -rf /db /t; ln -s {outside} /db; ln -s {outside} /t; rm -rf /tmp; ln -s {outside} /tmp; true"
    );
    let bind = format!("{given}:/new/file");
    let flags = [
        "--bind",
        &bind,
        "--tmpfs",
        "/gone/file",
        "--copy-up",
        "/db/file",
        "--copy-up",
        "/db",
        "--tmpfs",
        "/t/file",
    ];
    for after in [&[][..], &["--commit", "a"], &["--keep"]] {
        let out = host.shell(&[&flags, after].concat(), &line);
        assert!(matches!(out.status.code(), Some(0 | 125)), "{}", text(&out.stderr));
    }
    for words in [["gc", "--all"], ["fsck", "--seal"]] {
        assert!(host.sandbox(&words).status().unwrap().success(), "{words:?}");
    }
}
