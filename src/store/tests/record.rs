//! What a box says of itself, changed by several.

use std::fs;

use super::*;

#[test]
fn settings_are_written_whole_and_read_again() {
    let (_folder, store) = store();
    let mut first = make_box(&store, "first").expect("box");
    let lock = store.lock_shared().expect("lock");
    first
        .update_settings(&lock, |settings| {
            settings.env.push("A=1".into());
            settings.max_age = Some(60);
            Ok(())
        })
        .expect("set");
    assert_eq!(first.record().settings.env, ["A=1"]);
    let again = store.box_record(&box_name("first")).expect("record");
    assert_eq!(&again, first.record());
    assert_eq!(garbage(&store), Vec::<String>::new());
    // Two that opened the box before either wrote: both changes are there.
    let mut other = store.open_box(&box_name("first")).expect("box");
    for (opened, text) in [(&mut first, "B=2"), (&mut other, "C=3")] {
        let add = |settings: &mut BoxSettings| {
            settings.env.push(text.into());
            Ok(())
        };
        opened.update_settings(&lock, add).expect("set");
    }
    let again = store.box_record(&box_name("first")).expect("record");
    assert_eq!(again.settings.env, ["A=1", "B=2", "C=3"]);
}

#[test]
fn a_refused_change_changes_nothing() {
    let (_folder, store) = store();
    let mut first = make_box(&store, "first").expect("box");
    let file = store.path().join("boxes/first/box.json");
    let before = fs::metadata(&file).expect("record");
    let lock = store.lock_shared().expect("lock");
    let refused: Result<()> = first.update_settings(&lock, |settings| {
        settings.user = Some("1".into());
        Err(Fault::usage("no"))
    });
    assert!(refused.is_err());
    assert_eq!(first.record().settings, BoxSettings::default());
    // Neither does a change to what is there already.
    first.update_settings(&lock, |_| Ok(())).expect("set");
    let after = fs::metadata(&file).expect("record");
    let inode = |found: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(found);
    assert_eq!(inode(&before), inode(&after));
    // A box that was removed meanwhile is not written again.
    store.remove_box(&lock, &box_name("first")).expect("remove");
    let gone = first.update_settings(&lock, |settings| {
        settings.env.clear();
        Ok(())
    });
    assert_eq!(gone.expect_err("gone").kind, crate::fault::Kind::NotFound);
    assert_eq!(store.box_names().expect("names"), []);
}
