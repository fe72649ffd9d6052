//! Working in a box: names, head and current.

use serde_json::{Value, json};

use crate::common::{Env, left};

/// Keeps a file of this name on the head.
#[track_caller]
pub(crate) fn keep(env: &Env, name: &str) {
    drop(env.line(&["--keep"], &format!("echo {name} >/{name}")).run().ok());
}

#[track_caller]
pub(crate) fn head(env: &Env) -> Value {
    env.json(&["list"])["head"].clone()
}

/// The names with a star.
#[track_caller]
fn starred(env: &Env) -> Vec<String> {
    let list = env.json(&["list"]);
    let all = list["snapshots"].as_array().unwrap().iter();
    let starred = all.filter(|one| one["current"] == true);
    starred.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn names_are_lazy_and_several() {
    let env = Env::filled();
    let layers = env.entries("layers");
    drop(env.sandbox(&["snapshot", "a", "-m", "the first"]).run().ok());
    drop(env.sandbox(&["snapshot", "b"]).run().ok());
    assert_eq!(env.entries("layers"), layers, "a name makes no layer");
    assert_eq!(starred(&env), ["postinit", "a", "b"]);
    keep(&env, "one");
    let text = env.sandbox(&["list"]).run().ok().text();
    assert!(text.contains("the first"), "{text}");
    assert!(text.lines().last().unwrap().contains("no snapshot names it"), "{text}");
    drop(env.sandbox(&["snapshot", "c"]).run().ok());
    assert_eq!(starred(&env), ["c"]);
    let text = env.sandbox(&["list"]).run().ok().text();
    assert!(!text.contains("head is"), "{text}");
    // The same again is no failure, says so, and is no move.
    let log = env.json(&["log"]);
    drop(env.sandbox(&["snapshot", "c"]).run().ok().says(": nothing changed\n"));
    assert_eq!(env.json(&["snapshot", "c"])["done"], "unchanged");
    assert_eq!(env.json(&["log"]), log);
    // A message can be given later.
    assert_eq!(env.json(&["snapshot", "c", "-m", "said"])["done"], "changed");
    assert_eq!(env.json(&["list"])["snapshots"][3]["message"], "said");
    assert_eq!(env.json(&["snapshot", "c", "-m", ""])["done"], "changed");
    assert_eq!(env.json(&["list"])["snapshots"][3]["message"], Value::Null);
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.json(&["list"])["snapshots"][3]["message"], "said");
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.json(&["list"])["snapshots"][3]["message"], Value::Null);
}

#[test]
fn a_name_that_is_taken() {
    let env = Env::filled();
    keep(&env, "one");
    let state = env.state();
    drop(env.sandbox(&["snapshot", "postinit"]).run().fault(
        4,
        "postinit",
        "sandbox snapshot postinit --force --box default",
    ));
    drop(env.sandbox(&["snapshot", "postinit", "-m", "x"]).run().fault(4, "postinit", ""));
    assert_eq!(env.state(), state);
    let before = env.json(&["list"]);
    drop(env.sandbox(&["snapshot", "postinit", "--force"]).run().ok().says(": moved\n"));
    assert_eq!(env.json(&["show", "postinit"])["layer"], before["head"]);
    assert_eq!(starred(&env), ["postinit"]);
    drop(env.sandbox(&["undo"]).run().ok().says("undone: snapshot"));
    assert_eq!(env.json(&["list"]), before);
}

