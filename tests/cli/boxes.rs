//! Many boxes in one store: what they share, and what each has for itself.

use crate::common::{Env, Ids, ids, tree};

/// Another id mode that this user can have, whose files belong to others on disk.
fn other_ids() -> Option<&'static str> {
    match ids() {
        Ids::Subuid | Ids::Range => Some("single"),
        Ids::Identity => Some("single"),
        Ids::Single => None,
    }
}

#[test]
fn layers_of_other_owners_are_never_mixed() {
    let env = Env::filled();
    let Some(other) = other_ids() else {
        // There is one map only: every box may start from every other.
        drop(env.init(&["other", "--from", "scratch"]).run().ok());
        drop(
            env.sandbox(&["run", "-b", "other", "--from", "default/postinit", "--", "true"])
                .run()
                .ok(),
        );
        return;
    };
    drop(env.sandbox(&["init", "other", "--ids", other, "--from", "scratch"]).run().ok());
    let state = env.state();
    for after in [&["--commit", "mixed"][..], &["--keep=force"], &[]] {
        let words = ["run", "-b", "other", "--from", "default/postinit"];
        let out = env.sandbox(&words).args(after).args(["--", "true"]).run();
        drop(out.fault(
            125,
            "box default: its files belong to the ids of another map",
            "--box default",
        ));
    }
    assert_eq!(env.state(), state);
}

/// A box may be made again with other ids under the name that a kept run remembers.
#[test]
fn a_kept_run_of_other_owners_is_refused() {
    let Some(other) = other_ids() else { return };
    let env = Env::filled();
    drop(env.line(&["--keep-on-failure"], "echo x >/x; exit 1").run().code(1));
    let run = env.entries("runs").pop().unwrap();
    std::fs::remove_dir_all(env.base().join("boxes/default")).unwrap();
    drop(env.sandbox(&["init", "--ids", other, "--from", "scratch"]).run().ok());
    let what = format!("run {run}: its files belong to the ids of another map");
    let project = env.folder("project");
    drop(env.sandbox(&["shell", "--run", &run]).dir(&project).run().fault(125, &what, ""));
    drop(env.sandbox(&["recover", &run, "--as", "x"]).run().fault(4, &what, ""));
    env.drop_kept(&[&run]);
}

#[test]
fn boxes_are_listed_and_shown() {
    let env = Env::filled();
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    drop(env.line(&["-b", "other", "--commit", "more"], "true").run().code(127));
    let list = env.json(&["box", "list"]);
    let names: Vec<_> = list["boxes"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["default", "other"]);
    assert_eq!(list["boxes"][0]["snapshots"], 1);
    assert_eq!(list["boxes"][1]["source"], "scratch");
    assert_eq!(list["boxes"][1]["ids"], ids().name());
    assert!(list.get("damaged").is_none());
    let out = env.sandbox(&["box", "list"]).run().ok().stderr("");
    drop(out.says("BOX      SNAPSHOTS  HEAD").says("scratch"));
    let shown = env.json(&["box", "show", "other"]);
    assert_eq!(shown["name"], "other");
    assert_eq!(shown["head"], env.json(&["-b", "other", "show"])["layer"]);
    assert_eq!(shown["caches"].as_array().unwrap().len(), 0);
    drop(env.sandbox(&["box", "show"]).run().ok().says("box:       default"));
    drop(env.sandbox(&["box", "show", "nobox"]).run().fault(3, "nobox", "sandbox init nobox"));
    drop(env.sandbox(&["box", "set", "nobox", "user=0"]).run().fault(3, "nobox", "sandbox init"));
    drop(env.sandbox(&["box", "show", "../x"]).run().code(2).stdout(""));
    let none = Env::empty();
    drop(none.sandbox(&["box", "list"]).run().fault(3, "there is none yet", "sandbox init"));
}

