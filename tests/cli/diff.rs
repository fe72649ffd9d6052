//! `diff`: every kind of change, and names that no one expects.

use serde_json::json;

use crate::common::Env;

#[test]
fn every_kind_of_change() {
    let env = Env::filled();
    let line = "echo new >/opt/new; mkdir -p /opt/dir/sub; ln -s x /opt/link; mkfifo /opt/fifo; \
                rm /opt/plain; echo changed >>/opt/deep/a; chmod 600 /opt/deep/b; \
                rm /opt/type && mkdir /opt/type; touch -d @1 /etc/group";
    drop(env.line(&["--commit", "all"], line).run().ok());
    let expected = "m /etc/group\nM /opt/deep/a\nm /opt/deep/b\nA /opt/dir\nA /opt/dir/sub\nA /opt/fifo\n\
                    A /opt/link\nA /opt/new\nD /opt/plain\nT /opt/type\n";
    drop(env.sandbox(&["diff", "all"]).run().ok().stderr("").stdout(expected));
    let json = env.json(&["diff", "all"]);
    assert_eq!(json["from"], env.json(&["show", "postinit"])["layer"]);
    assert_eq!(json["to"], env.json(&["show", "all"])["layer"]);
    let changes = json["changes"].as_array().unwrap();
    for change in [
        json!({"path": "opt/fifo", "kind": "added", "type": "fifo"}),
        json!({"path": "opt/link", "kind": "added", "type": "symlink"}),
        json!({"path": "opt/dir", "kind": "added", "type": "dir"}),
        json!({"path": "opt/plain", "kind": "deleted", "type": "file"}),
        json!({"path": "opt/type", "kind": "type", "type": "dir"}),
        json!({"path": "opt/deep/b", "kind": "metadata", "type": "file"}),
        json!({"path": "opt/deep/a", "kind": "modified", "type": "file"}),
    ] {
        assert!(changes.contains(&change), "{change} in {json}");
    }
    assert_eq!(changes.len(), 10);
    // The other way around.
    let back = env.sandbox(&["diff", "all", "postinit"]).run().ok();
    drop(back.stdout(
        "m /etc/group\nM /opt/deep/a\nm /opt/deep/b\nD /opt/dir\nD /opt/dir/sub\nD /opt/fifo\nD /opt/link\n\
         D /opt/new\nA /opt/plain\nT /opt/type\n",
    ));
    drop(env.sandbox(&["diff", "all", "all"]).run().ok().stdout(""));
}

#[test]
fn what_was_touched_and_put_back_is_no_change() {
    let env = Env::filled();
    let line = "mv /opt/plain /opt/other; mv /opt/other /opt/plain; chmod 600 /opt/type; chmod 644 /opt/type; \
                touch /opt/x; rm /opt/x";
    drop(env.line(&["--commit", "same"], line).run().ok());
    drop(env.sandbox(&["diff", "same"]).run().ok().stdout(""));
}

#[test]
fn a_directory_made_again_names_what_vanished() {
    let env = Env::filled();
    drop(
        env.line(&["--commit", "again"], "rm -r /opt/deep; mkdir /opt/deep; echo a >/opt/deep/c")
            .run()
            .ok(),
    );
    let expected = "D /opt/deep/a\nD /opt/deep/b\nA /opt/deep/c\n";
    let text = env.sandbox(&["diff", "again"]).run().ok().text();
    assert_eq!(text.replace("m /opt/deep\n", ""), expected);
    drop(env.line(&["--from", "again"], "ls /opt/deep").run().ok().stdout("c\n"));
    drop(env.line(&["--from", "again", "--commit", "gone"], "rm -r /opt/deep").run().ok());
    drop(env.sandbox(&["diff", "gone"]).run().ok().stdout("D /opt/deep\nD /opt/deep/c\n"));
    let both = env.sandbox(&["diff", "postinit", "gone"]).run().ok();
    drop(both.stdout("D /opt/deep\nD /opt/deep/a\nD /opt/deep/b\n"));
}

#[test]
fn a_directory_of_a_lower_layer_can_be_renamed() {
    let env = Env::filled();
    drop(
        env.line(&["--commit", "moved"], "mv /opt/deep /opt/moved; cat /opt/moved/a")
            .run()
            .ok()
            .stdout("a\n"),
    );
    let expected =
        "D /opt/deep\nD /opt/deep/a\nD /opt/deep/b\nA /opt/moved\nA /opt/moved/a\nA /opt/moved/b\n";
    drop(env.sandbox(&["diff", "moved"]).run().ok().stdout(expected));
}

#[test]
fn names_that_are_no_text() {
    let env = Env::filled();
    let line = "cd /opt; touch \"$(printf '\\377\\376')\" \"$(printf 'a\\nb')\" \"$(printf 'c\\033[31m')\" 'd\\e' '\u{e4}' ' '";
    drop(env.line(&["--commit", "odd"], line).run().ok());
    let expected = "A /opt/ \nA /opt/a\\nb\nA /opt/c\\u{1b}[31m\nA /opt/d\\\\e\nA /opt/\u{e4}\nA /opt/\\xff\\xfe\n";
    drop(env.sandbox(&["diff", "odd"]).run().ok().stdout(expected));
    let json = env.json(&["diff", "odd"]);
    let changes = json["changes"].as_array().unwrap();
    // opt/ and the two bytes, as base64.
    assert_eq!(changes[5], json!({"path_bytes": "b3B0L//+", "kind": "added", "type": "file"}));
    assert_eq!(changes[1]["path"], "opt/a\nb");
}

#[test]
fn owners_are_metadata() {
    let env = Env::filled();
    drop(env.line(&["--commit", "owned"], "chown 1:5 /opt/plain").run().ok());
    drop(env.sandbox(&["diff", "postinit", "owned"]).run().ok().stdout("m /opt/plain\n"));
}

#[test]
fn snapshots_of_several_layers_and_the_head() {
    let env = Env::filled();
    drop(env.line(&["--keep"], "touch /one").run().ok());
    drop(env.line(&["--keep"], "touch /two; rm /one").run().ok());
    drop(env.sandbox(&["diff"]).run().ok().stdout("D /one\nA /two\n"));
    drop(env.sandbox(&["diff", "postinit", "head"]).run().ok().stdout("A /two\n"));
    drop(env.sandbox(&["diff", "a", "b", "c"]).run().code(2).stdout(""));
}
