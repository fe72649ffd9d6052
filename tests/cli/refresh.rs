//! `init` of a box that is there: sharing, `--refresh` and `--max-age`.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::common::{Env, tiny};

/// An archive of our own whose times have settled, so that they tell whether it changes.
fn archive(env: &Env) -> String {
    fs::copy(tiny(), env.path("root.tar")).unwrap();
    settle();
    format!("tar:{}", env.path("root.tar").display())
}

fn settle() {
    sleep(Duration::from_millis(3100));
}

fn init(env: &Env, words: &[&str]) -> Value {
    env.init(words).arg("--json").run().ok().stderr("").json()
}

#[test]
fn boxes_of_one_archive_share_its_layer() {
    let env = Env::empty();
    let source = archive(&env);
    let first = init(&env, &["--from", &source]);
    assert_eq!(first["shared_with"], Value::Null);
    let second = init(&env, &["second", "--from", &source]);
    assert_eq!((&second["created"], &second["shared_with"]), (&true.into(), &"default".into()));
    assert_eq!(second["layer"], first["layer"]);
    assert_eq!(env.entries("layers").len(), 1);
    let out = env.init(&["third", "--from", &source]).run().ok();
    drop(out.says("box third: postinit is ").says(": the same layer as in box default, ids: "));
    // Each goes its own way.
    drop(env.line(&["-b", "second", "--keep"], "rm /opt/plain").run().ok());
    drop(env.line(&[], "test -e /opt/plain").run().ok());
    drop(env.line(&["-b", "second"], "test ! -e /opt/plain").run().ok());
    // The one that made it is not needed for it to stay.
    fs::remove_dir_all(env.base().join("boxes/default")).unwrap();
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    drop(env.line(&["-b", "third"], "test -e /opt/plain").run().ok());
    // An archive that is another one by its times is unpacked again.
    let file = fs::File::options().append(true).open(env.path("root.tar")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    settle();
    let fourth = init(&env, &["fourth", "--from", &source]);
    assert_eq!(fourth["shared_with"], Value::Null);
    assert_ne!(fourth["layer"], first["layer"]);
}

#[test]
fn what_may_have_changed_is_not_shared() {
    let env = Env::empty();
    let tree = env.folder("tree");
    env.file("tree/a", "1");
    init(&env, &["one", "--from", &tree]);
    env.file("tree/a", "2");
    let two = init(&env, &["two", "--from", &tree]);
    assert_eq!(two["shared_with"], Value::Null);
    // An archive that was written a moment ago: its times may be those of the next change, too.
    fs::copy(tiny(), env.path("new.tar")).unwrap();
    let source = format!("tar:{}", env.path("new.tar").display());
    init(&env, &["three", "--from", &source]);
    let record = fs::read(env.base().join("boxes/three/box.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["first"]["stamp"], Value::Null);
}

#[test]
fn a_refresh_moves_postinit_and_head_with_it() {
    let env = Env::empty();
    let tree = env.folder("tree");
    env.file("tree/version", "1");
    let old = init(&env, &["--from", &tree])["layer"].clone();
    env.file("tree/version", "2");
    let again = init(&env, &["--from", &tree]);
    assert_eq!((&again["created"], &again["refreshed"]), (&false.into(), &Value::Null));
    // The source is known.
    let new = init(&env, &["--refresh"]);
    assert_eq!(new["refreshed"], serde_json::json!({"old": old, "head_moved": true}));
    assert_ne!(new["layer"], old);
    assert_eq!(fs::read_to_string(env.layer("postinit").join("version")).unwrap(), "2");
    let list = env.json(&["list"]);
    assert_eq!((&list["head"], &list["current"]), (&new["layer"], &new["layer"]));
}

#[test]
fn a_head_that_has_gone_on_stays() {
    let env = Env::empty();
    let source = archive(&env);
    init(&env, &["--from", &source]);
    drop(env.line(&["--keep"], "touch /work").run().ok());
    let head = env.json(&["show"])["layer"].clone();
    let out = env.init(&["--refresh", "--from", &source]).run().ok();
    drop(
        out.says("head stays where it was; to go over: `sandbox --base-dir")
            .says("--box default rollback postinit`"),
    );
    assert_eq!(env.json(&["show"])["layer"], head);
    assert_ne!(env.json(&["show", "postinit"])["layer"], env.json(&["show"])["parent"]);
    drop(env.sandbox(&["run", "--", "ls", "/work"]).run().ok());
}

#[test]
fn by_age() {
    let env = Env::empty();
    let tree = env.folder("tree");
    let old = init(&env, &["--from", &tree])["layer"].clone();
    assert_eq!(init(&env, &["--from", &tree, "--max-age", "1h"])["refreshed"], Value::Null);
    sleep(Duration::from_millis(1100));
    let new = init(&env, &["--max-age", "1s"]);
    assert_eq!(new["refreshed"]["old"], old);
    // The box may say so itself.
    drop(env.sandbox(&["box", "set", "max_age=1s"]).run().ok());
    sleep(Duration::from_millis(1100));
    assert_eq!(init(&env, &[])["refreshed"]["old"], new["layer"]);
    drop(env.sandbox(&["box", "set", "max_age=1h"]).run().ok());
    assert_eq!(init(&env, &["--from", &tree])["refreshed"], Value::Null);
    drop(env.sandbox(&["init", "--max-age", "0"]).run().code(2).stdout(""));
    drop(env.sandbox(&["init", "--max-age", "soon"]).run().code(2).stdout(""));
}

/// The clock was set back since `postinit` was made: a little ahead is not old, but what is of another year
/// would never be.
#[test]
fn by_age_when_the_clock_was_set_back() {
    let env = Env::empty();
    let tree = env.folder("tree");
    init(&env, &["--from", &tree]);
    let file = env.base().join("boxes/default/refs/postinit");
    let made_in = |ahead: SignedDuration| {
        let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        record["created"] = (Timestamp::now() + ahead).to_string().into();
        fs::write(&file, format!("{record}\n")).unwrap();
    };
    made_in(SignedDuration::from_mins(30));
    assert_eq!(init(&env, &["--max-age", "1h"])["refreshed"], Value::Null);
    made_in(SignedDuration::from_hours(400 * 24));
    assert_ne!(init(&env, &["--max-age", "1h"])["refreshed"], Value::Null);
    assert_eq!(init(&env, &["--max-age", "1h"])["refreshed"], Value::Null);
}

/// An archive that is still the same would give the same layer.
#[test]
fn an_unchanged_archive_is_never_too_old() {
    let env = Env::empty();
    let source = archive(&env);
    let layer = init(&env, &["--from", &source])["layer"].clone();
    sleep(Duration::from_millis(1100));
    let again = init(&env, &["--from", &source, "--max-age", "1s"]);
    assert_eq!((&again["refreshed"], &again["layer"]), (&Value::Null, &layer));
    assert_ne!(init(&env, &["--refresh"])["layer"], layer, "it is done when it is asked for");
    // Another box takes what the first has made anew.
    let other = init(&env, &["other", "--from", &source]);
    assert_eq!(other["shared_with"], "default");
}

#[test]
fn a_refresh_that_fails_changes_nothing() {
    let env = Env::empty();
    let source = archive(&env);
    init(&env, &["--from", &source]);
    let state = env.state();
    fs::write(env.path("root.tar"), "no archive").unwrap();
    drop(env.sandbox(&["init", "--refresh"]).run().code(1).stdout("").warns("root.tar"));
    assert_eq!(env.state(), state);
    fs::remove_file(env.path("root.tar")).unwrap();
    drop(env.sandbox(&["init", "--refresh"]).run().fault(3, "root.tar", ""));
    drop(env.sandbox(&["init", "--refresh", "--from", "scratch"]).run().fault(
        4,
        "filled from",
        "",
    ));
    drop(env.sandbox(&["init", "nobox", "--refresh"]).run().fault(
        3,
        "nobox",
        "sandbox init nobox",
    ));
    assert_eq!(env.state(), state);
    drop(env.sandbox(&["init"]).run().fault(2, "--from SOURCE is missing", "sandbox init --help"));
    drop(env.sandbox(&["init", "nobox"]).run().fault(2, "--from SOURCE is missing", ""));
    assert!(!Path::new(&env.base().join("boxes/nobox")).exists());
}

/// A name that somebody has given to other work is not taken away.
#[test]
fn postinit_that_was_moved_by_hand_stays() {
    let env = Env::filled();
    drop(env.line(&["--keep"], "touch /work").run().ok());
    drop(env.sandbox(&["snapshot", "postinit", "--force"]).run().ok());
    let state = env.state();
    let out = env.sandbox(&["init", "--refresh"]).run();
    drop(out.fault(4, "postinit is not what init made", "rename --box default postinit NAME"));
    assert_eq!(env.state(), state);
}

#[test]
fn a_postinit_that_is_gone_comes_back() {
    let env = Env::empty();
    let tree = env.folder("tree");
    init(&env, &["--from", &tree]);
    drop(env.sandbox(&["rm", "postinit"]).run().ok());
    // Without it there is nothing to move: it comes back, and head stays.
    let new = init(&env, &["--refresh"]);
    assert_eq!(new["refreshed"], serde_json::json!({"old": null, "head_moved": false}));
    assert_eq!(env.snapshots(), ["postinit"]);
    assert_ne!(env.json(&["show"])["layer"], new["layer"]);
}

/// One move, which undo takes back; what is protected is not moved.
#[test]
fn a_refresh_is_taken_back_and_respects_protection() {
    let env = Env::empty();
    let tree = env.folder("tree");
    init(&env, &["--from", &tree]);
    let before = env.json(&["list"]);
    init(&env, &["--refresh"]);
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.json(&["list"]), before);
    drop(env.sandbox(&["snapshot", "postinit", "--protect"]).run().ok());
    let state = env.state();
    let hint = "snapshot --box default --unprotect postinit";
    drop(env.sandbox(&["init", "--refresh"]).run().fault(4, "postinit is protected", hint));
    drop(env.sandbox(&["snapshot", "postinit", "--unprotect"]).run().ok());
    assert_eq!(env.state(), state);
}

/// Several who change the settings at once: nothing is lost.
#[test]
fn settings_by_many_at_once() {
    let env = Env::empty();
    init(&env, &["--from", "scratch"]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let env = &env;
            scope.spawn(move || {
                let word = format!("env+=V{number}=1");
                drop(env.sandbox(&["box", "set", &word]).run().ok());
            });
        }
    });
    let set = env.json(&["box", "show"]);
    assert_eq!(set["settings"]["env"].as_array().unwrap().len(), 8);
}
