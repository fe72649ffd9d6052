//! Names of boxes and snapshots, the known and the impossible ones.

use crate::common::Env;

/// Impossible names, and a part of what is said about them.
fn bad() -> Vec<(String, &'static str)> {
    vec![
        (String::new(), "is empty"),
        ("a/b/c".to_owned(), "other characters"),
        ("../x".to_owned(), "does not start with"),
        ("..".to_owned(), "does not start with"),
        (".".to_owned(), "does not start with"),
        (".hidden".to_owned(), "does not start with"),
        ("a b".to_owned(), "other characters"),
        (" a".to_owned(), "does not start with"),
        ("a\nb".to_owned(), "other characters"),
        ("a\x1b[31m".to_owned(), "other characters"),
        ("\u{e4}".to_owned(), "does not start with"),
        ("a:b".to_owned(), "other characters"),
        ("x".repeat(200), "longer than 128"),
        ("head".to_owned(), "is reserved"),
        ("current".to_owned(), "is reserved"),
        ("host".to_owned(), "is reserved"),
        ("scratch".to_owned(), "is reserved"),
    ]
}

#[test]
fn bad_names_are_refused_before_anything_is_touched() {
    let env = Env::filled();
    let state = env.state();
    for (name, why) in bad() {
        let flag = format!("--commit={name}");
        let marker = env.path("ran");
        let bind = format!("{}:/host:rw", env.folder("host"));
        let out = env.sandbox(&["run", &flag, "--bind", &bind, "--", "touch", "/host/ran"]).run();
        drop(out.code(125).stdout("").warns(why));
        assert!(!marker.exists() && !env.path("host/ran").exists(), "{name:?}: the command ran");
        drop(env.sandbox(&["snapshot", "--", &name]).run().code(2).stdout("").warns(why));
        drop(env.sandbox(&["rm", "--", &name]).run().code(2).stdout("").warns(why));
        drop(env.sandbox(&["rename", "--", "postinit", &name]).run().code(2).warns(why));
        drop(env.sandbox(&["rename", "--", &name, "x"]).run().code(2).stdout("").warns(why));
        drop(env.sandbox(&[&format!("--box={name}"), "list"]).run().code(2).stdout("").warns(why));
        let out = env.sandbox(&[&format!("--box={name}"), "run", "--", "true"]).run();
        drop(out.code(125).stdout("").warns(why));
        drop(env.init(&["--from", "scratch", "--", &name]).run().code(2).stdout("").warns(why));
        assert_eq!(env.state(), state, "{name:?}");
    }
}

/// Control characters of a name never reach the terminal.
#[test]
fn messages_are_one_line_and_harmless() {
    let env = Env::filled();
    for name in ["a\nb", "a\x1b[31m", "a\r", "a\u{202e}"] {
        for words in [&["show", name][..], &["diff", name], &["run", "--from", name, "--", "true"]]
        {
            let out = env.sandbox(words).run().stdout("");
            let text = out.errors();
            let plain = text.chars().all(|c| c == '\n' || !c.is_control());
            drop(out.check(plain && text.lines().count() <= 2, "control characters"));
        }
    }
}

