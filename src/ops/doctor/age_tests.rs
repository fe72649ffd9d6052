use super::*;

const GENERIC: &str = "#1 SMP PREEMPT_DYNAMIC @0";
const TODAY: Date = date(2026, 6, 1);

/// The CVEs that are named, and whether the number is said not to tell.
fn found(release: &str, version: &str, signature: Option<&str>) -> (Vec<String>, bool) {
    let probe = judged(release, version, signature, TODAY);
    assert!(probe.name == "kernel-fixes" && !probe.needed && probe.errno.is_none());
    let words = probe.detail.split([' ', ',']);
    let names: Vec<_> = words.filter(|word| word.starts_with("CVE-")).map(str::to_owned).collect();
    assert_eq!(probe.ok, names.is_empty(), "{release}: {probe:?}");
    assert_eq!(probe.remedy.is_some(), !probe.ok, "{release}: {probe:?}");
    (names, probe.detail.contains("your distribution"))
}

#[test]
fn kernels_that_follow_the_stable_series_are_what_they_say() {
    for (release, lacking) in [
        ("6.18.44-fc-v782", &[] as &[&str]),
        ("7.1.0", &[]),
        ("7.2.0-rc1", &[]),
        ("12.0.3-arch1-1", &[]),
        ("6.18.28", &[]),
        ("6.18.27", &["CVE-2026-43284"]),
        ("7.0.4-200.fc44.x86_64", &["CVE-2026-43284"]),
        ("6.18.21", &["CVE-2026-31431", "CVE-2026-43284"]),
        // A series that ended before.
        ("6.17.13-arch1-1", &["CVE-2026-31431", "CVE-2026-43284"]),
        ("6.6.14", &["CVE-2024-1086", "CVE-2026-31431", "CVE-2026-43284"]),
        ("5.15.153.1-microsoft-standard-WSL2", &["CVE-2026-31431", "CVE-2026-43284"]),
        ("5.15.206.1-microsoft-standard-WSL2", &[]),
        (
            "5.15.24",
            &[
                "CVE-2022-0847",
                "CVE-2023-0386",
                "CVE-2024-1086",
                "CVE-2026-31431",
                "CVE-2026-43284",
            ],
        ),
        ("6.0", &["CVE-2023-0386", "CVE-2024-1086", "CVE-2026-31431", "CVE-2026-43284"]),
    ] {
        let expected = lacking.iter().copied().map(str::to_owned).collect();
        assert_eq!(found(release, GENERIC, None), (expected, false), "{release}");
    }
    let (all, _) = found("5.13.19", GENERIC, None);
    assert_eq!(all.len(), KNOWN.len() - 1, "all but what Ubuntu made: {all:?}");
}

#[test]
fn debian_tells_it_in_its_version() {
    let release = "6.1.0-17-amd64";
    let old = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.69-1 (2023-12-30)";
    let (names, doubt) = found(release, old, None);
    assert_eq!(names, ["CVE-2024-1086", "CVE-2026-31431", "CVE-2026-43284"]);
    assert!(!doubt);
    let new = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.172-1 (2026-05-15)";
    assert_eq!(found(release, new, None), (Vec::new(), false));
    // Without it the number says little.
    assert!(found(release, GENERIC, None).1);
    assert!(found(release, "Debian ", None).1);
    assert!(found(release, "#1 SMP Debian 4.19.1-1", None).1);
}

#[test]
fn ubuntu_has_a_signature() {
    let version = "#101-Ubuntu SMP @0";
    let signature = "Ubuntu 5.15.0-91.101-generic 5.15.131\n";
    let (names, doubt) = found("5.15.0-91-generic", version, Some(signature));
    assert_eq!(names, ["CVE-2024-1086", "CVE-2026-31431", "CVE-2026-43284"]);
    assert!(doubt);
    // A container may hide /proc; then the number is the release.
    let (more, doubt) = found("5.15.0-91-generic", version, None);
    assert!(more.len() > names.len() && doubt, "{more:?}");
    let has = |release: &str| {
        let (names, doubt) = found(release, version, None);
        assert!(doubt, "{release}");
        names.iter().any(|name| name == "CVE-2023-2640")
    };
    assert!(has("6.2.0-25-generic") && !has("6.2.0-26-generic"));
    assert!(has("6.0.0-1019-oem") && !has("6.0.0-1020-oem"));
    // Of these flavours no number is known.
    assert!(!has("6.2.0-1009-aws") && !has("6.2.0"));
    let newer = "Ubuntu 7.0.0-30.30-generic 7.0.12";
    assert_eq!(found("7.0.0-30-generic", version, Some(newer)), (Vec::new(), false));
}

