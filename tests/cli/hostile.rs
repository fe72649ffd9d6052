//! What is typed, and around us, as nobody would who means well: every answer is one line, a hint, and the right code.

use crate::common::Env;

/// Two line breaks, which would pass for a paragraph, and what drives a terminal.
const ODD: &str = "a\n\nUsage: x\u{1b}[31mred";

#[test]
fn what_was_typed_is_repeated_escaped() {
    let env = Env::filled();
    for (code, words) in [
        (2, &["list", "--odd"][..]),
        (2, &["show", ODD]),
        (2, &["--box", ODD, "list"]),
        (2, &["list", "--color", ODD]),
        (2, &[ODD]),
        (2, &["init", "--from", "oci:\n"]),
        (125, &["run", "--net", ODD, "--", "true"]),
        (125, &["run", "--timeout", ODD, "--", "true"]),
        (125, &["run", "--commit", ODD, "--", "true"]),
        (125, &["run", "--bind", ODD, "--", "true"]),
        (125, &["run", "--bind", &format!("/:{ODD}"), "--", "true"]),
        (125, &["run", "--profile", ODD, "--", "true"]),
        (125, &["run", "--workdir", &format!("/{ODD}"), "--", "true"]),
        (125, &["run", "--report", &format!("/nosuch/{ODD}"), "--", "true"]),
    ] {
        let out = env.sandbox(words).run().code(code).stdout("");
        let errors = out.errors();
        let first = errors.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("sandbox: ") && !errors.contains('\u{1b}'),
            "{words:?}: {errors}"
        );
        // After the line and its hint there is nothing but clap's usage.
        let rest: Vec<_> = errors.lines().skip(1).filter(|line| !line.is_empty()).collect();
        let known = |line: &&str| line.starts_with("hint: ") || line.starts_with("Usage: sandbox ");
        assert!(
            rest.iter().all(known) || rest.last().is_some_and(|line| line.starts_with("  ")),
            "{words:?}: {errors}"
        );
        assert!(!rest.iter().any(|line| line.starts_with("Usage: x")), "{words:?}: {errors}");
    }
}

#[test]
fn a_box_that_is_not_there_is_told_by_every_command() {
    let env = Env::filled();
    for words in [
        &["gc"][..],
        &["gc", "--dry-run"],
        &["df"],
        &["fsck"],
        &["ps"],
        &["list"],
        &["list", "--all-boxes"],
        &["box", "list"],
        &["log"],
        &["undo"],
    ] {
        let words = [&["--box", "nosuch"], words].concat();
        drop(env.sandbox(&words).run().fault(3, "nosuch: there is no such box", "sandbox"));
        // A default is for those commands that have a use for it.
        let out = env.sandbox(&words[2..]).env("SANDBOX_BOX", "default").run();
        assert!(out.errors().is_empty() || words[2] == "undo", "{words:?}: {out:?}");
    }
}