#[test]
fn rollback_and_clean() {
    let env = Env::filled();
    let first = head(&env);
    keep(&env, "one");
    drop(env.sandbox(&["snapshot", "one"]).run().ok());
    keep(&env, "two");
    let two = head(&env);
    // Head goes back to what is current.
    drop(env.sandbox(&["clean"]).run().ok().says(", was "));
    drop(env.sandbox(&["run", "--", "sh", "-c", "cat /one; ! ls /two"]).run().ok().stdout("one\n"));
    drop(env.sandbox(&["clean"]).run().ok().says(": nothing changed\n"));
    let json = env.json(&["rollback", "postinit"]);
    assert_eq!((&json["head"], &json["changed"]), (&first, &json!(true)));
    assert_eq!(starred(&env), ["postinit"]);
    drop(env.sandbox(&["run", "--", "sh", "-c", "! ls /one"]).run().ok());
    let log = env.json(&["log"]);
    for spec in ["postinit", "default/postinit", "head", "current", first.as_str().unwrap()] {
        assert_eq!(env.json(&["rollback", spec])["changed"], false, "{spec}");
    }
    assert_eq!(env.json(&["log"]), log, "what changes nothing is no move");
    // Forwards, too, by an id that only the log knows.
    drop(env.sandbox(&["rollback", two.as_str().unwrap()]).run().ok());
    drop(env.sandbox(&["run", "--", "cat", "/two"]).run().ok().stdout("two\n"));
    assert_eq!(starred(&env), [""; 0]);
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    let out = env.sandbox(&["-b", "other", "rollback", "default/one"]).run();
    drop(out.fault(4, "box default", "--from default/one --commit"));
    drop(env.sandbox(&["rollback", "other/postinit"]).run().fault(4, "box other", ""));
}

/// Two starred names and a head elsewhere; a commit stands beside the head.
#[test]
fn head_and_current_go_their_own_ways() {
    let env = Env::filled();
    keep(&env, "one");
    drop(env.sandbox(&["snapshot", "a"]).run().ok());
    drop(env.sandbox(&["snapshot", "b"]).run().ok());
    keep(&env, "two");
    drop(env.line(&["--commit", "aside"], "cat /two; touch /three").run().ok());
    assert_eq!(starred(&env), ["a", "b"]);
    let shown = env.json(&["show", "aside"]);
    assert_eq!(shown["parent"], head(&env));
    drop(env.sandbox(&["rollback", "aside"]).run().ok());
    assert_eq!(starred(&env), ["aside"]);
}

#[test]
fn removed_names_leave_what_is_needed() {
    let env = Env::filled();
    keep(&env, "one");
    drop(env.sandbox(&["snapshot", "mine"]).run().ok());
    drop(env.sandbox(&["rm", "postinit", "mine", "mine"]).run().ok());
    assert_eq!(env.snapshots(), [""; 0]);
    // What the box goes on from is told, though no star can.
    drop(env.sandbox(&["list"]).run().ok().says("head is ").says(": no snapshot names it"));
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    drop(env.sandbox(&["run", "--", "cat", "/one"]).run().ok().stdout("one\n"));
    // Head is still current, though no name says so.
    drop(env.sandbox(&["clean"]).run().ok().says("nothing changed"));
    drop(env.sandbox(&["snapshot", "again"]).run().ok());
    assert_eq!(starred(&env), ["again"]);
    drop(env.sandbox(&["rm", "again", "nope"]).run().fault(3, "nope", "sandbox list"));
    assert_eq!(env.snapshots(), ["again"]);
}

#[test]
fn another_name() {
    let env = Env::filled();
    drop(env.sandbox(&["snapshot", "old", "-m", "said", "--protect"]).run().ok());
    let before = env.json(&["list"]);
    drop(env.sandbox(&["rename", "old", "new"]).run().ok().says(", was old\n"));
    let after = env.json(&["list"]);
    let mut expected = before.clone();
    expected["snapshots"][1]["name"] = json!("new");
    assert_eq!(after, expected, "time, message and protection stay");
    let log = env.json(&["log"]);
    drop(env.sandbox(&["rename", "new", "new"]).run().ok().says(": nothing changed\n"));
    assert_eq!(env.json(&["log"]), log);
    drop(env.sandbox(&["rename", "old", "x"]).run().fault(3, "old", "sandbox list"));
    drop(env.sandbox(&["rename", "postinit", "new"]).run().fault(4, "new", ""));
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.json(&["list"]), before);
}

