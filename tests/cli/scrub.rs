//! `scrub`: names, caches, boxes.

use std::io::Read;
use std::process::Child;

use crate::common::{Env, ids};

/// A box with three names, head on top of them.
fn worked_in() -> Env {
    let env = Env::filled();
    drop(env.line(&["--commit", "devel"], "touch /devel").run().ok());
    drop(env.line(&["--keep"], "touch /head").run().ok());
    drop(env.sandbox(&["snapshot", "ready"]).run().ok());
    env
}

fn until_ready(mut child: Child) -> Child {
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child
}

#[test]
fn snapshots_go_and_undo_brings_them_back() {
    let env = worked_in();
    let before = env.json(&["list"]);
    let out = env.sandbox(&["scrub", "--snapshots"]).run().ok().stderr("");
    drop(out.says("box default: removed devel, ready\n").says("head is back at postinit, "));
    assert_eq!(env.snapshots(), ["postinit"]);
    let list = env.json(&["list"]);
    assert_eq!(list["head"], list["snapshots"][0]["layer"]);
    assert_eq!(list["current"], list["head"]);
    drop(env.line(&[], "test ! -e /head").run().ok());
    let state = env.state();
    let nothing = "box default: nothing to do\n";
    drop(env.sandbox(&["scrub", "--snapshots"]).run().ok().stdout(nothing));
    assert_eq!(env.state(), state);
    // One move, which gc leaves the way back of.
    drop(env.sandbox(&["gc"]).run().ok());
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.json(&["list"]), before);
    let json = env.json(&["scrub", "--snapshots"]);
    assert_eq!(json["snapshots"], serde_json::json!(["devel", "ready"]));
    assert_eq!(json["removed"], false);
}

#[test]
fn what_is_protected_stays() {
    let env = worked_in();
    drop(env.sandbox(&["snapshot", "devel", "--protect"]).run().ok());
    let state = env.state();
    for what in ["--snapshots", "--all", "--all-boxes"] {
        let out = env.sandbox(&["scrub", what]).run().code(4);
        drop(out.warns("protected").warns("--force"));
        assert_eq!(env.state(), state, "{what}");
    }
    drop(env.sandbox(&["scrub", "--snapshots", "--force"]).run().ok());
    assert_eq!(env.snapshots(), ["postinit"]);
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.state(), state);
    let list = env.json(&["list"]);
    let all = list["snapshots"].as_array().unwrap();
    let devel = all.iter().find(|one| one["name"] == "devel").unwrap();
    assert_eq!(devel["protected"], true);
    drop(env.sandbox(&["scrub", "--all", "--force"]).run().ok().stdout("box default: is gone\n"));
}

#[test]
fn without_postinit_there_is_no_way_back() {
    let env = worked_in();
    drop(env.sandbox(&["rm", "postinit"]).run().ok());
    let state = env.state();
    let out = env.sandbox(&["scrub", "--snapshots"]).run();
    drop(out.fault(4, "there is no postinit", "init default --refresh"));
    assert_eq!(env.state(), state);
}

#[test]
fn caches_are_listed_and_scrubbed() {
    let env = Env::filled();
    for name in ["one", "two"] {
        let cache = format!("{name}:/cache");
        // Also what its owner cannot enter, and another's where there are others.
        let line = "echo data >/cache/file && mkdir /cache/d && chown 1:1 /cache/d && chmod 0 /cache/d /cache";
        drop(env.line(&["--cache", &cache], line).run().ok());
    }
    let caches = env.json(&["box", "show"])["caches"].clone();
    assert_eq!((&caches[0]["name"], &caches[1]["name"]), (&"one".into(), &"two".into()));
    assert_eq!((&caches[0]["in_use"], &caches[0]["files"]), (&false.into(), &2.into()));
    assert!(caches[0]["bytes"].as_u64().unwrap() >= 4096);
    drop(env.sandbox(&["box", "show"]).run().ok().says("cache:     one: "));
    drop(
        env.sandbox(&["scrub", "--cache=one"])
            .run()
            .ok()
            .stdout("box default: removed the caches one\n"),
    );
    assert_eq!(env.entries("cache/box-default"), ["two"]);
    let nothing = "box default: nothing to do\n";
    drop(env.sandbox(&["scrub", "--cache=one"]).run().ok().stdout(nothing));
    // The next run finds an empty one.
    drop(env.line(&["--cache", "one:/cache"], "ls -A /cache").run().ok().stdout(""));
    let json = env.json(&["scrub", "--cache"]);
    assert_eq!(json["caches"], serde_json::json!(["one", "two"]));
    assert_eq!(env.entries("cache/box-default"), [""; 0]);
    drop(env.sandbox(&["scrub", "--cache"]).run().ok().stdout(nothing));
    drop(env.sandbox(&["scrub", "--cache=../x"]).run().code(2).stdout(""));
    assert_eq!(env.snapshots(), ["postinit"]);
}

