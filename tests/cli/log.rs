//! What was done to a box, as text and JSON, and the tree of its layers.

use serde_json::{Value, json};

use super::moves::keep;
use crate::common::Env;

fn short(value: &Value) -> &str {
    &value.as_str().unwrap()[..12]
}

#[test]
fn the_newest_move_comes_first() {
    let env = Env::filled();
    let base = env.json(&["list"])["head"].clone();
    keep(&env, "one");
    let kept = env.json(&["list"])["head"].clone();
    drop(env.sandbox(&["snapshot", "mine"]).run().ok());
    drop(env.sandbox(&["rollback", "postinit"]).run().ok());
    drop(env.sandbox(&["rm", "mine", "postinit"]).run().ok());
    drop(env.sandbox(&["undo"]).run().ok());

    let json = env.json(&["log"]);
    assert_eq!((&json["box"], &json["unreadable"]), (&json!("default"), &json!(0)));
    let entries = json["entries"].as_array().unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["undo", "rm", "rollback", "snapshot", "run", "init"]);
    for key in ["time", "action", "old", "new", "name", "argv", "layer"] {
        assert!(entries.iter().all(|entry| entry.get(key).is_some()), "{key}");
    }
    let seen = |at: usize| [&entries[at]["old"], &entries[at]["new"], &entries[at]["name"]];
    assert_eq!(seen(1), [&Value::Null, &Value::Null, &Value::Null], "several names");
    assert_eq!(seen(2), [&kept, &base, &json!("postinit")]);
    assert_eq!(seen(3), [&Value::Null, &kept, &json!("mine")]);
    assert_eq!(seen(4), [&base, &kept, &Value::Null]);
    assert_eq!(seen(5), [&Value::Null, &base, &json!("postinit")]);
    assert_eq!(entries[1]["changes"][0], json!({"name": "mine", "old": kept, "new": null}));
    assert_eq!(entries[4]["argv"], json!(["sh", "-c", "echo one >/one"]));
    assert_eq!((&entries[4]["layer"], &entries[5]["layer"]), (&kept, &base));
    assert_eq!((&entries[1]["undone"], &entries[0]["undone"]), (&json!(true), &json!(false)));
    assert_eq!(entries[0]["undoes"], json!({"move": entries[1]["move"], "action": "rm"}));
    assert_eq!(env.json(&["log", "-n", "2"])["entries"], json!(entries[..2]));

    let text = env.sandbox(&["log"]).run().ok().stderr("").text();
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(lines.next().unwrap(), "TIME ACTION NAME LAYER COMMAND");
    let (base, kept) = (short(&base), short(&kept));
    let expected = [
        format!("undo (rm) mine - -> {kept}"),
        format!("postinit - -> {base}"),
        format!("rm (undone) mine {kept} -> -"),
        format!("postinit {base} -> -"),
        format!("rollback postinit {kept} -> {base}"),
        format!("snapshot mine - -> {kept}"),
        format!("run head {base} -> {kept} sh -c 'echo one >/one'"),
        format!("init postinit - -> {base}"),
    ];
    for expected in expected {
        let line = lines.next().unwrap();
        assert!(line.ends_with(&expected), "{line}\n{expected}");
    }
    assert_eq!(lines.next(), None);
    drop(env.sandbox(&["log", "-n", "0"]).run().code(2).stdout(""));
}

#[test]
fn the_tree_of_layers() {
    let env = Env::filled();
    keep(&env, "one");
    drop(env.sandbox(&["snapshot", "one"]).run().ok());
    drop(
        env.line(&["--from", "postinit", "--commit", "aside"], "head -c 5000 /dev/zero >/x").run(),
    );
    keep(&env, "two");
    let shown = |name: &str| env.json(&["show", name])["layer"].as_str().unwrap()[..12].to_owned();
    let text = env.sandbox(&["log", "--graph"]).run().ok().stderr("").text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    let starts = [
        format!("*  {}  (head)  20", shown("head")),
        format!("| *  {}  (aside)  20", shown("aside")),
        format!("* |  {}  (one) *  20", shown("one")),
        "|/".to_owned(),
        format!("*  {}  (postinit)  20", shown("postinit")),
    ];
    for (line, start) in lines.iter().zip(&starts) {
        assert!(line.starts_with(start), "{start}\n{text}");
    }
    assert!(lines[1].ends_with("4.9 KiB  sh -c 'head -c 5000 /dev/zero >/x'"), "{text}");
    let json = env.json(&["log", "--graph"]);
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 4);
    assert_eq!((&layers[0]["head"], &layers[0]["parent"]), (&json!(true), &layers[2]["layer"]));
    assert_eq!((&layers[2]["names"], &layers[2]["current"]), (&json!(["one"]), &json!(true)));
    assert_eq!(layers[3]["parent"], Value::Null);
    let text = env.sandbox(&["log", "--graph", "-n", "2"]).run().ok().text();
    assert_eq!(text.lines().count(), 2);
    // What only the log knows is shown for as long as it is there.
    drop(env.sandbox(&["rm", "aside"]).run().ok());
    drop(env.sandbox(&["log", "--graph"]).run().ok().says("/dev/zero"));
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    let text = env.sandbox(&["log", "--graph"]).run().ok().text();
    assert_eq!(text.lines().count(), 3, "{text}");
    drop(env.sandbox(&["log"]).run().ok().says("(gone)"));
}

/// A command line from inside never reaches the terminal as it is.
#[test]
fn commands_are_harmless() {
    let env = Env::filled();
    drop(env.sandbox(&["run", "--keep", "--", "touch", "/a\x1b[31m\nb"]).run().ok());
    for words in [&["log"][..], &["log", "--graph"]] {
        let text = env.sandbox(words).run().ok().text();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert_eq!(text.lines().count(), if words.len() == 1 { 3 } else { 2 }, "{text}");
    }
}
