use super::*;

#[test]
fn binds() {
    use BindMode::{Overlay, ReadOnly, ReadWrite};
    let here = std::env::current_dir().unwrap();
    let rel = here.join("src");
    let cases: &[(&str, Option<(&str, &str, BindMode)>)] = &[
        ("/a", Some(("/a", "/a", ReadOnly))),
        ("/a:/b", Some(("/a", "/b", ReadOnly))),
        ("/a:/b:rw", Some(("/a", "/b", ReadWrite))),
        ("/a:overlay", Some(("/a", "/a", Overlay))),
        ("/a/:/b/./c/", Some(("/a/", "/b/c", ReadOnly))),
        ("src:/b", Some((rel.to_str().unwrap(), "/b", ReadOnly))),
        ("src", Some((rel.to_str().unwrap(), rel.to_str().unwrap(), ReadOnly))),
        ("/a\\:b:/c", Some(("/a:b", "/c", ReadOnly))),
        ("/a\\\\:/c", Some(("/a\\", "/c", ReadOnly))),
        ("/a\\b:/c", Some(("/a\\b", "/c", ReadOnly))),
        ("", None),
        (":/b", None),
        ("/a:b", None),
        ("/a:/", None),
        ("/", None),
        ("/a:/b/../c", None),
        ("/a:/b:rx", None),
        ("/a:/b:/c:rw", None),
        ("/a::rw", None),
    ];
    for (text, expected) in cases {
        let found = bind(OsStr::new(text)).ok();
        let expected = expected.as_ref().map(|(source, target, mode)| (source, target, mode));
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some((source, target, mode))) => {
                assert_eq!(found.source, Path::new(source), "{text}");
                assert_eq!(found.target, Path::new(target), "{text}");
                assert_eq!(format!("{:?}", found.mode), format!("{mode:?}"), "{text}");
            }
            _ => panic!("{text}: {found:?}"),
        }
    }
}

#[test]
fn times() {
    let cases: &[(&str, Option<u64>)] = &[
        ("10", Some(10_000)),
        ("10s", Some(10_000)),
        ("500ms", Some(500)),
        ("5m", Some(300_000)),
        ("1h", Some(3_600_000)),
        ("1.5h", Some(5_400_000)),
        ("0.25", Some(250)),
        ("1d", Some(86_400_000)),
        ("", None),
        ("s", None),
        ("0", None),
        ("0.0s", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("1.2.3", None),
        ("10 s", None),
        ("10x", None),
        ("99999999999999999999999h", None),
        ("٣s", None),
    ];
    for (text, expected) in cases {
        let found = time(text).ok();
        assert_eq!(found, expected.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn sizes() {
    let cases: &[(&str, Option<u64>)] = &[
        ("4096", Some(4096)),
        ("1k", Some(1024)),
        ("64M", Some(64 << 20)),
        ("2GiB", Some(2 << 30)),
        ("1T", Some(1 << 40)),
        ("0", None),
        ("", None),
        ("M", None),
        ("1.5G", None),
        ("-1", None),
        ("1X", None),
        ("99999999999T", None),
    ];
    for (text, expected) in cases {
        assert_eq!(size(text).ok(), *expected, "{text}");
    }
}

/// What is written down reads back as the same bind.
#[test]
fn binds_are_text() {
    for (text, written) in [
        ("/a", "/a:/a:ro"),
        ("/a:/b:rw", "/a:/b:rw"),
        ("/a\\:b:/c:overlay", "/a\\:b:/c:overlay"),
        ("/a\\\\b:/c", "/a\\\\b:/c:ro"),
    ] {
        let found = bind(OsStr::new(text)).unwrap();
        assert_eq!(bind_text(&found).unwrap(), written);
        assert_eq!(bind(OsStr::new(written)).unwrap(), found);
    }
}

#[test]
fn one_is_no_plural() {
    assert_eq!(amount(1, 1), "1 file, 1 byte");
    assert_eq!(amount(0, 2), "0 files, 2 bytes");
}