#[test]
fn what_a_distribution_has_frozen_is_in_doubt() {
    for release in [
        "5.14.0-427.13.1.el9_4.x86_64",
        "6.12.0-55.9.1.el10_0.x86_64",
        "5.15.0-200.131.27.el8uek.x86_64",
        "6.4.0-150600.23.47-default",
        "6.8.12-4-pve",
    ] {
        let (names, doubt) = found(release, GENERIC, None);
        assert!(doubt && names.iter().any(|name| name == "CVE-2026-31431"), "{release}");
    }
}

#[test]
fn what_is_no_number_or_too_old_is_not_compared() {
    for (release, remedy) in [
        ("4.18.0-553.el8.x86_64", true),
        ("5.10.0", true),
        ("5.11.22-1-pve", true),
        ("0.0.0", true),
        ("", false),
        ("strange", false),
        ("6", false),
        ("6.", false),
        ("6.x.1", false),
        (".1.2", false),
        ("-6.1.2", false),
        ("99999999999999999999.1", false),
        ("6.99999999999999999999", false),
        ("\u{fffd}6.1", false),
    ] {
        let probe = judged(release, "", Some("Ubuntu"), TODAY);
        assert!(!probe.ok && !probe.needed, "{release}");
        assert!(probe.detail.starts_with("not compared: "), "{release}: {probe:?}");
        assert_eq!(probe.remedy.is_some(), remedy, "{release}: {probe:?}");
    }
    // What cannot be read at the end is not read.
    for release in ["7.1", "7.1.", "7.1.99999999999999999999", "7.1é", "7.1.0.0.0.0"] {
        assert!(judged(release, "Debian é", Some("Ubuntu"), TODAY).ok, "{release}");
    }
    for signature in ["", "Ubuntu", "Ubuntu ", "Ubuntu é", "Ubuntu 6.2.0-é x", "Ubuntu 6.2 \n"] {
        drop(judged("6.2.0-25-generic", "", Some(signature), TODAY));
    }
}

#[test]
fn the_table_is_sound() {
    for known in &KNOWN {
        assert!(known.name.starts_with("CVE-20"), "{known:?}");
        assert!(known.since <= known.mainline && known.stable.is_sorted(), "{known:?}");
        assert!(known.stable.iter().all(|fix| *fix < known.mainline), "{known:?}");
        assert!(known.stable.is_empty() != known.ubuntu.is_empty(), "{known:?}");
    }
    assert!(KNOWN.is_sorted_by_key(|known| &known.name[..8]));
}

#[test]
fn days_are_found_where_distributions_write_them() {
    for (version, day) in [
        ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)", Some(date(2025, 5, 22))),
        ("#26-Ubuntu SMP PREEMPT_DYNAMIC Fri Jul 10 15:19:02 UTC 2026", Some(date(2026, 7, 10))),
        ("#1 SMP PREEMPT_DYNAMIC Wed Nov  5 18:31:51 EST 2025", Some(date(2025, 11, 5))),
        ("#1 SMP PREEMPT_DYNAMIC Thu, 20 Nov 2025 18:25:21 +0000", Some(date(2025, 11, 20))),
        ("#1-NixOS SMP Tue Jan  1 00:00:00 UTC 1980", Some(date(1980, 1, 1))),
        ("#1 SMP PREEMPT_DYNAMIC @0", None),
        ("#1 SMP May", None),
        ("May 2025 99", None),
        ("Feb 30 12:00:00 2024", None),
        ("", None),
    ] {
        assert_eq!(built(version), day, "{version}");
    }
}

#[test]
fn what_was_built_before_a_fix_lacks_it() {
    let told = |release: &str, version: &str| {
        let probe = judged(release, version, None, TODAY);
        assert_eq!(probe.ok, probe.remedy.is_none());
        (probe.ok, probe.detail)
    };
    // Of the numbers that stay the day decides, and nothing is in doubt.
    let el9 = "5.14.0-611.el9.x86_64";
    let (ok, detail) = told(el9, "#1 SMP PREEMPT_DYNAMIC Wed Mar  4 00:00:00 EST 2026");
    assert!(
        !ok && detail.matches("CVE-").count() == 2 && !detail.contains("distribution"),
        "{detail}"
    );
    assert!(told(el9, "#1 SMP PREEMPT_DYNAMIC Wed May 27 00:00:00 EDT 2026").0);
    let (ok, detail) = told("6.2.0-20-generic", "#20-Ubuntu SMP Thu Apr  6 07:48:48 UTC 2023");
    assert!(!ok && detail.contains("2023-2640") && !detail.contains("0847"), "{detail}");
    // Where the number tells, the day does only if it is long ago, and true.
    let late = judged("7.2.1", "#1 SMP Wed May  6 00:00:00 UTC 2026", None, date(2027, 6, 1));
    assert!(!late.ok && late.detail.contains("mended since"), "{late:?}");
    for version in ["#1 SMP Tue Jan  1 00:00:00 UTC 1980", "#1 SMP Wed May  6 00:00:00 UTC 2099"] {
        assert!(told("7.1.9", version).0, "{version}");
    }
}
