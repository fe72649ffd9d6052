//! A store of format 1, as it was written once, must be good for ever: it is opened, listed, compared, run,
//! checked and collected. tests/fixtures/dump.py has made the text; only the id map and the owners are those
//! of whoever runs the test. In it: a layer with digests, whiteouts, an opaque directory, hard links, fold
//! layers, a kept run, a log.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use serde_json::{Value, json};

use crate::common::Env;

const STORE: &str = include_str!("../fixtures/format-1.jsonl");

/// The store of the fixture, in the place of this environment's.
fn unpacked() -> Env {
    let env = Env::empty();
    let other = env.path("other");
    let init = ["init", "--ids", crate::common::ids().name(), "--from", "scratch"];
    drop(env.bare().arg("--base-dir").arg(&other).args(init).run().ok());
    let shown = env.bare().arg("--base-dir").arg(&other).args(["show", "--json"]).run().ok().json();
    let map = &shown["id_map"];
    let root = |ids: &str| {
        let all = map[ids].as_array().unwrap();
        let zero = all.iter().find(|one| one["inside"] == 0).unwrap();
        u32::try_from(zero["outside"].as_u64().unwrap()).unwrap()
    };
    let owner = (root("uids"), root("gids"));
    let entries: Vec<Value> =
        STORE.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for entry in &entries {
        make(env.base(), entry, &map.to_string());
    }
    // What a payload made is of root inside; the rest is ours. The times last, the deepest first.
    for entry in entries.iter().rev() {
        finish(env.base(), entry, owner);
    }
    crate::common::tree::remove(&other);
    env
}

fn make(base: &Path, entry: &Value, map: &str) {
    let text = |key: &str| entry[key].as_str().unwrap();
    let path = base.join(text("path"));
    match text("kind") {
        "dir" => fs::create_dir_all(path.components().collect::<PathBuf>()).unwrap(),
        "file" => fs::write(&path, text("text").replace("@MAP@", map)).unwrap(),
        "symlink" => symlink(text("target"), &path).unwrap(),
        "link" => fs::hard_link(base.join(text("first")), &path).unwrap(),
        "whiteout" => mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap(),
        other => panic!("{other}"),
    }
    for (name, value) in entry["xattrs"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap().as_bytes();
        lsetxattr(&path, name.as_str(), value, XattrFlags::empty()).unwrap();
    }
}

fn finish(base: &Path, entry: &Value, owner: (u32, u32)) {
    let (kind, inner) = (entry["kind"].as_str().unwrap(), entry["path"].as_str().unwrap());
    let path = base.join(inner);
    let foreign = inner.contains("/fs") || inner.ends_with("/work");
    if foreign && owner.0 != rustix::process::geteuid().as_raw() {
        std::os::unix::fs::lchown(&path, Some(owner.0), Some(owner.1)).unwrap();
    }
    if matches!(kind, "dir" | "file") {
        let mode = u32::try_from(entry["mode"].as_u64().unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(entry["ns"].as_u64().unwrap());
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    if matches!(kind, "symlink" | "whiteout") {
        let ns = entry["ns"].as_i64().unwrap();
        let time = rustix::fs::Timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, &path, &times, flags).unwrap();
    }
}

/// `sandbox run` with the programs of this machine: there are none in the fixture.
fn sh(env: &Env, flags: &[&str], line: &str) -> String {
    let mut binds = Vec::new();
    for place in ["/usr", "/lib", "/lib64", "/bin"] {
        if Path::new(place).exists() {
            binds.extend(["--bind".to_owned(), format!("{place}:{place}")]);
        }
    }
    let run = env.sandbox(&["run"]).args(binds).args(flags).args(["--", "/usr/bin/sh", "-c", line]);
    run.run().ok().text()
}

#[test]
fn a_store_of_format_1_is_good_for_ever() {
    let env = unpacked();
    let check = |sealed: u64| {
        let report = env.json(&["fsck"]);
        assert_eq!((&report["ok"], &report["sealed"]), (&json!(true), &json!(sealed)), "{report}");
    };
    check(1);
    assert_eq!(env.snapshots(), ["postinit", "one", "folded", "two"]);
    let list = env.json(&["list"]);
    assert_eq!(list["head"], list["snapshots"][2]["layer"]);
    assert_eq!(env.json(&["log"])["entries"].as_array().unwrap().len(), 9);

    let all = "cd /; for f in d old *; do [ $f = proc ] || echo $f; done | sort -u | tr '\\n' ' '; cat /d/file";
    let paths = |name: &str| sh(&env, &["--from", name, "--verify"], all);
    let own = |text: &str| {
        let foreign =
            ["bin", "dev", "etc", "lib", "lib64", "proc", "run", "sys", "tmp", "usr", "var"];
        let words = text.split_whitespace().filter(|word| !foreign.contains(word));
        words.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(own(&paths("postinit")), "d link old base");
    assert_eq!(own(&paths("one")), "d link old one base");
    assert_eq!(own(&paths("folded")), "d link n5 old five");
    assert_eq!(own(&paths("two")), "d link old one two base");
    assert_eq!(
        sh(&env, &["--from", "one"], "ls /d /old; cat /old/c"),
        "/d:\nfile\n\n/old:\nb\nc\nnew\n"
    );

    let changes = env.json(&["diff", "one"])["changes"].clone();
    let told =
        |path: &str| changes.as_array().unwrap().iter().find(|one| one["path"] == path).cloned();
    assert_eq!(told("d/gone").unwrap()["kind"], "deleted");
    assert_eq!(told("old/a").unwrap()["kind"], "deleted");
    assert_eq!(told("old/c").unwrap()["kind"], "added");
    let folded = env.json(&["diff", "postinit", "folded"]);
    assert!(
        folded["changes"].as_array().unwrap().iter().any(|one| one["path"] == "n5"),
        "{folded}"
    );

    // What is made now stands beside it.
    drop(sh(&env, &["--from", "folded", "--commit", "three", "--digest"], "echo 3 >/three"));
    let run = env.entries("runs").remove(0);
    drop(env.sandbox(&["recover", &run, "--as", "kept"]).run().ok());
    assert_eq!(sh(&env, &["--from", "kept"], "cat /kept"), "kept\n");
    check(3);
    drop(env.sandbox(&["rm", "one", "two", "three", "kept"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(own(&paths("folded")), "d link n5 old five");
    assert_eq!(env.json(&["fsck"])["ok"], true);
}
