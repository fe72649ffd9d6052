//! Tables for `plan`: facts in, map or refusal out.

use super::*;

type Lines<'a> = &'a [(u32, u32, u32)];

const ALL: Span = Span { first: 0, count: u32::MAX };

fn bob() -> Facts {
    Facts {
        uid: 1000,
        gid: 100,
        initial: true,
        held_uids: vec![ALL],
        held_gids: vec![ALL],
        name: Some("bob".to_owned()),
        subuid: "bob:100000:65536\n".to_owned(),
        subgid: "bob:200000:65536\n".to_owned(),
        ..Facts::default()
    }
}

fn root() -> Facts {
    Facts {
        uid: 0,
        gid: 0,
        sets_ids: true,
        name: Some("root".to_owned()),
        subuid: "bob:100000:65536\n".to_owned(),
        ..bob()
    }
}

fn in_container() -> Facts {
    let held = vec![Span { first: 0, count: 1 }, Span { first: 1, count: 65536 }];
    Facts { initial: false, held_uids: held.clone(), held_gids: held, ..root() }
}

fn lines(extents: &[Extent]) -> Vec<(u32, u32, u32)> {
    extents.iter().map(|e| (e.inside, e.outside, e.count)).collect()
}

#[test]
fn a_plain_user_gets_the_ranges_of_the_files() {
    let map = map_for(Mode::Subuid, &bob()).expect("map");
    assert_eq!(lines(&map.uids), [(0, 1000, 1), (1, 100_000, 65536)]);
    assert_eq!(lines(&map.gids), [(0, 100, 1), (1, 200_000, 65536)]);
}

