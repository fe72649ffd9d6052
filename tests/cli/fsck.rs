//! Damage is found, named with its path and the snapshots it touches, and mended without harm to the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::common::{Cmd, Env};

/// `sandbox fsck WORDS --json`, and its exit code.
#[track_caller]
fn fsck(env: &Env, code: i32, words: &[&str]) -> Value {
    let json = env.sandbox(&["fsck", "--json"]).args(words).run().code(code).stderr("").json();
    assert_eq!(json["ok"], code == 0, "{json}");
    json
}

/// The one damage at a path: its kind and its snapshots.
#[track_caller]
fn damage(report: &Value, path: &str) -> (String, Vec<String>) {
    let all = report["damage"].as_array().unwrap();
    let found: Vec<_> = all.iter().filter(|one| one["path"] == path).collect();
    assert_eq!(found.len(), 1, "{path}: {report}");
    let names = found[0]["snapshots"].as_array().unwrap();
    let names = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    (found[0]["kind"].as_str().unwrap().to_owned(), names)
}

/// postinit; a on it; b on a; side on postinit.
fn chain() -> Env {
    let env = Env::filled();
    let line = |flags: &[&str], line: &str| drop(env.line(flags, line).run().ok());
    line(&["--commit", "a"], "mkdir /d; echo first >/d/file; echo x >/d/other; ln -s a /d/link");
    line(&["--from", "a", "--commit", "b"], "echo second >/d/second; rm /d/other; rm -r /opt");
    line(&["--commit", "side"], "echo side >/side");
    env
}

/// A directory that is gone is not an empty one: gc takes nothing for want of names, and what cannot work says so.
#[test]
fn a_directory_of_ours_that_is_gone() {
    let env = chain();
    let (layers, aside) = (env.entries("layers"), env.path("aside"));
    for folder in ["boxes", "boxes/default/refs", "layers", "runs", "trash", "cache"] {
        let path = env.base().join(folder);
        fs::rename(&path, &aside).unwrap();
        let names = folder.starts_with("boxes");
        for words in [["gc", "--all"], ["list", "--all-boxes"]] {
            let out = env.sandbox(&words).run();
            let damage = names || (folder == "layers");
            // Of layers the first one that is missed is named.
            let part = folder.trim_end_matches('s');
            drop(if damage { out.fault(7, part, "fsck --repair") } else { out.ok() });
        }
        for words in [&["list"][..], &["snapshot", "n"]] {
            let out = env.sandbox(words).run();
            match folder {
                "boxes" => drop(out.fault(3, "default", "sandbox init")),
                "boxes/default/refs" => drop(out.fault(7, folder, "fsck --repair")),
                "layers" => drop(out.fault(7, folder, "fsck --repair")),
                _ => drop(out.ok()),
            }
        }
        drop(env.sandbox(&["fsck", "--json"]).run().code(7).says(&format!("\"{folder}\"")));
        if !path.exists() {
            fs::rename(&aside, &path).unwrap();
        }
        drop(fsck(&env, 0, &[]));
        drop(env.sandbox(&["rm", "n"]).run());
        assert_eq!(env.entries("layers"), layers, "{folder}");
    }
    for folder in ["cache", "runs"] {
        let path = env.base().join(folder);
        fs::rename(&path, &aside).unwrap();
        let run = env.sandbox(&["run", "--", "true"]).run();
        drop(run.fault(125, folder, "fsck --repair"));
        drop(fsck(&env, 0, &["--repair"]));
        drop(env.sandbox(&["run", "--", "true"]).run().ok());
        crate::common::tree::remove(&aside);
    }
    let lock = env.base().join("boxes/default/lock");
    fs::remove_file(&lock).unwrap();
    drop(env.sandbox(&["snapshot", "n"]).run().fault(7, "boxes/default/lock", "fsck --repair"));
    drop(fsck(&env, 0, &["--repair"]));
    drop(env.sandbox(&["snapshot", "n"]).run().ok());
    drop(env.sandbox(&["snapshot", "n", "--box", "none"]).run().fault(3, "none", "sandbox init"));
}

