//! Whatever changes the store does so within a `step` (`src/store/failpoint.rs`), so that the tests can make
//! it fail there.

use super::{Source, check_all};
use crate::tokens::tokens;

/// The calls that change what is on disk: system calls, and the helpers of `store/file.rs` around them.
const CHANGES: [&str; 27] = [
    "mkdirat",
    "renameat",
    "renameat_with",
    "unlinkat",
    "linkat",
    "symlinkat",
    "mknodat",
    "fsync",
    "fdatasync",
    "syncfs",
    "chmodat",
    "fchmod",
    "chownat",
    "fchown",
    "ftruncate",
    "fallocate",
    "utimensat",
    "futimens",
    "fsetxattr",
    "setxattr",
    "fremovexattr",
    "create",
    "write_all",
    "write_small",
    "unlink",
    "rmdir",
    "to_trash",
];

/// Functions that are called within a step only, or whose work may fail and nobody minds.
const PARTS: &[(&str, &str)] = &[
    // The helpers themselves, and what a step notes for the tests.
    ("store/file.rs", ""),
    ("store/mod.rs", "replace_durably"),
    ("store/failpoint.rs", "note"),
    ("store/discard.rs", "to_trash"),
    ("store/discard.rs", "remove_rest"),
    ("store/discard.rs", "empty_work"),
    ("store/discard.rs", "open_work"),
    ("store/log.rs", "append"),
    ("store/spare.rs", "make"),
    // Inside, where the step is what `reached` hears of.
    ("store/nest/take.rs", "take_tree"),
    ("store/refs/write.rs", "exchange"),
    ("store/trash.rs", "finish_one"),
    ("store/trash.rs", "remove_own"),
];

#[test]
fn what_changes_the_store_is_a_step() {
    let faults = check_all(bare_changes);
    assert!(
        faults.is_empty(),
        "calls that change the store outside of step(\"name\", || ...) (src/store/failpoint.rs); best effort ends \
         with .ok(); a part of a step is listed in tests/layering/steps.rs:\n{}",
        faults.join("\n")
    );
}

/// The calls of a file of the store that change it, are in no step, and whose failure counts.
fn bare_changes(source: &Source) -> Vec<String> {
    let path = source.path.to_string_lossy();
    if !path.starts_with("store/") || path.starts_with("store/tests/") {
        return Vec::new();
    }
    let tokens = tokens(source.text);
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1);
    let part = |name: &str| PARTS.iter().any(|(file, f)| *file == path && [name, ""].contains(f));
    let (mut faults, mut at, mut function) = (Vec::new(), 0, "");
    while at < tokens.len() {
        match word(at) {
            // Tests come last in a file, imports are no calls.
            "mod" if word(at + 1) == "tests" && word(at + 2) == "{" => break,
            "fn" => function = word(at + 1),
            "step" if word(at + 1) == "(" && word(at.saturating_sub(1)) != "fn" => {
                at = closing(&word, at + 1);
            }
            // A method is another thing, but for this one.
            name if word(at.saturating_sub(1)) == "." && name != "to_trash" => {}
            name if CHANGES.contains(&name) && word(at + 1) == "(" => {
                let definition = word(at.saturating_sub(1)) == "fn";
                let best_effort = ends_in_ok(&word, closing(&word, at + 1) + 1);
                if !definition && !best_effort && !part(function) {
                    faults.push(source.fault(tokens[at].0, &format!("{name} in {function}")));
                }
            }
            _ => {}
        }
        at += 1;
    }
    faults
}

/// Where the parenthesis is that closes the one at `open`.
fn closing<'a>(word: &impl Fn(usize) -> &'a str, open: usize) -> usize {
    let mut depth = 0_usize;
    for at in open.. {
        match word(at) {
            "(" => depth += 1,
            ")" if depth == 1 => return at,
            ")" => depth -= 1,
            "" => return at,
            _ => {}
        }
    }
    open
}

/// Whether the value of a call goes through `.ok()` and nowhere else.
fn ends_in_ok<'a>(word: &impl Fn(usize) -> &'a str, after: usize) -> bool {
    [word(after), word(after + 1), word(after + 2), word(after + 3)] == [".", "ok", "(", ")"]
}

#[test]
fn the_step_check_finds_what_it_must() {
    let verdict = |path: &str, text: &str| super::verdict(bare_changes, path, text);
    let faulty = "fn f() { let a = || fsync(&file); mkdirat(dir, \"a\")?; }";
    assert_eq!(verdict("store/runs.rs", faulty).len(), 2);
    assert_eq!(verdict("store/runs.rs", "fn f() { step(\"a\", x); file::unlink(a); }").len(), 1);
    for good in [
        "use rustix::fs::{mkdirat};\nfn f() { step(\"a\", || mkdirat(dir, f(\"b\")))?; }",
        "fn f() { file::unlink(dir, &name(x)).ok(); }",
        "fn f() { step(\"a\", || {\n fsync(&x)?;\n renameat(a, b, c, d)\n })?; }",
        "fn create(x: u8) {} #[cfg(test)] mod tests { fn f() { unlink(x) } }",
    ] {
        assert_eq!(verdict("store/runs.rs", good), Vec::<String>::new(), "{good}");
    }
    assert!(verdict("tree/copy.rs", faulty).is_empty());
    assert!(verdict("store/trash.rs", "fn finish_one() { rmdir(x)?; }").is_empty());
}
