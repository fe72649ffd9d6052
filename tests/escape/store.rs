//! Rows about the store itself: who gets into it, and what a record may make us do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::{left, mode};
use crate::host::{Host, open_to_all, refused, text};

/// CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: others of this machine get at files of layers.
#[test]
fn the_store_is_the_callers_alone() {
    let host = Host::without_box(|_| ());
    // Whatever the caller's mask is.
    let init = host.init(&["--from", &host.word("tree")]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(init.get_program()).args(init.get_args());
    assert!(shell.env("SANDBOX_BUDGET", "off").status().unwrap().success());
    let bits = |name: &str| fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(bits("store"), 0o700);
    for folder in ["layers", "boxes", "runs", "trash", "cache"] {
        assert_eq!(bits(&format!("store/{folder}")) & 0o022, 0, "{folder}");
    }
    if mode::real_root() {
        for line in ["ls", "cat format.json", "ls layers"] {
            let place = host.path("store");
            let mut other = Command::new("setpriv");
            other.args(["--reuid", "4242", "--regid", "4242", "--clear-groups", "sh", "-c"]);
            let out = other.arg(format!("cd '{}' && {line}", place.display())).output().unwrap();
            assert!(!out.status.success() && out.stdout.is_empty(), "{line}");
        }
    }
    // One that has been opened to others since is not used any more.
    for bits in [0o701, 0o710, 0o750, 0o755, 0o777, 0o2700 | 0o050] {
        open_to_all(&host.path("store"), bits);
        refused(&host.run(&[], &["/bin/true"]), "store");
    }
    open_to_all(&host.path("store"), 0o700);
    assert!(host.run(&[], &["/bin/true"]).status.success());
}

/// CVE-2021-26910: places of the store become symlinks while something is made in them. Each of them, to a
/// directory outside.
#[test]
fn symlinks_in_the_store_are_not_followed() {
    for place in
        ["cache", "LAYER", "LAYER/fs", "SPARE", "SPARE/layer", "SPARE/work", "SPARE/layer/fs"]
    {
        let host = Host::plain();
        // Fills the cache, with a directory that is used again.
        assert!(host.run(&[], &["/bin/true"]).status.success());
        let cache = left::names(&host.path("store/cache"));
        let spare = cache.iter().find(|name| name.starts_with("spare-"));
        let spare = spare.expect("a run that changed nothing leaves its directory");
        let layer = host.layer();
        let layer = layer.file_name().unwrap().to_str().unwrap();
        let name = place.replace("LAYER", &format!("layers/{layer}"));
        let path = host.path("store").join(name.replace("SPARE", &format!("cache/{spare}")));
        let aside = host.path("aside");
        let moved = fs::rename(&path, &aside).is_ok();
        symlink(host.path("outside"), &path).unwrap();
        for flags in [&["--commit", "x"][..], &["--keep-on-failure"], &[]] {
            let out = host.shell(flags, "echo x >/made; false");
            let told = text(&out.stderr);
            assert!(matches!(out.status.code(), Some(1 | 125)), "{place}: {told}");
        }
        for words in [&["gc", "--all"][..], &["fsck"], &["list"], &["init", "--refresh"]] {
            host.sandbox(words).output().unwrap();
        }
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(&path).unwrap();
            if moved {
                fs::rename(&aside, &path).unwrap();
            }
        }
        crate::common::tree::remove(&aside);
    }
}

/// CVE-2026-53488: words of a layer's record flow to a terminal, a path or a command of the host.
#[test]
fn words_of_records_are_only_words() {
    let host = Host::plain();
    let canary = host.word("canary");
    let evil = format!(
        "$(touch {canary}2) `touch {canary}2` ; touch {canary}2\n\u{1b}]0;title\u{7}\u{1b}[31m--base-dir=/ ../../x"
    );
    let out =
        host.run(&["--commit", "a", "--hostname", "h"], &["/bin/sh", "-c", "echo x >/made", &evil]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    for words in [
        &["list"][..],
        &["show", "a"],
        &["log"],
        &["log", "--graph"],
        &["diff", "a"],
        &["fsck"],
        &["df"],
        &["gc"],
        &["box", "show"],
    ] {
        let out = host.sandbox(words).output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", text(&out.stderr));
        let shown = [out.stdout, out.stderr].concat();
        assert!(!shown.iter().any(|byte| [7, 27].contains(byte)), "{words:?}: {}", text(&shown));
    }
    assert!(!Path::new(&format!("{canary}2")).exists());
    // A record that was tampered with: unknown fields, names that are paths. It is damage, or it is ignored.
    let record = host.layer().join("layer.json");
    let good = fs::read_to_string(&record).unwrap();
    for (from, to) in [
        ("\"parent\":\"", "\"parent\":\"../../../outside/"),
        ("\"mount\":[\"", "\"mount\":[\"../../outside\",\""),
        ("\"id\":\"", "\"id\":\"../"),
        ("{", "{\"hooks\":{\"prestart\":[\"/bin/touch\"]},"),
    ] {
        assert!(good.contains(from), "{from}: {good}");
        fs::set_permissions(&record, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&record, good.replacen(from, to, 1)).unwrap();
        let out = host.shell(&["--from", "a"], &format!("ls -d {}", host.word("outside")));
        assert_eq!(text(&out.stdout), "", "{to}: {}", text(&out.stderr));
    }
    fs::write(&record, good).unwrap();
    assert!(host.run(&["--from", "a"], &["/bin/true"]).status.success());
}

/// CVE-2026-33747: names that are paths.
#[test]
fn names_are_never_paths() {
    let host = Host::plain();
    let before = left::names(&host.path("."));
    let long = "a".repeat(4096);
    for name in [
        "../outside",
        "a/b",
        "/etc",
        "..",
        ".",
        "",
        ".hidden",
        "-x",
        "a b",
        "a\nb",
        "é",
        "host",
        "head",
        &long,
    ] {
        for flag in ["--commit", "--cache", "--box"] {
            let word = if flag == "--cache" {
                format!("{flag}={name}:/c")
            } else {
                format!("{flag}={name}")
            };
            let out = host.run(&[&word], &["/bin/true"]);
            // Names of a snapshot that are reserved may name a box or a cache.
            if matches!(name, "host" | "head") && flag != "--commit" {
                continue;
            }
            assert_eq!(out.status.code(), Some(125), "{word}: {}", text(&out.stderr));
        }
        for words in
            [["rm", name], ["rename", name], ["show", name], ["rollback", name], ["recover", name]]
        {
            if matches!(name, "host" | "head") {
                continue;
            }
            let mut words = words.to_vec();
            words.insert(1, "--");
            if words[0] == "rename" {
                words.push("new");
            }
            let out = host.sandbox(&words).output().unwrap();
            assert!(matches!(out.status.code(), Some(2 | 3)), "{words:?}: {}", text(&out.stderr));
            assert!(!out.stderr.contains(&27));
        }
    }
    assert_eq!(left::names(&host.path(".")), before);
    assert_eq!(left::names(&host.path("store/boxes")), ["default"]);
}