#[test]
fn a_protected_name_stays() {
    let env = Env::filled();
    drop(env.sandbox(&["snapshot", "kept", "--protect"]).run().ok().says(", protected\n"));
    drop(env.sandbox(&["list"]).run().ok().says("(protected)"));
    keep(&env, "one");
    drop(env.sandbox(&["snapshot", "free"]).run().ok());
    let state = env.state();
    let way = "sandbox snapshot kept --unprotect";
    drop(env.sandbox(&["rm", "free", "kept"]).run().fault(4, "kept: it is protected", way));
    drop(env.sandbox(&["snapshot", "kept", "--force"]).run().fault(4, "it is protected", way));
    drop(env.sandbox(&["rename", "free", "kept"]).run().fault(4, "kept", ""));
    let out = env.sandbox(&["run", "--commit", "kept", "--", "true"]).run();
    drop(out.fault(125, "kept", ""));
    assert_eq!(env.state(), state);
    // It says nothing about head; and protection is taken away and given without moving the name.
    drop(env.sandbox(&["rollback", "postinit"]).run().ok());
    drop(env.sandbox(&["rollback", "free"]).run().ok());
    let json = env.json(&["snapshot", "kept", "--unprotect"]);
    assert_eq!((&json["done"], &json["protected"]), (&json!("changed"), &json!(false)));
    assert_eq!(starred(&env), ["free"]);
    assert_ne!(json["layer"], head(&env));
    assert_eq!(env.json(&["snapshot", "kept", "--unprotect"])["done"], "unchanged");
    assert_eq!(env.json(&["snapshot", "kept", "--protect"])["done"], "changed");
    // Undo takes protection back as everything else.
    drop(env.sandbox(&["undo"]).run().ok().says("its protection and message as before"));
    drop(env.sandbox(&["rm", "kept"]).run().ok());
    drop(env.sandbox(&["snapshot", "x", "--protect", "--unprotect"]).run().code(2).stdout(""));
}

/// Of two that keep on the same head one wins; the other one's changes are kept as a run, and the hint says
/// how to have them.
#[test]
fn a_lost_race_keeps_the_changes() {
    let env = Env::filled();
    let start = |who: &str| {
        let line = format!("echo {who} >/who; echo ready; read line; exit 0");
        let mut child = env.line(&["--keep"], &line).start();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        child
    };
    let mut children = [start("a"), start("b")];
    for child in &mut children {
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    }
    let outs = children.map(|child| child.wait_with_output().unwrap());
    let codes = outs.each_ref().map(|out| out.status.code().unwrap());
    let lost = usize::from(codes[1] == 125);
    assert_eq!((codes[lost], codes[1 - lost]), (125, 0), "{outs:?}");
    let text = String::from_utf8_lossy(&outs[lost].stderr);
    let run = env.entries("runs").pop().unwrap();
    assert!(text.contains("was moved meanwhile"), "{text}");
    // As it is typed.
    let hint = text.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    let typed = hint.split('`').nth(1).unwrap();
    let store = env.base().display();
    assert_eq!(typed, format!("sandbox --base-dir {store} recover {run} --as NAME"));
    assert!(hint.contains("the same command again"), "{hint}");
    let words: Vec<_> = typed.split(' ').skip(1).collect();
    drop(env.bare().args(words).run().ok());
    let who = |from: &str| env.sandbox(&["run", "--from", from, "--", "cat", "/who"]).run().line();
    let mut both = [who("head"), who("NAME")];
    assert_eq!(both[0], ["a", "b"][1 - lost]);
    both.sort();
    assert_eq!(both, ["a", "b"]);
    left::eventually("runs", || env.entries("runs"));
    // Or they become the head, instead of what won.
    drop(env.sandbox(&["rollback", "NAME"]).run().ok());
    assert_eq!(who("head"), ["a", "b"][lost]);
}