#[test]
fn unknown_ones() {
    let env = Env::filled();
    let state = env.state();
    let list = "sandbox list";
    // A shell says so when it does not bind the working directory, as it does not bind a home.
    let project = env.folder("project");
    drop(env.sandbox(&["show", "nope"]).run().fault(3, "nope", list));
    drop(env.sandbox(&["diff", "nope"]).run().fault(3, "nope", list));
    drop(env.sandbox(&["rm", "nope"]).run().fault(3, "nope", list));
    drop(env.sandbox(&["rm", "postinit", "nope"]).run().fault(3, "nope", list));
    drop(env.sandbox(&["run", "--from", "nope", "--", "true"]).run().fault(125, "nope", list));
    drop(env.sandbox(&["shell", "--from", "nope"]).dir(&project).run().fault(125, "nope", list));
    drop(env.sandbox(&["rollback", "nope"]).run().fault(3, "nope", list));
    drop(env.sandbox(&["rename", "nope", "x"]).run().fault(3, "nope", list));
    drop(env.sandbox(&["snapshot", "nope", "--unprotect"]).run().fault(3, "nope", list));
    for words in [
        &["list"][..],
        &["show"],
        &["diff"],
        &["rm", "x"],
        &["snapshot", "x"],
        &["rollback", "x"],
        &["clean"],
        &["rename", "x", "y"],
        &["undo"],
        &["log"],
    ] {
        drop(env.sandbox(&["-b", "nobox"]).args(words).run().fault(3, "nobox", "sandbox init"));
    }
    drop(env.sandbox(&["-b", "nobox", "run", "--", "true"]).run().fault(
        125,
        "nobox",
        "sandbox init",
    ));
    drop(
        env.sandbox(&["run", "--from", "nobox/postinit", "--", "true"])
            .run()
            .fault(125, "nobox", ""),
    );
    let run = "r-0000000000000";
    drop(env.sandbox(&["diff", "--run", run]).run().fault(3, run, ""));
    drop(env.sandbox(&["recover", run, "--as", "x"]).run().fault(3, run, ""));
    drop(env.sandbox(&["shell", "--run", run]).dir(&project).run().fault(125, run, ""));
    for words in
        [&["diff", "--run"][..], &["recover", "--as", "x"], &["logs"], &["stop"], &["kill"]]
    {
        drop(env.sandbox(words).args(["../x"]).run().fault(2, "../x", ""));
    }
    assert_eq!(env.state(), state);
    let json =
        env.sandbox(&["run", "--json", "--from", "nope", "--", "true"]).run().code(125).json();
    assert_eq!(json["error"]["kind"], "not-found");
}

#[test]
fn no_store_yet() {
    let env = Env::empty();
    for words in [
        &["list"][..],
        &["show"],
        &["gc"],
        &["diff"],
        &["rm", "x"],
        &["undo"],
        &["log"],
        &["clean"],
    ] {
        drop(env.sandbox(words).run().fault(3, "there is none yet", "sandbox init"));
    }
    drop(env.sandbox(&["run", "--", "true"]).run().fault(125, "there is none yet", "sandbox init"));
    assert!(!env.base().exists());
}

#[test]
fn ids_stand_for_names() {
    let env = Env::filled();
    let layer = env.json(&["show"])["layer"].as_str().unwrap().to_owned();
    for name in [&layer[..], &layer[..12], "postinit", "default/postinit", "head", "current"] {
        drop(env.sandbox(&["run", "--from", name, "--", "true"]).run().ok().stderr(""));
        assert_eq!(env.json(&["show", name])["layer"], layer.as_str());
    }
    drop(env.sandbox(&["show", &layer[..3]]).run().fault(3, &layer[..3], ""));
    // An exact name wins over the beginning of an id.
    drop(env.line(&["--commit", &layer[..8]], "touch /new").run().ok());
    assert_ne!(env.json(&["show", &layer[..8]])["layer"], layer.as_str());
}

#[test]
fn mistakes_on_the_command_line() {
    let env = Env::filled();
    drop(env.sandbox(&["run"]).run().code(125).stdout("").warns("<CMD>"));
    drop(env.sandbox(&["run", "--nonsense", "--", "true"]).run().code(125).warns("--nonsense"));
    drop(env.sandbox(&["list", "--nonsense"]).run().code(2).stdout("").warns("--nonsense"));
    drop(env.sandbox(&["lsit"]).run().code(2).stdout("").warns("lsit"));
    drop(env.sandbox(&[]).run().code(2).stdout(""));
    drop(env.sandbox(&["run", "--commit", "x", "--keep", "--", "true"]).run().code(125));
    drop(env.sandbox(&["run", "--upper", "tmpfs", "--commit", "x", "--", "true"]).run().fault(
        125,
        "in memory",
        "leave out",
    ));
    drop(env.sandbox(&["run", "--", ""]).run().fault(125, "no command", ""));
    let json = env.sandbox(&["list", "--json", "--nonsense"]).run().code(2).json();
    assert_eq!(json["error"]["kind"], "usage");
    drop(env.sandbox(&["--version"]).run().ok().says("sandbox "));
    for command in [
        "init",
        "run",
        "shell",
        "list",
        "show",
        "snapshot",
        "rollback",
        "clean",
        "rm",
        "rename",
        "undo",
        "log",
        "diff",
        "recover",
        "box",
        "scrub",
        "gc",
        "fsck",
        "df",
        "doctor",
        "completions",
        "man",
    ] {
        drop(env.sandbox(&[command, "--help"]).run().ok().stderr("").says("Usage: sandbox"));
    }
}
