//! profiles/docker-nested.json is Docker's default and one rule more.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::common::Env;

fn profile(path: &str) -> Value {
    let package = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let text = fs::read_to_string(format!("{package}/{path}")).expect(path);
    serde_json::from_str(&text).expect(path)
}

/// The calls that are allowed to everybody, whatever the arguments.
fn allowed(profile: &Value) -> BTreeSet<String> {
    let rules = profile["syscalls"].as_array().expect("rules").iter();
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let free = rules.filter(|rule| {
        rule["action"] == "SCMP_ACT_ALLOW"
            && ["args", "includes", "excludes"].iter().all(|key| empty(&rule[key]))
    });
    let names = free.flat_map(|rule| rule["names"].as_array().expect("names"));
    names.map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// The program prints the very file.
#[test]
fn it_is_in_the_program() {
    let said = Env::empty().sandbox(&["doctor", "--docker-profile"]).run().ok();
    let said: Value = serde_json::from_str(&said.text()).expect("json");
    assert_eq!(said, profile("profiles/docker-nested.json"));
}

/// What is added is what makes namespaces and mounts, and nothing else. clone3 stays as it is (ENOSYS), because a
/// filter cannot see its flags.
#[test]
fn it_adds_what_a_run_needs_and_nothing_else() {
    let default = profile("tests/fixtures/docker-default.json");
    let mut ours = profile("profiles/docker-nested.json");
    let (before, after) = (allowed(&default), allowed(&ours));
    let added: Vec<_> = after.difference(&before).map(String::as_str).collect();
    let wanted = "clone fsconfig fsmount fsopen mount mount_setattr move_mount open_tree pivot_root \
                  sethostname setns umount2 unshare";
    assert_eq!(added.join(" "), wanted);
    assert!(before.is_subset(&after));
    // Without that rule it is the default.
    ours["syscalls"].as_array_mut().expect("rules").remove(0);
    assert_eq!(ours, default);
}