/// Flag before box before profile.
#[test]
fn a_run_starts_from_the_settings_of_its_box() {
    let env = Env::filled();
    let host = env.folder("host");
    env.file("host/word", "hello");
    let bind = format!("bind={host}:/srv/host");
    let words = ["box", "set", "env=A=1", "env=B=two words", &bind, "max_age=1d"];
    let out = env.sandbox(&words).run().ok().stderr("");
    drop(out.says("env=B=two words\n").says("max_age=86400s\n"));
    let line = "echo \"$A|$B|$(cat /srv/host/word)|$(id -u)\"";
    drop(env.line(&[], line).run().ok().stdout("1|two words|hello|0\n"));
    drop(env.line(&["-e", "A=9"], line).run().ok().stdout("9|two words|hello|0\n"));
    // A bind that is typed takes the place of the box's, whose source may then be gone.
    let other = env.folder("other");
    env.file("other/word", "other");
    let typed = format!("{other}:/srv/host");
    drop(env.line(&["--bind", &typed], line).run().ok().stdout("1|two words|other|0\n"));
    std::fs::remove_dir_all(&host).unwrap();
    drop(env.line(&["--bind", &typed], line).run().ok().stdout("1|two words|other|0\n"));
    let out = env.line(&[], line).run();
    drop(out.fault(125, "/srv/host:ro of box default: look at: ", "box set default bind-="));
    // Another box has none of it.
    drop(env.init(&["second", "--from", &crate::common::tree::tiny_source()]).run().ok());
    drop(env.line(&["-b", "second"], "echo \"${A-none}\"").run().ok().stdout("none\n"));
    drop(env.sandbox(&["box", "set", "bind-=/srv/host", "--unset", "env"]).run().ok());
    drop(env.line(&[], "echo \"${A-none}\"").run().ok().stdout("none\n"));
    let settings = &env.json(&["box", "show"])["settings"];
    assert_eq!(settings["max_age"], 86_400);
    assert_eq!(settings["binds"].as_array().unwrap().len(), 0);
}

#[test]
fn profile_and_user_of_a_box() {
    let env = Env::filled();
    drop(env.sandbox(&["box", "set", "profile=strict"]).run().ok().stdout("profile=strict\n"));
    let plan = |flags: &[&str]| {
        let words = env.sandbox(&["run", "--json", "--dry-run"]).args(flags);
        words.args(["--", "true"]).run().ok().json()
    };
    let caps = "grep CapEff /proc/self/status";
    if ids() == Ids::Identity {
        // No boundary there, so strict refuses: the setting holds.
        drop(env.line(&[], caps).run().fault(125, "strict", ""));
    } else {
        drop(env.line(&[], caps).run().ok().stdout("CapEff:\t0000000000000000\n"));
        let plan = plan(&[]);
        assert_eq!(plan["capabilities"].as_array().unwrap().len(), 0);
    }
    let plan = plan(&["--profile", "build"]);
    assert_ne!(plan["capabilities"].as_array().unwrap().len(), 0);
    drop(
        env.sandbox(&["box", "set", "--unset", "profile"])
            .run()
            .ok()
            .stdout("box default: nothing is set\n"),
    );
    if ids().many() {
        drop(env.sandbox(&["box", "set", "user=daemon"]).run().ok());
        drop(env.line(&[], "id -u").run().ok().stdout("1\n"));
        drop(env.line(&["--user", "0"], "id -u").run().ok().stdout("0\n"));
    } else {
        drop(env.sandbox(&["box", "set", "user=1"]).run().fault(2, "the id map", ""));
    }
}