#[test]
fn a_cache_is_not_pulled_away_from_a_run() {
    let env = Env::filled();
    drop(env.line(&["--cache", "other:/cache"], "touch /cache/x").run().ok());
    let line = "echo ready; read line; echo more >/cache/file && cat /cache/file";
    let mut child = until_ready(env.line(&["--cache", "used:/cache"], line).start());
    let state = env.entries("cache/box-default");
    for what in ["--cache", "--cache=used", "--all", "--all-boxes"] {
        let out = env.sandbox(&["scrub", what]).run().code(5);
        drop(out.warns("cache: used of box default: a run uses it").warns("--wait"));
        assert_eq!(env.entries("cache/box-default"), state, "{what}: nothing was done");
    }
    assert_eq!(env.json(&["box", "show"])["caches"][1]["in_use"], true);
    drop(env.sandbox(&["box", "show"]).run().ok().says("cache:     used: in use"));
    drop(env.sandbox(&["scrub", "--cache=other"]).run().ok());
    // The box may go; what the run uses stays until it ends, and gc takes it then.
    let out = env.sandbox(&["scrub", "--all", "--force"]).run().ok();
    drop(out.says("box default: is gone\n").says("box default: runs go on: r-"));
    drop(env.sandbox(&["gc"]).run().ok());
    assert_eq!(env.entries("cache/box-default"), ["used"]);
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "more\n");
    drop(env.sandbox(&["gc"]).run().ok());
    assert_eq!(env.entries("cache/box-default"), [""; 0]);
}

#[test]
fn waiting_for_a_cache() {
    let env = Env::filled();
    let mut child = until_ready(env.line(&["--cache", "c:/c"], "echo ready; read line").start());
    let scrub = env.sandbox(&["scrub", "--cache", "--wait=60"]).start();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let out = scrub.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "box default: removed the caches c\n");
}

#[test]
fn a_box_is_gone_and_its_layers_with_gc() {
    let env = worked_in();
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    drop(env.line(&["--cache", "c:/c"], "touch /c/x").run().ok());
    drop(
        env.sandbox(&["scrub", "--all"])
            .run()
            .ok()
            .stdout("box default: removed the caches c\nbox default: is gone\n"),
    );
    assert_eq!(env.entries("boxes"), ["other"]);
    drop(env.sandbox(&["list"]).run().fault(3, "default", "sandbox init"));
    drop(env.sandbox(&["scrub", "--all"]).run().ok().stdout("box default: nothing to do\n"));
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 1);
    drop(env.sandbox(&["-b", "other", "show"]).run().ok());
    // A name that never was is no box for the rest.
    for what in ["--snapshots", "--cache"] {
        drop(env.sandbox(&["scrub", "nobox", what]).run().fault(3, "nobox", "sandbox init nobox"));
    }
    drop(env.sandbox(&["scrub", "../x", "--all"]).run().code(2).stdout(""));
    drop(env.sandbox(&["scrub"]).run().code(2).stdout("").warns("--snapshots"));
    drop(env.sandbox(&["scrub", "x", "--all-boxes"]).run().code(2).stdout(""));
}

