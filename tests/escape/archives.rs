//! Rows about archives, and about programs that a tree would like us to start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tar::EntryType::{Link, Regular, Symlink};

use crate::common::left;
use crate::common::tree::{Tar, compressed};
use crate::host::{Host, open_to_all, text};

/// An archive that is refused, whole: nothing of it is in the store, and nothing beside it is touched.
#[track_caller]
fn is_refused(host: &Host, what: &str, archive: &[u8]) {
    let file = host.path("archive.tar");
    fs::write(&file, archive).unwrap();
    let out = host.init(&["--from", &format!("tar:{}", file.display())]).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{what}: {}", text(&out.stderr));
    assert!(text(&out.stderr).starts_with("sandbox: "), "{what}: {}", text(&out.stderr));
    for folder in ["boxes", "layers"] {
        assert_eq!(left::names(&host.path("store").join(folder)), [""; 0], "{what}");
    }
}

/// CVE-2026-53489, CVE-2026-33748, RUSTSEC-2018-0002, RUSTSEC-2021-0080, CVE-2026-33056: each way out of the target.
#[test]
fn entries_stay_in_the_tree() {
    let host = Host::without_box(|_| ());
    let outside = host.word("outside");
    let file = format!("{outside}/file");
    type Make<'a> = Box<dyn Fn(&mut Tar) + 'a>;
    let cases: Vec<(&str, Make)> = vec![
        ("dot-dot", Box::new(|tar| tar.file("../../../../outside/file", 0o644, 0, 0, b"evil"))),
        ("absolute", Box::new(|tar| tar.file(&file, 0o644, 0, 0, b"evil"))),
        (
            "through a symlink",
            Box::new(|tar| {
                tar.link(Symlink, "d", &outside);
                tar.file("d/file", 0o644, 0, 0, b"evil");
            }),
        ),
        (
            "a directory over a symlink",
            Box::new(|tar| {
                tar.link(Symlink, "d", &outside);
                tar.dir("d/", 0o777, 0, 0);
                tar.file("d/file", 0o644, 0, 0, b"evil");
                tar.file("../x", 0o644, 0, 0, b"evil");
            }),
        ),
        (
            "a mode through a symlink",
            Box::new(|tar| {
                tar.dir("a/", 0o755, 0, 0);
                tar.link(Symlink, "a/d", &outside);
                tar.dir("a/d/.", 0o700, 0, 0);
                tar.dir("a/d/sub/", 0o700, 0, 0);
                // An honest archive may replace what it has made itself: it is told by its end.
                tar.file("../x", 0o644, 0, 0, b"evil");
            }),
        ),
        ("a hard link out", Box::new(|tar| tar.link(Link, "l", "../../../../outside/file"))),
        ("a hard link to an absolute path", Box::new(|tar| tar.link(Link, "l", &file))),
        (
            "a hard link through a symlink",
            Box::new(|tar| {
                tar.link(Symlink, "d", &outside);
                tar.link(Link, "l", "d/file");
            }),
        ),
    ];
    for (what, make) in cases {
        let mut tar = Tar::new();
        make(&mut tar);
        is_refused(&host, what, &tar.end());
    }
}

/// CVE-2021-29136: the root itself is a symlink, or a file.
#[test]
fn the_root_is_a_directory() {
    let host = Host::without_box(|_| ());
    for name in [".", "./", "./."] {
        let mut tar = Tar::new();
        tar.link(Symlink, name, "/");
        is_refused(&host, name, &tar.end());
        let mut tar = Tar::new();
        tar.add(Regular, name, 0o644, (0, 0), b"evil");
        is_refused(&host, name, &tar.end());
    }
}

/// CVE-2026-33055: a size in an extended header that is not that of the entry lets one entry hide another.
#[test]
fn sizes_that_disagree_are_refused() {
    let host = Host::without_box(|_| ());
    for size in ["0", "512", "1024", "18446744073709551615", "-1", "x"] {
        let record = format!("size={size}\n");
        // "LENGTH size=N\n", where the length counts itself.
        let length = record.len() + 3;
        let mut tar = Tar::new();
        tar.add(
            tar::EntryType::XHeader,
            "pax",
            0o644,
            (0, 0),
            format!("{length} {record}").as_bytes(),
        );
        tar.file("evil", 0o644, 0, 0, &[b'x'; 600]);
        is_refused(&host, size, &tar.end());
    }
}

