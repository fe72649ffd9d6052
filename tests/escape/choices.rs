//! Rows about choices that were not made: nothing named means nothing allowed.

use std::fs;
use std::os::unix::fs::symlink;

use crate::host::{Host, refused, text};

/// CVE-2025-66479: an empty word or list meant "no sandbox".
#[test]
fn nothing_named_is_nothing_allowed() {
    let host = Host::plain();
    for flag in
        ["--net=", "--profile=", "--user=", "--bind=", "--hostname=", "--upper=", "--tmpfs="]
    {
        let out = host.run(&[flag], &["/bin/true"]);
        assert_eq!(out.status.code(), Some(125), "{flag}: {}", text(&out.stderr));
    }
    // A profile whose lists are empty: no capability, and no system call at all.
    let strict = include_str!("../../profiles/strict.json");
    let mut profile: serde_json::Value = serde_json::from_str(strict).unwrap();
    profile["seccomp"]["syscalls"] = serde_json::json!([]);
    let file = host.path("empty.json");
    fs::write(&file, profile.to_string()).unwrap();
    let out = host.run(&["--profile", file.to_str().unwrap()], &["/bin/true"]);
    assert_ne!(out.status.code(), Some(0), "{}", text(&out.stderr));
    // One without the rules is no profile.
    profile.as_object_mut().unwrap().remove("seccomp");
    fs::write(&file, profile.to_string()).unwrap();
    refused(&host.run(&["--profile", file.to_str().unwrap()], &["/bin/true"]), "seccomp");
}

/// CVE-2025-59532: what may be written was computed from a working directory that somebody else has chosen.
#[test]
fn the_working_directory_gives_no_more_than_itself() {
    let host = Host::plain();
    fs::create_dir(host.path("home")).unwrap();
    fs::create_dir_all(host.path("home/.ssh/deep")).unwrap();
    symlink("/", host.path("to-root")).unwrap();
    symlink(host.path("store"), host.path("to-store")).unwrap();
    symlink(host.path("home/.ssh/deep"), host.path("to-ssh")).unwrap();
    symlink(host.path("home"), host.path("to-home")).unwrap();
    for name in ["to-root", "to-store", "to-ssh", "to-home", "store/layers", ".", "home"] {
        let mut shell = host.sandbox(&["shell", "--bind", "/usr:/usr", "--dry-run"]);
        // As a shell sets it: by the path that was typed.
        let dir = host.path(name);
        let out = shell
            .current_dir(&dir)
            .env("PWD", &dir)
            .env("HOME", host.path("home"))
            .output()
            .unwrap();
        let shown = text(&out.stdout);
        let binds: Vec<_> =
            shown.lines().filter(|line| line.contains("bind") && !line.contains("/usr")).collect();
        let named = |what: &str| binds.iter().any(|line| line.contains(host.word(what).as_str()));
        assert!(
            !named("store") && !named("home") && !binds.iter().any(|line| line.contains(" / ")),
            "{name}: {binds:?}"
        );
    }
}
