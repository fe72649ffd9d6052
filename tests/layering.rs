//! The shape of the source is kept by a test: imports go down the list of folders only, `unsafe` stays in
//! `src/sys`, no file outgrows what can be read at one sitting, and what changes the store is a step that a
//! test can make fail (`layering/steps.rs`).

#[path = "layering/steps.rs"]
mod steps;
#[path = "layering/tokens.rs"]
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use tokens::tokens;

/// The folders of `src`, from the top down. A folder uses itself and what stands after it.
const LAYERS: [&str; 12] = [
    "cli", "ops", "image", "run", "isolate", "rootfs", "store", "tree", "ids", "sys", "remedy",
    "fault",
];

/// The longest a source file may be.
const MOST_LINES: usize = 400;

#[test]
fn imports_go_down_only() {
    let faults = check_all(imports);
    assert!(faults.is_empty(), "imports that go up:\n{}", faults.join("\n"));
}

#[test]
fn unsafe_stays_in_sys() {
    let faults = check_all(unsafe_code);
    assert!(faults.is_empty(), "unsafe outside src/sys:\n{}", faults.join("\n"));
}

#[test]
fn files_stay_short() {
    let faults = check_all(length);
    assert!(faults.is_empty(), "files over {MOST_LINES} lines:\n{}", faults.join("\n"));
}

/// What a machine can do is tried when somebody asks for it: no run waits for that, and none relies on what was found once.
#[test]
fn only_doctor_tries() {
    let faults = check_all(tries);
    assert!(faults.is_empty(), "the tries of doctor outside of it:\n{}", faults.join("\n"));
}

/// A source file: its path below `src` and its text.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    /// The modules that its own folder has, which `super::NAME` may mean.
    siblings: &'a [String],
}

impl Source<'_> {
    /// The folder the file belongs to; for `fault.rs` itself that is `fault`.
    fn layer(&self) -> String {
        let first = self.path.iter().next().expect("a path below src is not empty");
        Path::new(first).with_extension("").to_string_lossy().into_owned()
    }

    /// `src/lib.rs` and `src/main.rs` stand above all folders.
    fn is_root(&self) -> bool {
        matches!(self.layer().as_str(), "lib" | "main")
    }

    fn fault(&self, line: usize, what: &str) -> String {
        format!("src/{}:{line}: {what}", self.path.display())
    }
}

/// Runs `check` on every file of `src`; gives the faults of all.
fn check_all(check: fn(&Source) -> Vec<String>) -> Vec<String> {
    // At run time, because the test may run beside a copy of the sources; the compiled-in path otherwise.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = package.join("src");
    let mut files = Vec::new();
    list(&root, &mut files);
    assert!(files.len() > 2, "no sources in {}", root.display());
    files.sort();
    let mut faults = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a source file is readable");
        let path = file.strip_prefix(&root).expect("it was listed below src");
        let siblings = if path.iter().count() > 1 { modules(file) } else { Vec::new() };
        faults.extend(check(&Source { path, text: &text, siblings: &siblings }));
    }
    faults
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// The names of the modules in the folder of `file`.
fn modules(file: &Path) -> Vec<String> {
    fs::read_dir(file.parent().expect("a file has a folder"))
        .expect("src is readable")
        .map(|entry| entry.expect("src is readable").path())
        .map(|path| path.with_extension("").file_name().expect("it has a name").to_owned())
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// The imports of a file that do not go down.
fn imports(source: &Source) -> Vec<String> {
    if source.is_root() {
        return Vec::new();
    }
    let layer = source.layer();
    let Some(own) = LAYERS.iter().position(|name| *name == layer) else {
        return vec![source.fault(1, &format!("{layer} is none of {LAYERS:?}"))];
    };
    let tokens = tokens(source.text);
    let mut faults = Vec::new();
    for (line, name) in uses(&tokens, source.siblings) {
        match LAYERS.iter().position(|layer| *layer == name) {
            Some(used) if used >= own => {}
            Some(_) => faults.push(source.fault(line, &format!("{layer} must not use {name}"))),
            None => faults.push(source.fault(line, &format!("crate::{name} is no folder"))),
        }
    }
    faults
}

/// The top-level modules that a file names, with their lines: `crate::a`, `use crate::{a, b::{c}}`, and
/// `super::a` where `a` is a folder of `src` and no module beside the file.
fn uses<'a>(tokens: &[(usize, &'a str)], siblings: &[String]) -> Vec<(usize, &'a str)> {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if word(at + 1) != "::" || (at > 0 && word(at - 1) == "::") {
            continue;
        }
        let mut next = at + 2;
        let up = word(at) == "super";
        while up && word(next) == "super" && word(next + 1) == "::" {
            next += 2;
        }
        if !up && word(at) != "crate" {
            continue;
        }
        let named = |name: &str| {
            !up || (LAYERS.contains(&name) && !siblings.iter().any(|sibling| sibling == name))
        };
        if word(next) != "{" {
            // `crate::name!` is a macro, which has no folder.
            if named(word(next)) && word(next + 1) != "!" {
                found.push((tokens[at].0, word(next)));
            }
            continue;
        }
        let mut depth = 0;
        let mut first = false;
        while let Some(&(line, text)) = tokens.get(next) {
            match text {
                "{" => {
                    depth += 1;
                    first = depth == 1;
                }
                "}" => depth -= 1,
                "," => first = depth == 1,
                name if first => {
                    first = false;
                    if named(name) {
                        found.push((line, name));
                    }
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            next += 1;
        }
    }
    found
}