/// The form of overlayfs is not an archive's to use: redirects and opaque directories show what lies elsewhere.
#[test]
fn overlay_attributes_are_refused() {
    let host = Host::without_box(|_| ());
    for name in [
        "user.overlay.redirect",
        "user.overlay.metacopy",
        "user.overlay.opaque",
        "user.overlay.origin",
        "trusted.overlay.redirect",
        "user.overlay.overlay.opaque",
    ] {
        let record = format!("SCHILY.xattr.{name}=/etc\n");
        let length = record.len() + 3;
        let length = if length < 100 { length } else { length + 1 };
        let mut tar = Tar::new();
        tar.add(
            tar::EntryType::XHeader,
            "pax",
            0o644,
            (0, 0),
            format!("{length} {record}").as_bytes(),
        );
        tar.dir("d/", 0o755, 0, 0);
        is_refused(&host, name, &tar.end());
    }
}

/// The same from inside: what a payload writes by hand means nothing to the next run.
#[test]
fn overlay_attributes_of_a_payload_mean_nothing() {
    let host = Host::with(|tree| {
        fs::create_dir(tree.join("secret")).unwrap();
        fs::write(tree.join("secret/file"), "hidden").unwrap();
        fs::create_dir(tree.join("d")).unwrap();
        fs::write(tree.join("d/below"), "").unwrap();
    });
    let line = "rm -rf /secret; mkdir /e; touch /f; for a in redirect metacopy opaque origin whiteout upper; do \
                for p in /d /e /f; do setfattr -n user.overlay.$a -v /secret $p; setfattr -n trusted.overlay.$a -v y $p; done; done 2>/dev/null; \
                mknod /w c 0 0 2>/dev/null; mknod /d/below2 c 0 0 2>/dev/null; true";
    let out = host.shell(&["--commit", "a"], line);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let layer = host.layer();
    let listed = Command::new("getfattr")
        .args(["-R", "-h", "-d", "-m", "^(user|trusted).overlay", "--absolute-names"])
        .arg(layer.join("fs"))
        .output()
        .unwrap();
    for line in text(&listed.stdout).lines().filter(|line| line.contains("overlay.")) {
        let name = line.split('=').next().unwrap();
        // What is doubled is the payload's own; of the rest the kernel keeps its notes, without a path in them.
        let plain = [
            "user.overlay.impure",
            "user.overlay.origin",
            "user.overlay.uuid",
            "user.overlay.opaque",
        ];
        assert!(name.starts_with("user.overlay.overlay.") || plain.contains(&name), "{line}");
        assert!(name.starts_with("user.overlay.overlay.") || !line.contains("/secret"), "{line}");
    }
    let out =
        host.shell(&["--from", "a"], "cat /d/file /e/file /f /secret/file 2>/dev/null; ls /d");
    assert!(text(&out.stdout).starts_with("below\n"), "{}", text(&out.stdout));
}

/// CVE-2026-41567: programs of the tree are started outside, because they are first in a path or in the
/// working directory.
#[test]
fn programs_of_a_tree_are_never_started_outside() {
    let names = [
        "xz",
        "gzip",
        "zstd",
        "tar",
        "mount",
        "umount",
        "newuidmap",
        "newgidmap",
        "unshare",
        "sh",
        "cp",
        "mmdebstrap",
        "rpm",
        "sandbox",
    ];
    let host = Host::with(|tree| {
        fs::create_dir(tree.join("usr/bin")).unwrap();
        let canary = tree.parent().unwrap().join("canary");
        for name in names {
            let script = format!(
                "#!/usr/bin/perl\nopen(F, '>', '{}'); print F 'stolen';\n",
                canary.display()
            );
            fs::write(tree.join("usr/bin").join(name), script).unwrap();
            fs::set_permissions(tree.join("usr/bin").join(name), fs::Permissions::from_mode(0o755))
                .unwrap();
        }
    });
    let mut tar = Tar::new();
    tar.dir("etc/", 0o755, 0, 0);
    let archive = host.path("a.tar.xz");
    fs::write(&archive, compressed("xz", &tar.end())).unwrap();
    let results = host.folder("results");
    let out = format!("/made:{results}");
    for dir in [host.path("tree/usr/bin"), host.layer().join("fs/usr/bin")] {
        let init = format!("tar:{}", archive.display());
        for words in [
            &["init", "other", "--from", &init][..],
            &[
                "run",
                "--bind",
                "/usr:/usr",
                "--out",
                &out,
                "--commit",
                "a",
                "--digest",
                "--",
                "/bin/sh",
                "-c",
                "echo x >/made",
            ],
            &["diff", "a"],
            &["rm", "a"],
            &["scrub", "other", "--all"],
            &["gc", "--all"],
            &["fsck"],
            &["doctor"],
        ] {
            let mut command = host.sandbox(words);
            command.current_dir(&dir);
            if words[0] == "init" {
                command.arg("--ids").arg(crate::common::ids().name());
            }
            let out = command.output().unwrap();
            let code = if words[0] == "doctor" { out.status.code() } else { Some(0) };
            assert_eq!(out.status.code(), code, "{words:?}: {}", text(&out.stderr));
        }
        fs::remove_file(host.path("results/made")).unwrap();
    }
    open_to_all(&archive, 0o644);
}