#[test]
fn ranges_stand_one_above_the_other_and_never_overlap() {
    let table: [(&str, Lines<'_>); 6] = [
        ("bob:5000:10\n1000:7000:20\n", &[(0, 1000, 1), (1, 5000, 10), (11, 7000, 20)]),
        ("bob:5000:10\nbob:5005:10\n", &[(0, 1000, 1), (1, 5000, 10), (11, 5010, 5)]),
        ("bob:5000:10\nbob:5000:10\n", &[(0, 1000, 1), (1, 5000, 10)]),
        ("bob:990:20\n", &[(0, 1000, 1), (1, 990, 10), (11, 1001, 9)]),
        ("bob:0:3\n", &[(0, 1000, 1), (1, 1, 2)]),
        ("bob:4294967290:99\nbob:9:1\n", &[(0, 1000, 1), (1, 4_294_967_290, 5), (6, 9, 1)]),
    ];
    for (subuid, expected) in table {
        let map = map_for(Mode::Subuid, &Facts { subuid: subuid.to_owned(), ..bob() });
        assert_eq!(lines(&map.expect("map").uids), expected, "{subuid:?}");
    }
}

#[test]
fn a_hostile_file_makes_no_invalid_map() {
    let many: String = (0..100_000_u64).map(|n| format!("bob:{}:1\n", 2 * n)).collect();
    let huge = "bob:0:4294967295\n".repeat(50);
    let crossed = "bob:3:99999999999999999999\nbob:1:2\nbob:18446744073709551615:7\n";
    for subuid in [many, huge, crossed.to_owned()] {
        let map = map_for(Mode::Subuid, &Facts { subuid, ..bob() }).expect("map");
        assert!(map.uids.len() <= MOST_EXTENTS);
        assert_eq!(map.root_owner(), (1000, 100));
        assert!(map.uids.iter().all(|extent| extent.outside != 0), "root's id is never handed out");
    }
}

#[test]
fn without_a_range_the_remedy_is_named() {
    for facts in [
        Facts { subuid: String::new(), ..bob() },
        Facts { subgid: "ann:1:65536".to_owned(), ..bob() },
    ] {
        let fault = map_for(Mode::Subuid, &facts).expect_err("no range");
        assert_eq!(fault.kind, Kind::Host);
        let hint = fault.hint.expect("remedy");
        assert!(hint.contains("usermod --add-subuids") && hint.contains("bob"), "{hint}");
    }
    let taken = Facts { subuid: "ann:131072:65536\nmax:196608:1\n".to_owned(), ..bob() };
    let hint = map_for(Mode::Subuid, &taken).expect_err("no range").hint.expect("remedy");
    assert!(hint.contains("327680-393215"), "after ann's, max's and the group range: {hint}");
}

#[test]
fn root_gets_its_line_or_a_range_of_nobody() {
    let own = Facts {
        subuid: "root:300000:65536\nroot:500000:10\n".to_owned(),
        subgid: "0:400000:65536\n".to_owned(),
        ..root()
    };
    let map = map_for(Mode::Range, &own).expect("map");
    assert_eq!(lines(&map.uids), [(0, 300_000, 65536), (65536, 500_000, 10)]);
    assert_eq!(lines(&map.gids), [(0, 400_000, 65536)]);

    let map = map_for(Mode::Range, &root()).expect("map");
    assert_eq!(lines(&map.uids), [(0, 0x7800_0000, 65536)]);
    assert_eq!(map.uids, map.gids);

    let crowded = Facts {
        passwd: format!("far:x:{}:1:::\n", 0x7800_0005),
        group: format!("far:x:{}:\n", 0x7801_ffff),
        subgid: format!("ann:{}:65537\n", 0x7802_0000),
        ..root()
    };
    let map = map_for(Mode::Range, &crowded).expect("map");
    assert_eq!(lines(&map.gids), [(0, 0x7804_0000, 65536)]);

    let full = Facts { subuid: "ann:1:4294967294\n".to_owned(), ..root() };
    assert_eq!(map_for(Mode::Range, &full).expect_err("full").kind, Kind::Host);
}

#[test]
fn identity_is_what_is_held() {
    let map = map_for(Mode::Identity, &in_container()).expect("map");
    assert_eq!(lines(&map.uids), [(0, 0, 1), (1, 1, 65536)]);
    let map = map_for(Mode::Identity, &root()).expect("map");
    assert_eq!(lines(&map.uids), [(0, 0, u32::MAX)]);
}

#[test]
fn modes_are_for_whom_they_are_for() {
    let bare = Facts { sets_ids: false, ..root() };
    for (mode, facts) in [
        (Mode::Subuid, root()),
        (Mode::Range, bob()),
        (Mode::Range, in_container()),
        (Mode::Range, bare.clone()),
        (Mode::Identity, bob()),
        (Mode::Identity, bare),
    ] {
        let fault = map_for(mode, &facts).expect_err("refused");
        assert_eq!(fault.kind, Kind::Host, "{mode}");
        assert!(fault.hint.is_some(), "{mode}");
    }
    let lone = Span { first: 0, count: 1 };
    let nested = Facts { held_uids: vec![lone], held_gids: vec![lone], ..in_container() };
    assert_eq!(candidates(&bob()), [Mode::Subuid]);
    assert_eq!(candidates(&root()), [Mode::Range]);
    assert_eq!(candidates(&in_container()), [Mode::Identity]);
    assert_eq!(candidates(&nested), []);
    assert_eq!(lines(&map_for(Mode::Single, &bob()).expect("map").gids), [(0, 100, 1)]);
}

#[test]
fn a_recorded_map_is_permitted_only_if_it_comes_out_the_same() {
    let map = |mode, facts: &Facts| map_for(mode, facts).expect("map");
    let grown = Facts { subuid: "bob:90000:5\nbob:100000:70000\n".to_owned(), ..bob() };
    let shrunk = Facts { subuid: "bob:100000:65535\n".to_owned(), ..bob() };
    let moved = Facts { subgid: "bob:300000:65536\n".to_owned(), ..bob() };
    let ann = Facts { uid: 1001, name: Some("ann".to_owned()), ..bob() };
    let regrouped = Facts { gid: 101, ..bob() };
    let (sub, single) = (map(Mode::Subuid, &bob()), map(Mode::Single, &bob()));
    let (range, identity) = (map(Mode::Range, &root()), map(Mode::Identity, &in_container()));

    for (recorded, here) in [
        (&sub, bob()),
        (&sub, grown),
        (&single, bob()),
        (&range, root()),
        (&identity, in_container()),
        (&identity, root()),
    ] {
        permits(recorded, &here).expect("the same owners");
    }
    for (recorded, here) in [
        (&sub, shrunk),
        (&sub, moved),
        (&sub, ann.clone()),
        (&sub, regrouped.clone()),
        (&sub, root()),
        (&single, ann),
        (&single, regrouped),
        (&single, root()),
        (&range, bob()),
        (&range, in_container()),
        (&identity, bob()),
    ] {
        let fault = permits(recorded, &here).expect_err("other owners");
        assert_eq!(fault.kind, Kind::Conflict, "{fault}");
        assert!(fault.hint.is_some());
    }
}

#[test]
fn a_range_that_the_container_lacks_is_told_apart_from_none() {
    let held = vec![Span { first: 0, count: 65536 }];
    let facts = Facts { initial: false, held_uids: held.clone(), held_gids: held, ..bob() };
    let fault = map_for(Mode::Subuid, &facts).expect_err("out of reach");
    assert_eq!(fault.kind, Kind::Host);
    let wanted = "the user namespace around does not hold 100000..165535 of /etc/subuid";
    assert!(fault.message.ends_with(wanted), "{fault}");
    let hint = fault.hint.expect("hint");
    assert!(hint.starts_with("give the container more ids (/proc/self/uid_map"), "{hint}");
    assert!(hint.contains("--add-subuids 10000-65535"), "{hint}");
    let none = Facts { subuid: String::new(), ..bob() };
    let fault = map_for(Mode::Subuid, &none).expect_err("none");
    assert!(fault.message.ends_with("no usable range in /etc/subuid"), "{fault}");
}

#[test]
fn a_range_that_is_proposed_is_held() {
    let of = |held: &[Span]| {
        let facts = Facts {
            initial: false,
            held_uids: held.to_vec(),
            held_gids: held.to_vec(),
            passwd: "bob:x:1000:100::/:\nnobody:x:65534:65534::/:\n".to_owned(),
            subuid: String::new(),
            subgid: String::new(),
            ..bob()
        };
        map_for(Mode::Subuid, &facts).expect_err("no range").hint.expect("remedy")
    };
    let span = |first, count| Span { first, count };
    for (held, wanted) in [
        (
            vec![span(0, 1), span(1, 65536)],
            "usermod --add-subuids 10000-65533 --add-subgids 10000-65533 bob`",
        ),
        (vec![span(0, 200_000)], "usermod --add-subuids 131072-196607 "),
        (vec![span(0, 1), span(300_000, 100_000)], "usermod --add-subuids 327680-393215 "),
        (vec![span(0, 30_000)], "usermod --add-subuids 10000-29999 "),
    ] {
        let hint = of(&held);
        assert!(hint.contains(wanted), "{held:?}: {hint}");
    }
    for held in [vec![span(1000, 1)], vec![span(0, 15_000)]] {
        let hint = of(&held);
        assert!(hint.starts_with("give the container more ids"), "{hint}");
        assert!(!hint.contains("usermod"), "{hint}");
    }
}

#[test]
fn a_map_that_cannot_be_written_has_the_reason_of_one_that_is_not_chosen() {
    let recorded = map_for(Mode::Subuid, &bob()).expect("map");
    assert_eq!(against(&recorded, &bob()), None);

    let held = vec![Span { first: 1000, count: 1 }, Span { first: 100, count: 1 }];
    let outside = Facts { initial: false, held_uids: held.clone(), held_gids: held, ..bob() };
    let fault = against(&recorded, &outside).expect("not held");
    let first = map_for(Mode::Subuid, &outside).expect_err("not held");
    let why = "the user namespace around does not hold 100000..165535 of /etc/subuid";
    assert_eq!(fault.kind, Kind::Host);
    assert!(fault.message.ends_with(why) && first.message.ends_with(why), "{fault}; {first}");
    for hint in [fault.hint, first.hint].map(|hint| hint.expect("remedy")) {
        assert!(hint.starts_with(MORE_IDS), "{hint}");
    }

    // Other ranges than its own would not help a box.
    let none = Facts { subuid: String::new(), subgid: String::new(), ..bob() };
    let fault = against(&recorded, &none).expect("lost");
    assert!(
        fault.message.ends_with("/etc/subuid no longer gives 100000..165535 to bob"),
        "{fault}"
    );
    let wanted = "as root: `usermod --add-subuids 100000-165535 --add-subgids 200000-265535 bob`";
    assert!(fault.hint.as_deref().expect("remedy").starts_with(wanted), "{fault:?}");
    let half = Facts { subgid: String::new(), ..bob() };
    let fault = against(&recorded, &half).expect("lost");
    let wanted = "as root: `usermod --add-subgids 200000-265535 bob`";
    assert!(fault.hint.as_deref().expect("remedy").starts_with(wanted), "{fault:?}");
    let anns = Facts { subuid: "ann:100000:65536\n".to_owned(), ..none };
    let fault = against(&recorded, &anns).expect("lost");
    assert!(fault.hint.as_deref().expect("remedy").contains("somebody else"), "{fault:?}");
}
