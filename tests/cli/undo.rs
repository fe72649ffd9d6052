//! Taking moves back, as a user meets it.

use serde_json::{Value, json};

use super::moves::{head, keep};
use crate::common::Env;

/// What undo has to bring back exactly; the log goes on.
#[track_caller]
fn all(env: &Env) -> Value {
    env.json(&["list"])
}

/// Every kind of move, one after the other, and back again.
#[test]
fn every_move_is_taken_back() {
    let env = Env::filled();
    drop(env.sandbox(&["undo"]).run().fault(3, "no move to take back", "sandbox log"));
    let moves: [&[&str]; 12] = [
        &["run", "--keep", "--", "touch", "/one"],
        &["snapshot", "one", "-m", "said"],
        &["run", "--commit", "aside", "--", "touch", "/two"],
        &["rename", "aside", "beside"],
        &["snapshot", "one", "--protect"],
        &["rollback", "beside"],
        &["run", "--keep", "--", "touch", "/three"],
        &["clean"],
        &["rm", "beside", "postinit"],
        &["snapshot", "one", "--unprotect"],
        &["snapshot", "one", "--force"],
        &["rm", "one"],
    ];
    let mut states = vec![all(&env)];
    for words in moves {
        drop(env.sandbox(words).run().ok());
        states.push(all(&env));
        assert_ne!(states.last(), states.get(states.len() - 2), "{words:?}");
    }
    for (words, pair) in moves.iter().zip(states.windows(2)).rev() {
        assert_eq!(all(&env), pair[1]);
        let rehearsed = env.json(&["undo", "--dry-run"]);
        assert_eq!((all(&env), &rehearsed["dry_run"]), (pair[1].clone(), &json!(true)));
        let undone = env.json(&["undo"]);
        assert_eq!(undone["changes"], rehearsed["changes"]);
        assert_eq!(undone["action"], words[0], "{undone}");
        assert_eq!(all(&env), pair[0], "{words:?}");
    }
    drop(env.sandbox(&["undo"]).run().fault(3, "no move to take back", "sandbox log"));
    assert_eq!(env.json(&["log"])["entries"].as_array().unwrap().len(), 25);
}

#[test]
fn undo_says_what_it_does() {
    let env = Env::filled();
    let layer = head(&env);
    let short = &layer.as_str().unwrap()[..12];
    drop(env.sandbox(&["rm", "postinit"]).run().ok());
    let text = env.sandbox(&["undo", "--dry-run"]).run().ok().stderr("").text();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("would undo: rm of 20"), "{text}");
    assert_eq!((lines.next(), lines.next()), (Some(&*format!("postinit: {short}")), None));
    assert_eq!(env.snapshots(), [""; 0]);
    drop(env.sandbox(&["undo"]).run().ok().says("undone: rm of 20"));
    assert_eq!(env.snapshots(), ["postinit"]);
    keep(&env, "one");
    let kept = head(&env);
    let text = env.sandbox(&["undo"]).run().ok().text();
    assert!(text.contains(": sh -c 'echo one >/one'\nhead: "), "{text}");
    assert_eq!(head(&env), layer);
    // What was kept is not lost: the log knows it.
    drop(env.sandbox(&["rollback", kept.as_str().unwrap()]).run().ok());
    drop(env.sandbox(&["run", "--", "cat", "/one"]).run().ok().stdout("one\n"));
    let json = env.json(&["undo", "--dry-run"]);
    assert_eq!(json.as_object().unwrap().len(), 6, "{json}");
    drop(env.sandbox(&["undo", "-q"]).run().ok().stdout("").stderr(""));
}

#[test]
fn what_gc_has_taken_cannot_come_back() {
    let env = Env::filled();
    keep(&env, "one");
    drop(env.sandbox(&["clean"]).run().ok());
    let state = env.state();
    drop(env.sandbox(&["gc"]).run().ok());
    assert_eq!(env.state(), state, "undo may need it");
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 1);
    drop(env.sandbox(&["undo"]).run().fault(3, "is gone", "undo_age"));
    let log = env.sandbox(&["log"]).run().ok().text();
    assert_eq!(log.matches("(gone)").count(), 2, "{log}");
    drop(env.sandbox(&["run", "--", "true"]).run().ok());
}

#[test]
fn what_was_moved_otherwise_is_a_conflict() {
    let env = Env::filled();
    keep(&env, "one");
    let path = env.base().join("boxes/default/head");
    let kept = std::fs::read(&path).unwrap();
    keep(&env, "two");
    std::fs::write(&path, b"{\"head\":null,\"current\":null}\n").unwrap();
    drop(env.sandbox(&["undo"]).run().fault(4, "head was moved since", "sandbox log"));
    // As if the second run had never been.
    std::fs::write(&path, kept).unwrap();
    drop(env.sandbox(&["undo"]).run().ok().says("echo one"));
}

