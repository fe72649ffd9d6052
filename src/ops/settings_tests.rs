use super::*;
use crate::fault::Kind;
use crate::ids::{Extent, Mode};

fn map() -> IdMap {
    let one = || vec![Extent { inside: 0, outside: 1000, count: 1 }];
    IdMap::new(Mode::Single, one(), one()).expect("map")
}

fn applied(settings: &BoxSettings, words: &[&str]) -> Result<BoxSettings> {
    let edits = words.iter().map(|word| word.parse()).collect::<Result<Vec<Edit>>>()?;
    let mut new = settings.clone();
    apply(&mut new, &edits, &map())?;
    Ok(new)
}

#[test]
fn values_are_set_added_and_taken_away() {
    let none = BoxSettings::default();
    let words =
        ["profile=strict", "env=A=1", "env=B=x=y", "user=0:0", "max_age=7d", "undo_size=1M"];
    let all = applied(&none, &words).expect("set");
    assert_eq!(
        lines(&all),
        [
            "profile=strict",
            "env=A=1",
            "env=B=x=y",
            "user=0:0",
            "undo_size=1048576",
            "max_age=604800s"
        ]
    );
    // As it would be typed: it reads back as the same.
    let typed = lines(&all);
    let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
    assert_eq!(applied(&none, &typed).expect("again"), all);
    let added = applied(&all, &["env+=C=3", "env+=A=9", "env-=B"]).expect("add");
    assert_eq!(added.env, ["A=9", "C=3"]);
    assert_eq!(applied(&all, &["env=Z="]).expect("set").env, ["Z="]);
    let mut gone = all.clone();
    for (_, key) in KEYS {
        apply(&mut gone, &[Edit::Unset(key)], &map()).expect("unset");
    }
    assert_eq!(gone, none);
}

#[test]
fn binds_are_absolute_and_known_by_their_target() {
    let none = BoxSettings::default();
    let here = std::env::current_dir().expect("here");
    let bound = applied(&none, &["bind=src:/src:rw", "bind+=/data"]).expect("bind");
    assert_eq!(bound.binds, [format!("{}/src:/src:rw", here.display()), "/data:/data:ro".into()]);
    let moved = applied(&bound, &["bind+=/other:/src", "bind-=/data"]).expect("bind");
    assert_eq!(moved.binds, ["/other:/src:ro"]);
    assert_eq!(applied(&none, &["copy_up=/var/lib/rpm/"]).expect("path").copy_up, ["/var/lib/rpm"]);
}

#[test]
fn what_cannot_be_is_refused_as_usage() {
    let cases = [
        ("profile", "not KEY=VALUE"),
        ("colour=red", "no such setting"),
        ("profile=nope", "no such profile"),
        ("profile=", "no such profile"),
        ("profile=/nonexistent.json", "no such file"),
        ("profile+=build", "not a list"),
        ("user-=0", "not a list"),
        ("env=A", "NAME=VALUE"),
        ("env==1", "NAME=VALUE"),
        ("env-=A", "not in the list"),
        ("user=", "user"),
        ("user=a b", "user"),
        ("user=1000", "the id map"),
        ("bind=/a:/b:/c", "SRC:DST:MODE"),
        ("bind=/a:b", "absolute"),
        ("bind=", "empty"),
        ("copy_up=var", "absolute"),
        ("touch_rpmdb=yes", "always, mapped or never"),
        ("copy_up=/a/../b", "`..`"),
        ("max_age=soon", "unknown unit"),
        ("max_age=1w", "unknown unit"),
        ("undo_age=0", "more than 0"),
        ("undo_size=much", "unknown unit"),
    ];
    let none = BoxSettings::default();
    for (word, why) in cases {
        let fault = applied(&none, &[word]).expect_err(word);
        assert_eq!(fault.kind, Kind::Usage, "{word}: {fault}");
        assert!(fault.message.contains(why), "{word}: {fault}");
    }
}
