//! What commands print: text for people, JSON as documented.

use serde_json::{Value, json};

use crate::common::{Env, ids};

/// Text with what differs from run to run replaced: ids, times and sizes.
fn plain(text: &str) -> String {
    let word = |word: &str| {
        let base32 = word.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        match word.len() {
            26 if base32 => "<layer>".to_owned(),
            12 if base32 && word.starts_with("01") => "<short>".to_owned(),
            10 if word.starts_with("20") && word.matches('-').count() == 2 => "<date>".to_owned(),
            9 if word.ends_with('Z') && word.matches(':').count() == 2 => "<time>".to_owned(),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n";
    text.lines().map(line).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn list() {
    let env = Env::filled();
    drop(env.line(&["--commit", "devel"], "head -c 5000 /dev/zero >/x").run().ok());
    let text = plain(&env.sandbox(&["list"]).run().ok().stderr("").text());
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("NAME LAYER CREATED SIZE"), "{text}");
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("postinit <short> <date> <time> ") && first.ends_with(" *"),
        "{text}"
    );
    assert_eq!(lines.next(), Some("devel <short> <date> <time> 4.9 KiB"), "{text}");
    assert_eq!(lines.next(), None);

    let json = env.json(&["list"]);
    assert_eq!(keys(&json), ["box", "current", "head", "snapshots"]);
    assert_eq!((&json["box"], &json["head"]), (&json!("default"), &json["current"]));
    let devel = &json["snapshots"][1];
    assert_eq!(
        keys(devel),
        ["created", "current", "depth", "layer", "message", "name", "own_bytes", "protected"]
    );
    assert_eq!((&devel["name"], &devel["current"]), (&json!("devel"), &json!(false)));
    assert_eq!((&devel["depth"], &devel["own_bytes"]), (&json!(1), &json!(5000)));
    let created: String = devel["created"].as_str().unwrap().to_owned();
    assert!(created.len() >= 20 && created.ends_with('Z') && created.contains('T'), "{created}");
    assert_eq!(json["snapshots"][0]["current"], true);
}

#[test]
fn show() {
    let env = Env::filled();
    drop(env.line(&["--commit", "devel"], "head -c 5000 /dev/zero >/x; exit 0").run().ok());
    let text = plain(&env.sandbox(&["show", "devel"]).run().ok().stderr("").text());
    let source = crate::common::tree::tiny_source();
    let expected = format!(
        "name: devel\nlayer: <layer>\nparent: <layer>\nlayers: 2\ncreated: <date> <time>\n\
         command: sh -c 'head -c 5000 /dev/zero >/x; exit 0'\nexit: 0\nsize: 4.9 KiB in 1 entry\n\
         ids: {}\nsource: {source}\n",
        ids().name()
    );
    assert_eq!(text, expected);
    let json = env.json(&["show", "devel"]);
    assert_eq!(
        keys(&json),
        [
            "argv",
            "chain",
            "created",
            "exit",
            "files",
            "id_map",
            "layer",
            "name",
            "own_bytes",
            "parent",
            "remembered",
            "source"
        ]
    );
    assert_eq!((&json["files"], &json["own_bytes"]), (&json!(1), &json!(5000)));
    assert_eq!(json["id_map"]["mode"], ids().name());
    assert_eq!(json["source"], source);
    let base = env.json(&["show", "postinit"]);
    assert_eq!(
        (&base["parent"], &base["exit"], &base["argv"]),
        (&Value::Null, &Value::Null, &json!([]))
    );
}

#[test]
fn snapshot_and_rm() {
    let env = Env::filled();
    drop(env.line(&["--keep"], "touch /kept").run().ok());
    let text = plain(&env.sandbox(&["snapshot", "mine"]).run().ok().stderr("").text());
    assert_eq!(text, "mine: <short>\n".replace("mine: <short>", text.trim_end()));
    let list = env.json(&["list"]);
    assert_eq!(list["head"], list["current"]);
    assert_eq!(list["snapshots"][1]["current"], true);
    assert_eq!(list["snapshots"][0]["current"], false);
    // Without a change it is another name for the same layer.
    let json = env.json(&["snapshot", "also"]);
    assert_eq!(
        json,
        json!({"box": "default", "name": "also", "layer": list["head"], "protected": false, "done": "created"})
    );
    drop(env.sandbox(&["run", "--from", "mine", "--", "ls", "/kept"]).run().ok());

    let removed = env.json(&["rm", "mine", "also"]);
    assert_eq!(removed["box"], "default");
    assert_eq!(removed["removed"][1], json!({"name": "also", "layer": list["head"]}));
    assert_eq!(env.snapshots(), ["postinit"]);
    // The head still needs the layer.
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    drop(env.sandbox(&["run", "--", "ls", "/kept"]).run().ok());
    drop(env.line(&["--commit", "x"], "touch /x").run().ok());
    let text = plain(&env.sandbox(&["rm", "x"]).run().ok().stderr("").text());
    assert_eq!(text, "removed x: it was <short>\n");
    drop(env.line(&["--commit", "x"], "touch /x").run().ok());
    drop(env.sandbox(&["rm", "-q", "x"]).run().ok().stdout("").stderr(""));
}

#[test]
fn gc() {
    let env = Env::filled();
    drop(
        env.line(&["--commit", "gone"], "head -c 9000 /dev/zero >/x; mkdir /d; chmod 0 /d")
            .run()
            .ok(),
    );
    let layer = env.json(&["show", "gone"])["layer"].clone();
    drop(env.sandbox(&["rm", "gone"]).run().ok());
    // What was removed lately can be had back.
    drop(
        env.sandbox(&["gc"]).run().ok().stdout("removed 0 layers, 0 runs; freed 0 B\n").stderr(""),
    );
    let json = env.json(&["gc", "--all", "--dry-run"]);
    assert_eq!(keys(&json), ["dry_run", "freed", "layers", "runs"]);
    assert_eq!(
        (&json["layers"], &json["runs"], &json["dry_run"]),
        (&json!([layer]), &json!([]), &json!(true))
    );
    assert_eq!(env.entries("layers").len(), 2);
    let json = env.json(&["gc", "--all"]);
    assert_eq!((&json["layers"], &json["dry_run"]), (&json!([layer]), &json!(false)));
    assert!(json["freed"].as_u64().unwrap() >= 9000, "{json}");
    assert_eq!(env.entries("layers").len(), 1);
    assert_eq!(env.entries("trash"), [""; 0]);
    drop(env.sandbox(&["run", "--", "true"]).run().ok());
}

#[test]
fn doctor() {
    let env = Env::filled();
    let out = env.sandbox(&["doctor"]).run().ok().stderr("");
    let text = out.text();
    let works = text.ends_with("sandbox works here\n");
    drop(out.check(works, "it does not work here"));
    let json = env.json(&["doctor"]);
    assert_eq!(keys(&json), ["id_map", "overlay", "probes", "proc"]);
    for probe in json["probes"].as_array().unwrap() {
        for key in ["name", "ok", "detail", "errno", "remedy"] {
            assert!(probe.get(key).is_some(), "{key}: {probe}");
        }
    }
    // Whatever it finds out about the kernel's age, a run starts.
    let age = json["probes"].as_array().unwrap().iter().find(|row| row["name"] == "kernel-fixes");
    assert!(age.is_some_and(|row| row["detail"].as_str().is_some_and(|text| !text.is_empty())));
    assert!(["fd", "lowerdir+", "mount"].contains(&json["overlay"].as_str().unwrap()), "{json}");
    // Before there is a store, too; and it makes none.
    let env = Env::empty();
    drop(env.sandbox(&["doctor"]).run().ok());
    assert!(!env.base().exists());
}

#[test]
fn completions() {
    let env = Env::empty();
    for shell in ["bash", "zsh", "fish"] {
        drop(
            env.sandbox(&["completions", shell]).run().ok().stderr("").says("sandbox").says("init"),
        );
    }
    let script = env.sandbox(&["completions", "bash"]).run().ok().text();
    drop(env.program("bash").arg("-n").input(script).run().ok().stderr(""));
    drop(env.sandbox(&["completions", "tcsh"]).run().code(2).stdout("").warns("tcsh"));
}

#[test]
fn the_manual() {
    let env = Env::empty();
    drop(env.sandbox(&["man"]).run().ok().stderr("").says("EXIT STATUS").says("SANDBOX_BOX"));
    drop(env.sandbox(&["man", "box", "set"]).run().ok().stderr("").says(".TH sandbox-box-set 1"));
    drop(env.sandbox(&["man", "nothing"]).run().code(2).stdout("").warns("no such command"));
    let dir = env.path("pages");
    drop(env.sandbox(&["man", "--dir", dir.to_str().expect("UTF-8")]).run().ok().stdout(""));
    for page in ["sandbox.1", "sandbox-run.1", "sandbox-box-set.1", "sandbox-man.1"] {
        let text = std::fs::read_to_string(dir.join(page)).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let env = Env::filled();
    let words = env.sandbox(&["completions", "bash"]).words();
    let out = env
        .program("bash")
        .args(["-c", "set -o pipefail; \"$@\" | head -c 1 >/dev/null; echo $?", "bash"])
        .args(words)
        .run();
    drop(out.ok().stderr("").stdout("0\n"));
}

#[test]
fn where_the_store_is() {
    let env = Env::filled();
    let base = env.base().as_os_str();
    drop(env.bare().arg("list").env("SANDBOX_BASE_DIR", base).run().ok().says("postinit"));
    let other = env.path("nothing");
    drop(env.sandbox(&["list"]).env("SANDBOX_BASE_DIR", &other).run().ok());
    drop(env.bare().arg("list").env("XDG_DATA_HOME", env.dir()).run().fault(3, "/sandbox", ""));
    drop(env.sandbox(&["list"]).env("SANDBOX_BOX", "nobox").run().fault(3, "nobox", ""));
    drop(env.sandbox(&["-b", "default", "list"]).env("SANDBOX_BOX", "nobox").run().ok());
    if !crate::common::mode::is_root() {
        drop(env.bare().arg("list").run().fault(3, "home/.local/share/sandbox", ""));
        drop(env.bare().arg("list").unset("HOME").run().fault(2, "HOME is not set", "--base-dir"));
    }
}

/// What is proposed acts in the store that was asked for.
#[test]
fn hints_name_the_store_that_was_given() {
    let env = Env::named("a store");
    env.fill();
    let base = env.base().to_str().unwrap();
    let out = env.sandbox(&["run", "--from", "none", "--", "true"]).run().code(125);
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(told.contains(&format!("`sandbox --base-dir '{base}' list")), "{told}");
    let json = env.sandbox(&["--json", "show", "none"]).run().code(3).json();
    let hint = json["error"]["hint"].as_str().unwrap();
    assert!(hint.contains(&format!("--base-dir '{base}' ")), "{hint}");
    let bare = env.bare().args(["show", "none"]).env("SANDBOX_BASE_DIR", base);
    let told = bare.run().code(3);
    assert!(!String::from_utf8_lossy(&told.stderr).contains("--base-dir"), "{told:?}");
}