#[test]
fn settings_that_cannot_be_are_refused_and_change_nothing() {
    let env = Env::filled();
    let file = env.base().join("boxes/default/box.json");
    let before = std::fs::read(&file).unwrap();
    for (word, why) in [
        ("profile=nope", "no such profile"),
        ("bind=/a:b", "not an absolute path inside"),
        ("user=a b", "user"),
        ("colour=red", "no such setting"),
        ("env=A", "NAME=VALUE"),
        ("max_age=soon", "unknown unit"),
    ] {
        drop(env.sandbox(&["box", "set", "env=GOOD=1", word]).run().fault(2, why, ""));
    }
    drop(env.sandbox(&["box", "set"]).run().fault(2, "nothing to set", "--unset KEY"));
    drop(env.sandbox(&["box", "set", "--unset", "colour"]).run().code(2).warns("colour"));
    drop(env.sandbox(&["box"]).run().code(2).stdout(""));
    let twice = ["box", "set", "default", "--box", "default", "env=A=1"];
    drop(env.sandbox(&twice).run().fault(2, "the box is named twice", ""));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// A damaged box names its file and the way out, and is nobody else's trouble.
#[test]
fn one_damaged_box_does_not_stand_in_the_way_of_others() {
    let env = Env::filled();
    drop(env.init(&["broken", "--from", "scratch"]).run().ok());
    std::fs::write(env.base().join("boxes/broken/box.json"), "{\"name\":").unwrap();
    let file = "boxes/broken/box.json";
    let hint = "sandbox scrub broken --all";
    for words in [&["box", "show", "broken"][..], &["box", "set", "broken", "user=0"]] {
        drop(env.sandbox(words).run().fault(7, file, hint));
    }
    drop(env.sandbox(&["-b", "broken", "run", "--", "true"]).run().fault(125, file, hint));
    let out = env.sandbox(&["box", "list"]).run().code(7);
    drop(out.says("default").warns(file).warns(hint));
    let json = env.sandbox(&["box", "list", "--json"]).run().code(7).json();
    assert_eq!(json["boxes"].as_array().unwrap().len(), 1);
    assert_eq!(json["damaged"][0]["box"], "broken");
    assert_eq!(json["damaged"][0]["error"]["kind"], "damaged");
    // Others go on, and what they throw away is emptied.
    drop(env.line(&["--commit", "x"], "touch /x").run().ok());
    drop(env.line(&[], "touch /y").run().ok());
}

#[test]
fn the_snapshots_of_all_boxes() {
    let env = Env::filled();
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    drop(env.line(&["--commit", "more"], "touch /x").run().ok());
    let all = env.json(&["list", "--all-boxes"]);
    let own = env.json(&["list"]);
    assert_eq!(all["boxes"][0], own, "each is as `list` shows it");
    assert_eq!(all["boxes"][1]["box"], "other");
    assert!(all.get("damaged").is_none());
    let out = env.sandbox(&["list", "--all-boxes"]).run().ok().stderr("");
    drop(out.says("box default:\nNAME").says("more").says("\n\nbox other:\nNAME"));
    drop(env.sandbox(&["list", "--all-boxes", "-b", "other"]).run().code(2).stdout(""));
    // A ref that cannot be read damages its box only.
    std::fs::write(env.base().join("boxes/other/refs/postinit"), "{").unwrap();
    let out = env.sandbox(&["list", "--all-boxes"]).run().code(7);
    drop(out.says("more").warns("boxes/other/refs/postinit"));
    let json = env.sandbox(&["list", "--all-boxes", "--json"]).run().code(7).json();
    assert_eq!(json["boxes"], serde_json::json!([own]));
    assert_eq!(json["damaged"][0]["box"], "other");
    // Something foreign among the boxes, too.
    std::fs::write(env.base().join("boxes/other/refs/postinit"), "").unwrap();
    std::fs::create_dir(env.base().join("boxes/_foreign")).unwrap();
    let json = env.sandbox(&["box", "list", "--json"]).run().code(7).json();
    assert_eq!(json["damaged"][0]["box"], "_foreign");
    assert_eq!(json["boxes"].as_array().unwrap().len(), 2);
    std::fs::remove_dir(env.base().join("boxes/_foreign")).unwrap();
}

/// Changes the file of what was listed last.
fn remember(env: &Env, change: impl Fn(&str) -> String) {
    let file = env.base().join("cache/listing.json");
    let text = std::fs::read_to_string(&file).expect("what was listed");
    let changed = change(&text);
    assert_ne!(text, changed);
    std::fs::write(file, changed).expect("write");
}

/// A change gives the directory of a box's names a new time, and what is that old is as it was listed.
#[test]
fn what_was_listed_is_used_until_it_changes() {
    let env = Env::filled();
    let line = |words: &[&str]| env.sandbox(words).run().ok();
    drop(env.init(&["other", "--from", "scratch"]).run().ok());
    drop(env.line(&["--commit", "one"], "echo 1 >/one").run().ok());
    drop(line(&["snapshot", "one", "-m", "said", "--force"]));
    let all = || env.json(&["list", "--all-boxes"]);
    let said = || {
        let all = all();
        let snapshots = all["boxes"][0]["snapshots"].as_array().unwrap().iter();
        snapshots.filter_map(|one| one["message"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let fresh = all();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(all(), fresh);
    assert_eq!(all(), fresh);
    // It is really used.
    remember(&env, |text| text.replace("\"said\"", "\"remembered\""));
    assert_eq!(said(), ["remembered"]);
    // Each box for itself: a change in one makes that one be read.
    drop(line(&["snapshot", "two", "-b", "other"]));
    assert_eq!(said(), ["remembered"]);
    assert_eq!(all()["boxes"][1]["snapshots"].as_array().unwrap().len(), 2);
    for change in [&["snapshot", "two"][..], &["rename", "two", "deux"], &["rm", "deux"], &["undo"]]
    {
        drop(line(change));
        assert_eq!(said(), ["said"], "{change:?}");
        let names = env.snapshots();
        let listed = all();
        let listed = listed["boxes"][0]["snapshots"].as_array().unwrap().clone();
        assert_eq!(
            listed.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(),
            names
        );
    }
    // Head is read each time.
    drop(line(&["rollback", "postinit"]));
    assert_eq!(all()["boxes"][0]["head"], env.json(&["show", "postinit"])["layer"]);
    std::thread::sleep(std::time::Duration::from_secs(4));
    let fresh = all();
    // Of another start of the machine, torn, or of nothing: it is not believed, and made again.
    remember(&env, |text| text.replace("\"boot\":\"", "\"boot\":\"x").replace("said", "wrong"));
    assert_eq!(all(), fresh);
    remember(&env, |text| text[..text.len() / 2].to_owned());
    assert_eq!(all(), fresh);
    remember(&env, |_| "{}".to_owned());
    assert_eq!(all(), fresh);
    remember(&env, |text| text.replace("\"said\"", "\"remembered\""));
    assert_eq!(said(), ["remembered"]);
    // A box that is gone is forgotten, and what a repair writes anew is read.
    drop(line(&["scrub", "-b", "other", "--all", "--force"]));
    assert_eq!(all()["boxes"].as_array().unwrap().len(), 1);
    let text = std::fs::read_to_string(env.base().join("cache/listing.json")).unwrap();
    assert!(!text.contains("other"), "{text}");
    drop(line(&["fsck", "--seal"]));
    let record = env.layer("one").parent().unwrap().join("layer.json");
    let whole = std::fs::read_to_string(&record).unwrap();
    let bytes = serde_json::from_str::<serde_json::Value>(&whole).unwrap()["own_bytes"].to_string();
    let (right, wrong) = (format!("\"own_bytes\":{bytes}"), "\"own_bytes\":777");
    std::fs::write(&record, whole.replace(&right, wrong)).unwrap();
    drop(env.sandbox(&["fsck"]).run().code(7));
    remember(&env, |text| text.replace(&right, wrong));
    drop(env.sandbox(&["fsck", "--repair"]).run().code(0));
    assert!(!env.entries("cache").iter().any(|name| name == "listing.json"));
    assert_eq!(all()["boxes"][0]["snapshots"], env.json(&["list"])["snapshots"]);
    // What somebody has taken away is found all the same.
    tree::remove(env.layer("one").parent().unwrap());
    drop(env.sandbox(&["list", "--all-boxes"]).run().code(7).warns("it is missing"));
    drop(env.sandbox(&["fsck", "--repair"]).run().code(0));
    drop(line(&["gc", "--all"]));
}