fn record(env: &Env, snapshot: &str) -> PathBuf {
    env.layer(snapshot).parent().unwrap().join("layer.json")
}

fn beneath(env: &Env, path: &Path) -> String {
    path.strip_prefix(env.base()).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_whole_store_is_whole() {
    let env = chain();
    let report = fsck(&env, 0, &[]);
    assert_eq!((&report["layers"], &report["sealed"]), (&4.into(), &0.into()));
    assert_eq!(report["damage"], serde_json::json!([]));
    drop(env.sandbox(&["fsck"]).run().ok().stdout("whole: 4 layers, 0 with digests\n"));
    let report = fsck(&env, 0, &["--seal"]);
    assert_eq!(report["sealed"], 4);
    assert_eq!(fsck(&env, 0, &["--repair"])["repaired"], serde_json::json!([]));
    drop(env.sandbox(&["fsck"]).run().ok().stdout("whole: 4 layers, 4 with digests\n"));
    drop(env.sandbox(&["run", "--from", "b", "--", "cat", "/d/second"]).run().ok());
    drop(env.sandbox(&["fsck", "--layer", "0zzzzzzzzzzzzzzzzzzzzzzzzz"]).run().fault(3, "0zz", ""));
}

/// Every way a file can rot, in a store of its own each.
#[test]
fn bit_rot_is_found_and_named() {
    type Change = fn(&Path);
    let cases: [(&str, &str, Change); 6] = [
        ("d/file", "content", |fs| {
            let path = fs.join("d/file");
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, "fjrst\n").unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }),
        ("d/file", "content", |fs| fs::write(fs.join("d/file"), "").unwrap()),
        ("d/file", "missing", |fs| fs::remove_file(fs.join("d/file")).unwrap()),
        ("d/more", "extra", |fs| fs::write(fs.join("d/more"), "").unwrap()),
        ("d/file", "metadata", |fs| {
            fs::set_permissions(fs.join("d/file"), fs::Permissions::from_mode(0o4755)).unwrap();
        }),
        ("d/file", "metadata", |fs| {
            let file = fs::File::open(fs.join("d/file")).unwrap();
            rustix::fs::fsetxattr(&file, "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        }),
    ];
    for (path, kind, change) in cases {
        let env = chain();
        drop(fsck(&env, 0, &["--seal"]));
        change(&env.layer("a"));
        let report = fsck(&env, 7, &[]);
        let (found, names) = damage(&report, path);
        assert_eq!(
            (found.as_str(), names),
            (kind, vec!["a".to_owned(), "b".to_owned()]),
            "{report}"
        );
        let out = env
            .sandbox(&["fsck"])
            .env("SANDBOX_BOX", "other")
            .run()
            .code(7)
            .says(&format!("/{path}"));
        drop(out.says("needed by default/a, default/b").warns("sandbox fsck --repair"));
        let only = env.json(&["show", "side"])["layer"].as_str().unwrap().to_owned();
        drop(fsck(&env, 0, &["--layer", &only]));
        // Only what needs the layer goes.
        let report = fsck(&env, 0, &["--repair"]);
        assert!(!report["repaired"].as_array().unwrap().is_empty());
        assert_eq!(env.snapshots(), ["postinit", "side"]);
        drop(fsck(&env, 0, &[]));
        drop(env.sandbox(&["run", "--", "ls", "/opt/deep"]).run().ok());
        drop(env.sandbox(&["gc", "--all"]).run().ok());
        drop(fsck(&env, 0, &[]));
    }
}

/// Digests that are made with the layer, and what is made of them before a run.
#[test]
fn digests_from_the_start_and_before_a_run() {
    let env = Env::filled();
    let line = "mkdir /d; echo first >/d/file; ln /d/file /d/same; rm -r /opt";
    drop(env.line(&["--commit", "a", "--digest"], line).run().ok());
    drop(env.line(&["--keep", "--digest"], "echo kept >/kept").run().ok());
    // Nothing changed: no layer, and no trace of digests.
    drop(env.line(&["--keep", "--digest"], "true").run().ok());
    drop(env.line(&["--keep-on-failure"], "echo saved >/saved; exit 1").run().code(1));
    let run = env.entries("runs").remove(0);
    drop(env.sandbox(&["recover", &run, "--as", "saved"]).run().ok());
    let report = fsck(&env, 0, &[]);
    assert_eq!((&report["layers"], &report["sealed"]), (&4.into(), &3.into()));
    drop(env.line(&["--digest"], "true").run().fault(125, "--digest", "--commit"));
    let verify = |name: &str| env.sandbox(&["run", "--verify", "--from", name, "--", "true"]).run();
    drop(verify("a").ok());
    fs::write(env.layer("a").join("d/file"), "fjrst\n").unwrap();
    drop(verify("a").fault(125, "/d/file: content changed", "fsck"));
    drop(verify("a").warns("needed by default/a"));
    let json = env.sandbox(&["run", "--verify", "--json", "--from", "a", "--", "true"]).run();
    assert_eq!(json.code(125).json()["error"]["kind"], "damaged");
    drop(verify("postinit").ok());
    drop(verify("saved").ok());
    fs::write(env.layer("postinit").join("extra"), "").unwrap();
    drop(verify("saved").fault(125, "entries", "fsck"));
}

/// Without digests the counts of the record still tell.
#[test]
fn counts_are_compared_without_digests() {
    let env = chain();
    fs::write(env.layer("b").join("stray"), "").unwrap();
    assert_eq!(damage(&fsck(&env, 7, &[]), "."), ("extra".into(), vec!["b".into()]));
    fs::remove_file(env.layer("b").join("stray")).unwrap();
    drop(fsck(&env, 0, &[]));
    fs::remove_file(env.layer("b").join("d/second")).unwrap();
    assert_eq!(damage(&fsck(&env, 7, &["--seal"]), "."), ("missing".into(), vec!["b".into()]));
    assert!(!record(&env, "b").with_file_name("manifest").exists(), "damage was sealed");
}

/// What overlayfs would read and no store writes.
#[test]
fn foreign_forms_are_found() {
    let env = chain();
    let dir = fs::File::open(env.layer("b").join("d")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&dir, "user.overlay.redirect", b"/etc", flags).unwrap();
    assert_eq!(damage(&fsck(&env, 7, &[]), "d"), ("metadata".into(), vec!["b".into()]));
}

/// A damaged record says where it is and what to do; with digests, or with something on top, it is made again.
#[test]
fn records_of_layers() {
    let env = chain();
    let (middle, top) = (record(&env, "a"), record(&env, "b"));
    let whole = fs::read_to_string(&middle).unwrap();
    fs::write(&middle, &whole[..40]).unwrap();
    let shown = middle.to_str().unwrap();
    let run = |name: &str| env.sandbox(&["run", "--from", name, "--", "true"]).run();
    drop(run("a").fault(125, shown, "sandbox fsck --repair"));
    drop(env.sandbox(&["gc"]).run().fault(7, shown, "sandbox fsck --repair"));
    let report = fsck(&env, 7, &[]);
    let (kind, names) = damage(&report, &beneath(&env, &middle));
    assert_eq!((kind.as_str(), names.len()), ("record", 2), "{report}");
    drop(fsck(&env, 0, &["--repair"]));
    assert_eq!(env.snapshots(), ["postinit", "a", "b", "side"]);
    drop(run("a").ok());
    // Nothing stands on b: its record is gone for good, unless there are digests.
    drop(fsck(&env, 0, &["--seal"]));
    let whole = fs::read_to_string(&top).unwrap();
    fs::write(&top, "{}").unwrap();
    drop(fsck(&env, 0, &["--repair"]));
    assert_eq!(fs::read_to_string(&top).unwrap(), whole);
    let manifest = top.with_file_name("manifest");
    fs::write(&manifest, "torn").unwrap();
    assert_eq!(damage(&fsck(&env, 7, &[]), &beneath(&env, &manifest)).0, "record");
    drop(fsck(&env, 0, &["--repair"]));
    assert!(!manifest.exists());
    fs::write(&top, "").unwrap();
    drop(fsck(&env, 0, &["--repair"]));
    assert_eq!(env.snapshots(), ["postinit", "a", "side"]);
    drop(fsck(&env, 0, &[]));
}

/// Refs, head, log, locks, folders and what does not belong there.
#[test]
fn records_of_a_box() {
    let env = chain();
    let at = |name: &str| env.base().join("boxes/default").join(name);
    let head = fs::read(at("head")).unwrap();
    fs::write(at("refs/b"), "").unwrap();
    drop(env.sandbox(&["list"]).run().fault(7, "boxes/default/refs/b", "sandbox rm b"));
    assert_eq!(damage(&fsck(&env, 7, &[]), "boxes/default/refs/b").0, "record");
    drop(fsck(&env, 0, &["--repair"]));
    assert_eq!(env.snapshots(), ["postinit", "a", "side"]);

    fs::write(at("head"), "x").unwrap();
    drop(env.sandbox(&["run", "--", "true"]).run().fault(
        125,
        "boxes/default/head",
        "sandbox rollback",
    ));
    drop(fsck(&env, 0, &["--repair"]));
    assert_eq!(fs::read(at("head")).unwrap(), head);

    fs::remove_file(at("lock")).unwrap();
    fs::remove_file(env.base().join("lock")).unwrap();
    fs::remove_dir(env.base().join("trash")).unwrap();
    drop(env.sandbox(&["run", "--", "true"]).run().fault(125, "lock", "fsck --repair"));
    fs::write(env.base().join("stray"), "").unwrap();
    fs::write(at("refs/not a name"), "").unwrap();
    fs::create_dir(env.base().join("layers/x")).unwrap();
    fs::create_dir(env.base().join("runs/x")).unwrap();
    let report = fsck(&env, 7, &[]);
    for (path, kind) in [
        ("lock", "record"),
        ("trash", "record"),
        ("boxes/default/lock", "record"),
        ("stray", "extra"),
        ("boxes/default/refs/not a name", "extra"),
        ("layers/x", "extra"),
        ("runs/x", "extra"),
    ] {
        assert_eq!(damage(&report, path).0, kind, "{path}");
    }
    drop(fsck(&env, 0, &["--repair"]));

    // A line that a crash has cut is no damage, but a repair takes it away.
    let log = fs::read_to_string(at("log")).unwrap();
    fs::write(at("log"), format!("{{\"time\n{log}\0\0\n")).unwrap();
    fs::write(at("refs/b"), "").unwrap();
    assert_eq!(fsck(&env, 7, &[])["notes"].as_array().unwrap().len(), 1);
    drop(fsck(&env, 0, &["--repair"]));
    assert!(fs::read_to_string(at("log")).unwrap().starts_with(&log));

    fs::set_permissions(at("refs"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(damage(&fsck(&env, 7, &[]), "boxes/default/refs").0, "metadata");
    drop(fsck(&env, 0, &["--repair"]));
    let mode = fs::metadata(at("refs")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);

    fs::write(at("box.json"), "{").unwrap();
    drop(env.sandbox(&["list"]).run().fault(7, "boxes/default/box.json", "fsck --repair"));
    drop(fsck(&env, 0, &["--repair"]));
    assert_eq!(env.snapshots(), ["postinit", "a", "side"]);
    drop(env.sandbox(&["run", "--from", "a", "--", "cat", "/d/file"]).run().ok().stdout("first\n"));
}

/// Names that lead nowhere.
#[test]
fn a_layer_that_is_gone() {
    let env = chain();
    let layer = env.layer("a").parent().unwrap().to_owned();
    drop(Cmd::new("mv", env.dir()).arg(&layer).arg(env.path("away")).run().ok());
    let run = env.sandbox(&["run", "--from", "b", "--", "true"]).run();
    drop(run.fault(125, layer.file_name().unwrap().to_str().unwrap(), "fsck"));
    let report = fsck(&env, 7, &[]);
    assert_eq!(damage(&report, &beneath(&env, &layer)).1, ["a", "b"]);
    drop(fsck(&env, 0, &["--repair"]));
    assert_eq!(env.snapshots(), ["postinit", "side"]);
    drop(env.sandbox(&["gc", "--all"]).run().ok());
}

/// Kept runs are part of the store.
#[test]
fn kept_runs() {
    let env = chain();
    let keep = ["--keep-on-failure", "--from", "b"];
    drop(env.line(&keep, "touch /kept; exit 3").run().code(3));
    drop(fsck(&env, 0, &[]));
    let run = env.entries("runs").remove(0);
    let file = env.base().join("runs").join(&run).join("run.json");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, "{").unwrap();
    assert_eq!(damage(&fsck(&env, 7, &[]), &beneath(&env, &file)).0, "record");
    drop(env.sandbox(&["gc"]).run().fault(7, &run, "fsck --repair"));
    fs::write(&file, whole).unwrap();
    fs::write(record(&env, "b"), "").unwrap();
    let report = fsck(&env, 7, &[]);
    assert_eq!(report["damage"][0]["runs"], serde_json::json!([run]));
    drop(fsck(&env, 0, &["--repair"]));
    assert!(env.entries("runs").is_empty());
}

/// A run in the middle keeps what it stands on, and says so by staying damaged.
#[test]
fn a_running_sandbox_is_left_alone() {
    let env = chain();
    let mut child = env.sandbox(&["run", "--from", "b", "--", "cat"]).start();
    let started = SystemTime::now();
    while env
        .entries("runs")
        .iter()
        .all(|run| !env.base().join("runs").join(run).join("run.json").exists())
    {
        assert!(started.elapsed().unwrap().as_secs() < 60, "no run");
    }
    drop(fsck(&env, 0, &[]));
    fs::write(record(&env, "b"), "").unwrap();
    let layers = env.entries("layers");
    drop(fsck(&env, 7, &["--repair"]));
    assert_eq!(env.entries("layers"), layers);
    assert_eq!(env.snapshots(), ["postinit", "a", "side"]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    drop(fsck(&env, 0, &["--repair"]));
}

/// A newer format is refused and never repaired.
#[test]
fn a_newer_store_is_left_alone() {
    let env = chain();
    let format = env.base().join("format.json");
    for text in ["{\"format\":2}", "{\"format\":1,\"incompat\":[\"x\"]}"] {
        fs::write(&format, text).unwrap();
        fs::write(env.base().join("stray"), "").unwrap();
        drop(env.sandbox(&["fsck", "--repair"]).run().fault(1, "newer sandbox", "upgrade"));
        assert!(env.base().join("stray").exists());
    }
    // A newer one that we may use has files that we do not know.
    fs::write(&format, "{\"format\":1,\"compat\":[\"x\"]}").unwrap();
    drop(fsck(&env, 0, &["--repair"]));
    assert!(env.base().join("stray").exists());
    fs::write(&format, "{\"format\":1,\"ro_compat\":[\"x\"]}").unwrap();
    fs::write(env.base().join("boxes/default/refs/b"), "").unwrap();
    drop(fsck(&env, 7, &[]));
    drop(env.sandbox(&["fsck", "--repair"]).run().fault(1, "may only read it", "upgrade"));
    fs::write(&format, "{").unwrap();
    drop(env.sandbox(&["list"]).run().fault(7, "format.json", "format"));
}