#[test]
fn damage_has_a_name_and_a_way_out() {
    let env = Env::filled();
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    keep(&env, "one");
    drop(env.sandbox(&["snapshot", "mine"]).run().ok());
    let path = |name: &str| env.base().join("boxes/default").join(name);
    let fine = || {
        for words in [&["list"][..], &["snapshot", "x"], &["rm", "x"], &["undo"], &["log"]] {
            drop(env.sandbox(&["-b", "other"]).args(words).run().ok());
        }
    };

    std::fs::write(path("head"), "{\"head\":").unwrap();
    for words in [&["list"][..], &["snapshot", "x"], &["clean"], &["undo"], &["rm", "mine"]] {
        drop(env.sandbox(words).run().fault(7, "boxes/default/head", "sandbox rollback NAME"));
    }
    drop(env.sandbox(&["run", "--", "true"]).run().fault(125, "boxes/default/head", "rollback"));
    drop(env.sandbox(&["run", "--from", "mine", "--", "cat", "/one"]).run().ok());
    fine();
    drop(env.sandbox(&["rollback", "mine"]).run().ok().says("head is "));
    drop(env.sandbox(&["run", "--", "cat", "/one"]).run().ok().stdout("one\n"));

    std::fs::write(path("refs/mine"), "rubbish").unwrap();
    for words in [&["list"][..], &["snapshot", "mine"], &["rename", "mine", "x"], &["gc"]] {
        drop(env.sandbox(words).run().fault(7, "refs/mine", "sandbox rm mine"));
    }
    drop(env.sandbox(&["log"]).run().ok());
    drop(env.sandbox(&["run", "--", "cat", "/one"]).run().ok());
    fine();
    drop(env.sandbox(&["rm", "mine"]).run().ok().says("unreadable"));
    assert_eq!(env.snapshots(), ["postinit"]);
    // The log knows what it was, and the next undo goes on from there.
    drop(env.sandbox(&["undo"]).run().ok().says("undone: rm of "));
    assert_eq!(env.snapshots(), ["postinit", "mine"]);
    drop(env.sandbox(&["run", "--from", "mine", "--", "cat", "/one"]).run().ok().stdout("one\n"));
    drop(env.sandbox(&["rm", "mine"]).run().ok());
    drop(env.sandbox(&["snapshot", "mine"]).run().ok());

    let log = std::fs::read_to_string(path("log")).unwrap();
    std::fs::write(path("log"), format!("{log}{{\"time\":\n")).unwrap();
    drop(env.sandbox(&["log"]).run().ok().warns("boxes/default/log: 1 line cannot be read"));
    assert_eq!(env.json(&["log"])["unreadable"], 1);
    drop(env.sandbox(&["undo"]).run().ok().says("undone: snapshot"));
    std::fs::remove_file(path("log")).unwrap();
    std::fs::create_dir(path("log")).unwrap();
    for words in [&["log"][..], &["undo"], &["snapshot", "mine"]] {
        drop(env.sandbox(words).run().fault(7, "boxes/default/log", "rm -r "));
    }
    drop(env.sandbox(&["list"]).run().ok());
    fine();
    std::fs::remove_dir(path("log")).unwrap();
    drop(env.sandbox(&["snapshot", "mine"]).run().ok());
    drop(env.sandbox(&["undo"]).run().ok());
}

/// Moves of many at once are each in the log, once, and all of them can be taken back, by many at once.
#[test]
fn moves_of_many_at_once() {
    let env = Env::filled();
    let before = all(&env);
    let entries = |env: &Env| env.json(&["log"])["entries"].as_array().unwrap().len();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let env = &env;
            scope.spawn(move || {
                for turn in 0..4 {
                    let name = format!("w{worker}-{turn}");
                    drop(env.sandbox(&["snapshot", &name, "--wait=100"]).run().ok());
                    let new = format!("{name}x");
                    drop(env.sandbox(&["rename", &name, &new, "--wait=100"]).run().ok());
                }
            });
        }
    });
    assert_eq!((env.snapshots().len(), entries(&env)), (17, 33));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let env = &env;
            scope.spawn(move || {
                for _ in 0..8 {
                    drop(env.sandbox(&["undo", "--wait=100"]).run().ok());
                }
            });
        }
    });
    assert_eq!((all(&env), entries(&env)), (before, 65));
    drop(env.sandbox(&["undo"]).run().fault(3, "no move to take back", ""));
}

/// A command that is killed at any moment has done all of a move, or what it did is taken back by undo.
#[test]
fn moves_that_are_killed_at_any_moment() {
    let env = Env::filled();
    keep(&env, "one");
    let before = all(&env);
    for turn in 0..24_u64 {
        let mut child = env.sandbox(&["snapshot", "postinit", "--force"]).start();
        std::thread::sleep(std::time::Duration::from_micros(turn * 500));
        drop(child.kill());
        let done = child.wait().unwrap().success();
        let now = all(&env);
        if done || now != before {
            drop(env.sandbox(&["undo"]).run().ok().says("undone: snapshot"));
        }
        assert_eq!(all(&env), before, "turn {turn}");
        assert_eq!(env.json(&["undo", "--dry-run"])["action"], "run", "turn {turn}");
    }
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("boxes/default"), ["box.json", "head", "lock", "log", "refs"]);
    assert_eq!(env.entries("boxes/default/refs"), ["postinit"]);
}
