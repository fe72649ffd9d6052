//! docs/security.md names a test for each way out and for each protection. They have to be there.

use std::fs;
use std::path::{Path, PathBuf};

/// The rows of the list of ways out: one for each that is known.
const ROWS: usize = 45;

fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR").into()
}

/// The rows of the tables whose head begins with these words.
fn rows(text: &str, head: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with(&format!("| {head} ")) {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("| ---") {
            found.push(
                line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect(),
            );
        }
    }
    found
}

/// The names of tests in a cell: `group: name`, in code.
fn tests(cell: &str) -> Vec<(String, String)> {
    let code = cell.split('`').skip(1).step_by(2);
    code.filter_map(|word| word.split_once(": ")).map(|(a, b)| (a.into(), b.into())).collect()
}

/// All Rust files beneath a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// Whether a test is there. `escape: proc::name` is `fn name` in tests/escape/proc.rs; `lib: name` a function
/// somewhere in src; a name in the list of a program that is its own harness stands there as a word.
fn exists(group: &str, name: &str) -> bool {
    let package = package();
    let (module, function) = name.rsplit_once("::").unwrap_or(("", name));
    let has = |path: &Path, needle: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.contains(needle))
    };
    let needle = format!("fn {function}(");
    if group == "lib" {
        return sources(&package.join("src")).iter().any(|path| has(path, &needle));
    }
    let folder = package.join("tests").join(group);
    let quoted = format!("\"{function}\"");
    if module.is_empty() {
        return sources(&folder).iter().any(|path| has(path, &needle) || has(path, &quoted));
    }
    let module = module.replace("::", "/");
    let files =
        [folder.join(format!("{module}.rs")), folder.join("main.rs"), folder.with_extension("rs")];
    files.iter().any(|file| has(file, &needle) || has(file, &quoted))
}

#[test]
fn every_test_that_is_named_is_there() {
    let text = fs::read_to_string(package().join("docs/security.md")).unwrap();
    let escapes = rows(&text, "row");
    // After these come what no one advisory stands for.
    let numbers: Vec<_> = escapes.iter().take(ROWS).map(|row| row[0].clone()).collect();
    let expected: Vec<_> = (1..=ROWS).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected, "the rows of the list");
    let mut protections = rows(&text, "protection");
    let of_profiles = fs::read_to_string(package().join("docs/profiles.md")).unwrap();
    protections.extend(rows(&of_profiles, "protection"));
    assert!(protections.len() > 20, "{protections:?}");
    let mut missing = Vec::new();
    for (row, cell) in escapes
        .iter()
        .map(|row| (&row[0], &row[3]))
        .chain(protections.iter().map(|row| (&row[0], row.last().unwrap())))
    {
        let named = tests(cell);
        // What cannot be tried says why.
        assert!(!named.is_empty() || cell.starts_with("none: "), "row {row}: no test: {cell}");
        missing.extend(named.into_iter().filter(|(group, name)| !exists(group, name)));
    }
    assert!(missing.is_empty(), "no such test: {missing:?}");
}

/// A test of this folder that no row names would be forgotten in the results.
#[test]
fn every_escape_is_in_the_list() {
    let text = fs::read_to_string(package().join("docs/security.md")).unwrap();
    let named: Vec<_> = rows(&text, "row").iter().flat_map(|row| tests(&row[3])).collect();
    for file in sources(&package().join("tests/escape")) {
        let module = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = fs::read_to_string(&file).unwrap();
        for after in source.split("#[test]\nfn ").skip(1) {
            let name = format!("{module}::{}", after.split('(').next().unwrap());
            let found = named.iter().any(|(group, one)| group == "escape" && *one == name);
            assert!(found || module == "list", "{name} is in no row of docs/security.md");
        }
    }
}

/// A file that is in no `mod` line would never be run.
#[test]
fn no_file_is_forgotten() {
    let text = fs::read_to_string(package().join("tests/escape.rs")).unwrap();
    for file in sources(&package().join("tests/escape")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(&format!("escape/{name}")), "{name}");
    }
}