/// The uses of `unsafe` outside `src/sys`.
fn unsafe_code(source: &Source) -> Vec<String> {
    if source.layer() == "sys" {
        return Vec::new();
    }
    let tokens = tokens(source.text);
    let hits = tokens.iter().filter(|(_, text)| *text == "unsafe");
    hits.map(|(line, _)| source.fault(*line, "unsafe")).collect()
}

/// The uses of `ops::doctor` outside of the command.
fn tries(source: &Source) -> Vec<String> {
    let path = source.path;
    let homes = ["ops/doctor.rs", "cli/doctor.rs", "ops/mod.rs", "cli/mod.rs"];
    if path.starts_with("ops/doctor") || homes.iter().any(|home| path == Path::new(home)) {
        return Vec::new();
    }
    let tokens = tokens(source.text);
    let hits = tokens.iter().filter(|(_, text)| *text == "doctor");
    hits.map(|(line, _)| source.fault(*line, "doctor")).collect()
}

/// A file that is too long.
fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines > MOST_LINES { vec![source.fault(lines, "too long")] } else { Vec::new() }
}

/// What `check` says of a text, for the tests of the checks themselves.
fn verdict(check: fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
    check(&Source { path: Path::new(path), text, siblings: &["here".to_owned()] })
}

#[test]
fn the_import_check_finds_what_it_must() {
    for (path, text) in [
        ("tree/walk.rs", "use crate::store::Store;"),
        ("tree/walk.rs", "use crate::{fault::Fault, store::Store};"),
        ("tree/walk.rs", "use crate::{\n    sys::{self, fs::{openat2, statx}},\n    run,\n};"),
        ("tree/walk.rs", "pub(crate) use crate ::\n cli as other;"),
        ("tree/walk.rs", "fn f() { let x = crate::ops::run::start(1); }"),
        ("tree/walk.rs", "fn f(s: &'static str) -> crate::image::Source { x }"),
        ("tree/walk.rs", "const Q: char = '\"'; use crate::run; // \""),
        ("tree/walk.rs", "const Q: &str = r#\"a\"b\"#; use crate::run;"),
        ("tree/walk.rs", "use super::super::store::Store;"),
        ("tree/walk.rs", "use super::{walk, store};"),
        ("tree/walk.rs", "use crate::*;"),
        ("fault.rs", "use crate::sys::Errno;"),
        ("sys/mod.rs", "macro_rules! m { () => { $crate::ids::x() } }"),
        ("helpers/mod.rs", ""),
    ] {
        assert_eq!(verdict(imports, path, text).len(), 1, "{path}: {text}");
    }
    let both = verdict(imports, "ids/map.rs", "use crate::{\n  tree,\n  sys,\n  store::x,\n};");
    assert_eq!(
        both,
        ["src/ids/map.rs:2: ids must not use tree", "src/ids/map.rs:4: ids must not use store"]
    );
}

#[test]
fn the_import_check_lets_pass_what_it_must() {
    for (path, text) in [
        ("tree/walk.rs", "use crate::sys::fs; use crate::tree::entry; use crate::fault::Fault;"),
        ("tree/walk.rs", "use crate::{ids::IdMap, sys::{fs, mount}};"),
        ("tree/walk.rs", "//! See [`crate::store`].\n/* crate::run /* crate::cli */ crate::ops */"),
        ("tree/walk.rs", "const A: &str = \"crate::store\"; const B: &str = r\"crate::run\";"),
        ("tree/walk.rs", "const A: &[u8] = b\"\\\"crate::run\"; const C: char = '\\'';"),
        ("tree/walk.rs", "use super::entry; use super::here; mod tests { use super::*; }"),
        ("tree/walk.rs", "use other::crate_name::store; use rustix::run::x; crate::say!(1);"),
        ("cli/mod.rs", "use crate::{fault, ops, sys, store};"),
        ("lib.rs", "pub use crate::cli::main;"),
    ] {
        assert_eq!(verdict(imports, path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn the_other_checks_find_what_they_must() {
    assert_eq!(
        verdict(unsafe_code, "run/init.rs", "\n unsafe { x() }"),
        ["src/run/init.rs:2: unsafe"]
    );
    assert_eq!(verdict(unsafe_code, "run/init.rs", "unsafe extern \"C\" {}").len(), 1);
    assert!(
        verdict(unsafe_code, "run/init.rs", "// unsafe\n#![deny(unsafe_code)] \"unsafe\"")
            .is_empty()
    );
    assert!(verdict(unsafe_code, "sys/process.rs", "unsafe { x() }").is_empty());
    assert_eq!(verdict(tries, "ops/run.rs", "use super::doctor::probes;").len(), 1);
    assert!(verdict(tries, "ops/run.rs", "// doctor\n const A: &str = \"doctor\";").is_empty());
    assert!(verdict(tries, "ops/doctor/calls.rs", "use super::doctor;").is_empty());
    assert_eq!(verdict(length, "run/init.rs", &"x\n".repeat(MOST_LINES + 1)).len(), 1);
    assert!(verdict(length, "run/init.rs", &"x\n".repeat(MOST_LINES)).is_empty());
}
