//! Archives that try to get out, to forge, or to confuse. Each is refused and names the entry.

use std::fs;

use super::*;
use crate::fault::Kind;

#[test]
fn each_is_refused_with_the_name_of_the_entry() {
    let long = [b"a/".repeat(2_100), b"evil".to_vec()].concat();
    let wide = [b"evil".as_slice(), &[b'x'; 252]].concat();
    let overlay: [(&str, &[u8]); 1] = [("SCHILY.xattr.user.overlay.redirect", b"/etc")];
    let opaque: [(&str, &[u8]); 1] = [("SCHILY.xattr.trusted.overlay.opaque", b"y")];
    let escaped: [(&str, &[u8]); 1] = [("SCHILY.xattr.user.overlay.overlay.opaque", b"y")];
    let mut contentful = Raw::header(EntryType::Symlink, b"evil", 512);
    contentful.set_link_name("x").expect("link");
    let cases: Vec<(&str, Raw)> = vec![
        ("dot-dot", Raw::default().file(b"../evil", b"")),
        ("dot-dot inside", Raw::default().file(b"a/../../evil", b"")),
        ("dot-dot at the end", Raw::default().dir(b"evil/..", 0o755)),
        ("absolute", Raw::default().file(b"/tmp/evil", b"")),
        ("empty", Raw::default().file(b"", b"")),
        ("NUL", Raw::default().pax(&[("path", b"evil\0x")]).file(b"x", b"")),
        ("too long", Raw::default().pax(&[("path", &long)]).file(b"x", b"")),
        ("too wide", Raw::default().pax(&[("path", &wide)]).file(b"x", b"")),
        ("root is a link", Raw::default().symlink(b"./", b"evil")),
        ("root is a link, bare", Raw::default().symlink(b".", b"evil")),
        ("root is a file", Raw::default().file(b".", b"evil")),
        ("through a link", Raw::default().symlink(b"l", b"/tmp").file(b"l/evil", b"")),
        ("through a link up", Raw::default().symlink(b"l", b"..").dir(b"l/evil", 0o755)),
        ("through a file", Raw::default().file(b"f", b"").file(b"f/evil", b"")),
        (
            "link made over",
            Raw::default().dir(b"d", 0o755).symlink(b"d/l", b"/").file(b"d/l/evil", b""),
        ),
        ("hard link out", Raw::default().link(EntryType::Link, b"evil", b"../x")),
        ("hard link absolute", Raw::default().link(EntryType::Link, b"evil", b"/etc/passwd")),
        ("hard link to nothing", Raw::default().link(EntryType::Link, b"evil", b"none")),
        (
            "hard link to itself",
            Raw::default().file(b"evil", b"").link(EntryType::Link, b"evil", b"./evil"),
        ),
        (
            "hard link to a directory",
            Raw::default().dir(b"d", 0o755).link(EntryType::Link, b"evil", b"d"),
        ),
        ("hard link to the root", Raw::default().link(EntryType::Link, b"evil", b"./")),
        (
            "hard link through a link",
            Raw::default().symlink(b"l", b"/etc").link(EntryType::Link, b"evil", b"l/passwd"),
        ),
        ("overlay redirect", Raw::default().pax(&overlay).dir(b"evil", 0o755)),
        ("overlay opaque", Raw::default().pax(&opaque).dir(b"evil", 0o755)),
        ("overlay escaped", Raw::default().pax(&escaped).file(b"evil", b"")),
        ("overlay on a link", Raw::default().pax(&overlay).symlink(b"evil", b"x")),
        ("sizes disagree", Raw::default().pax(&[("size", b"1024")]).file(b"evil", b"x")),
        ("sizes disagree by zero", Raw::default().pax(&[("size", b"512")]).file(b"evil", b"")),
        ("content of a link", Raw::default().add(contentful, &[0; 512])),
        ("full directory", Raw::default().file(b"evil/x", b"").file(b"evil", b"")),
        ("unknown type", Raw::default().add(Raw::header(EntryType::new(b'M'), b"evil", 0), b"")),
        ("id too large", Raw::default().pax(&[("uid", b"4294967295")]).file(b"evil", b"")),
        ("link without target", Raw::default().symlink(b"evil", b"")),
    ];
    for (what, raw) in cases {
        let outer = temp();
        let target = outer.path().join("target");
        fs::create_dir(&target).expect("target");
        let fault = unpack(&raw.end(), &target).expect_err(what);
        assert_eq!(fault.kind, Kind::Failed, "{what}: {fault}");
        let named = fault.message.contains("evil") || fault.message.contains("extract: ");
        assert!(named, "{what}: {fault}");
        assert_eq!(fs::read_dir(outer.path()).expect("list").count(), 1, "{what}");
    }
}

#[test]
fn malformed_streams_are_refused() {
    let good = Raw::default().file(b"f", &[7; 600]);
    let mut wrong_sum = good.bytes.clone();
    wrong_sum[0] = b'g';
    let global: [(&str, &[u8]); 1] = [("path", b"evil")];
    let huge = Raw::header(EntryType::GNULongName, b"L", 1 << 40);
    let endless = Raw::header(EntryType::new(b'V'), b"label", u64::MAX);
    for (what, archive) in [
        ("nothing", Vec::new()),
        ("no end mark", good.bytes.clone()),
        ("cut in a header", good.bytes[..300].to_vec()),
        ("cut in content", good.bytes[..700].to_vec()),
        ("cut in padding", good.bytes[..1200].to_vec()),
        ("checksum", wrong_sum),
        ("no tar", b"this is a text and no archive".repeat(50)),
        ("global name", Raw::default().extended(EntryType::XGlobalHeader, &global).end()),
        ("huge extension", Raw::default().add(huge, b"").end()),
        ("endless entry", Raw::default().add(endless, b"").end()),
        (
            "broken record",
            Raw::default().add(Raw::header(EntryType::XHeader, b"x", 5), b"9 a=b").end(),
        ),
    ] {
        let fault = refused(&archive);
        assert!(fault.message.starts_with("read archive: "), "{what}: {fault}");
    }
}

#[test]
fn control_characters_of_names_do_not_reach_the_terminal() {
    let fault = refused(&Raw::default().file(b"/\x1b[31mred\n", b"").end());
    assert!(!fault.message.contains(['\x1b', '\n']), "{fault:?}");
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |map: &'static [u8], size: &'static [u8]| {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.map", map), ("GNU.sparse.size", size)];
        Raw::default().pax(&records).file(b"evil", b"12345678").end()
    };
    for (map, size) in [
        (&b"0,4"[..], &b"100"[..]),
        (b"0,8", b"4"),
        (b"4,4,0,4", b"100"),
        (b"0,4,2,4", b"100"),
        (b"18446744073709551615,8", b"100"),
        (b"0,8,1", b"100"),
        (b"x", b"100"),
    ] {
        let fault = refused(&sparse(map, size));
        assert!(fault.message.contains("sparse"), "{fault}");
    }
}
