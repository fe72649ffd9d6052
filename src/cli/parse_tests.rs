use super::*;

fn os(text: &str) -> OsString {
    OsString::from(text)
}

#[test]
fn caches_and_outs() {
    assert_eq!(cache(OsStr::new("apt:/var/cache/apt")).unwrap().0, "apt");
    for bad in ["apt", "apt:rel", ":/x", "../x:/x", "a/b:/x", ".a:/x", "a:/x:/y"] {
        assert!(cache(OsStr::new(bad)).is_err(), "{bad}");
    }
    let (path, dir) = out(OsStr::new("/root/rpmbuild:/tmp/out")).unwrap();
    assert_eq!((path.to_str(), dir.to_str()), (Some("/root/rpmbuild"), Some("/tmp/out")));
    for bad in ["/x", "x:/y", "/x:", "/:/y"] {
        assert!(out(OsStr::new(bad)).is_err(), "{bad}");
    }
}

#[test]
fn memory_has_options() {
    let read = |text: &str| tmpfs(OsStr::new(text));
    let plain = |target: &str| Memory { target: target.into(), size: None, mode: 0o1777 };
    assert_eq!(read("/x").unwrap(), plain("/x"));
    assert_eq!(read("/a\\:b").unwrap(), plain("/a:b"));
    assert_eq!(read("/x:rw,exec").unwrap(), plain("/x"));
    let wanted = Memory { size: Some(1 << 20), mode: 0o750, ..plain("/x") };
    assert_eq!(read("/x:size=1M,mode=750").unwrap(), wanted);
    for bad in [
        "",
        "x",
        "/x:",
        "/x:ro",
        "/x:size",
        "/x:size=",
        "/x:size=0",
        "/x:mode=8",
        "/x:mode=+7",
        "/x:mode=17777",
        "/a:b:c",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn uppers() {
    assert!(matches!(upper("disk"), Ok(Upper::Disk)));
    assert!(matches!(upper("tmpfs"), Ok(Upper::Tmpfs(None))));
    assert!(matches!(upper("tmpfs:1G"), Ok(Upper::Tmpfs(Some(0x4000_0000)))));
    for bad in ["", "disk:1G", "tmpfs:", "ram", "tmpfs:0"] {
        assert!(upper(bad).is_err(), "{bad}");
    }
}

#[test]
fn hostnames() {
    for good in ["a", "build-1.example.org", "x_y", &"a".repeat(64)] {
        assert!(hostname(good).is_ok(), "{good}");
    }
    for bad in ["", "-a", ".a", "a b", "a\nb", "ä", &"a".repeat(65)] {
        assert!(hostname(bad).is_err(), "{bad}");
    }
}

#[test]
fn variables() {
    let caller = |key: &OsStr| (key == "LANG").then(|| os("C"));
    let cases: &[(&str, Option<Option<(&str, &str)>>)] = &[
        ("A=b", Some(Some(("A", "b")))),
        ("A=", Some(Some(("A", "")))),
        ("A=b=c d", Some(Some(("A", "b=c d")))),
        ("LANG", Some(Some(("LANG", "C")))),
        ("MISSING", Some(None)),
        ("", None),
        ("=b", None),
        ("A B=c", None),
    ];
    for (text, expected) in cases {
        let found = env(OsStr::new(text), caller).ok();
        let expected = expected.map(|pair| pair.map(|(key, value)| (os(key), os(value))));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn variable_files() {
    let caller = |key: &OsStr| (key == "LANG").then(|| os("C"));
    let cases: &[(&str, Option<&[(&str, &str)]>)] = &[
        ("", Some(&[])),
        ("A=1\nB=2", Some(&[("A", "1"), ("B", "2")])),
        ("\u{feff}A=1\r\n", Some(&[("A", "1")])),
        ("# no\n  # no\n\n A=\"q\" # v\n", Some(&[("A", "\"q\" # v")])),
        ("LANG\nNONE\n", Some(&[("LANG", "C")])),
        ("A=1\n=2\n", None),
        ("A=1\nB C=2\n", None),
        ("A=\0\n", None),
    ];
    for (text, expected) in cases {
        let found = env_file(text.as_bytes(), caller).ok();
        let expected = expected
            .map(|pairs| pairs.iter().map(|(key, value)| (os(key), os(value))).collect::<Vec<_>>());
        assert_eq!(found, expected, "{text:?}");
    }
    let fault = env_file(b"A=1\n=2\n", caller).unwrap_err();
    assert_eq!(fault.message, "line 2: a variable is written K=V or K");
}

#[test]
fn shell_lines() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["true"], &["true"]),
        (&["make all"], &["/bin/sh", "-c", "make all"]),
        (&["a\tb"], &["/bin/sh", "-c", "a\tb"]),
        (&["a\nb"], &["/bin/sh", "-c", "a\nb"]),
        (&["echo", "a  b"], &["echo", "a  b"]),
        (&["a b", "c"], &["a b", "c"]),
        (&["true;false"], &["true;false"]),
        (&[""], &[""]),
    ];
    for (words, expected) in cases {
        let found = command(words.iter().map(|word| os(word)).collect());
        assert_eq!(found, expected.iter().map(|word| os(word)).collect::<Vec<_>>(), "{words:?}");
    }
}