#[test]
fn runs_go_on_without_their_box() {
    let env = worked_in();
    let line = "echo ready; read line; echo late >/late; cat /head";
    let mut child = until_ready(env.line(&["--commit", "late"], line).start());
    let run = env.entries("runs").pop().unwrap();
    let out = env.sandbox(&["scrub", "--all"]).run().ok();
    drop(out.says("is gone").says(&format!("runs go on: {run}")));
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    let out = child.wait_with_output().unwrap();
    // The files were there until the end; there is no box to keep the changes in, so the run keeps them.
    assert_eq!((out.status.code(), out.stderr.is_empty()), (Some(125), false), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("the changes are kept"), "{out:?}");
    drop(env.init(&["--from", "scratch"]).run().ok());
    drop(env.sandbox(&["recover", &run, "--as", "late"]).run().ok());
    drop(
        env.sandbox(&["run", "--from", "late", "--", "cat", "/late", "/head"])
            .run()
            .ok()
            .stdout("late\n"),
    );
}

#[test]
fn kept_runs_are_not_lost_by_accident() {
    let env = worked_in();
    drop(env.line(&["--keep-on-failure"], "touch /half; exit 1").run().code(1));
    let run = env.entries("runs").pop().unwrap();
    let state = env.state();
    let out = env.sandbox(&["scrub", "--all"]).run();
    drop(out.fault(4, &format!("it has kept runs: {run}"), &format!("recover {run} --as NAME")));
    assert_eq!(env.state(), state);
    // The snapshots may go: what the run stands on does not.
    let out = env.sandbox(&["scrub", "--snapshots"]).run().ok();
    drop(out.says(&format!("box default: kept runs are still there: {run}\n")));
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    drop(env.sandbox(&["diff", "--run", &run]).run().ok().stdout("A /half\n"));
    let out = env.sandbox(&["scrub", "--all", "--force"]).run().ok();
    drop(out.says(&format!("box default: removed the kept runs {run}\n")).says("is gone"));
    assert_eq!(env.entries("runs"), [""; 0]);
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers"), [""; 0]);
}

#[test]
fn all_boxes_at_once() {
    let env = worked_in();
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    drop(env.line(&["--cache", "c:/c"], "touch /c/x").run().ok());
    let json = env.json(&["scrub", "--all-boxes", "--cache"]);
    assert_eq!(json["boxes"][0]["caches"], serde_json::json!(["c"]));
    assert_eq!(json["boxes"][1]["box"], "other");
    drop(
        env.sandbox(&["scrub", "--all-boxes", "--snapshots"])
            .run()
            .ok()
            .says("box other: nothing to do\n"),
    );
    assert_eq!(env.snapshots(), ["postinit"]);
    // One that cannot be is told, and does not keep the others.
    drop(env.sandbox(&["snapshot", "kept", "--protect"]).run().ok());
    let out = env.sandbox(&["scrub", "--all-boxes", "--json"]).run().code(4).json();
    assert_eq!(
        (&out["boxes"][0]["box"], &out["boxes"][0]["removed"]),
        (&"other".into(), &true.into())
    );
    assert_eq!(out["failed"][0]["box"], "default");
    assert_eq!(out["failed"][0]["error"]["kind"], "conflict");
    drop(
        env.sandbox(&["scrub", "--all-boxes", "--force"])
            .run()
            .ok()
            .stdout("box default: is gone\n"),
    );
    drop(
        env.sandbox(&["scrub", "--all-boxes"])
            .run()
            .ok()
            .stdout("there is no box: nothing to do\n"),
    );
    let empty = Env::empty();
    drop(empty.sandbox(&["scrub", "--all-boxes"]).run().fault(3, "there is none yet", ""));
}

/// The hint of a damaged box works when it is typed.
#[test]
fn a_damaged_box_can_be_given_up() {
    for file in ["box.json", "head", "refs/postinit", "log"] {
        let env = worked_in();
        std::fs::write(env.base().join("boxes/default").join(file), "{\n").unwrap();
        drop(env.sandbox(&["scrub", "default", "--all", "--force"]).run().ok().says("is gone"));
        drop(env.init(&["--from", "scratch"]).run().ok());
        drop(env.sandbox(&["run", "--dry-run", "--", "true"]).run().ok());
        assert_eq!(ids().name(), env.json(&["box", "show"])["id_map"]["mode"]);
    }
}
