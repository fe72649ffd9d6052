//! Rows about what leaves a sandbox: results, and who is led astray by them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::common::left;
use crate::host::{Host, text};

/// CVE-2021-41091: what is copied out gets the caller's ids, and must not lend them to who runs it.
#[test]
fn results_have_no_power() {
    let host = Host::plain();
    let line = "mkdir -p /o/d && cp /bin/true /o/x && cp /bin/true /one && chmod 6755 /o/x /one && \
                chmod 3777 /o/d";
    let to = host.path("results");
    let flags = [format!("/o:{}", to.display()), format!("/one:{}", to.display())];
    let out = host.shell(&["--out", &flags[0], "--out", &flags[1]], line);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mode =
        |name: &str| fs::symlink_metadata(to.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("o/x"), mode("one"), mode("o/d")], [0o755, 0o755, 0o1777]);
}

/// CVE-2018-15664, CVE-2026-42306: a symlink of the root leads what is copied out to a file of the host.
#[test]
fn results_are_looked_for_inside() {
    let host = Host::with(|tree| {
        let outside = tree.parent().unwrap().join("outside");
        symlink(&outside, tree.join("abs")).unwrap();
        symlink(outside.join("file"), tree.join("file")).unwrap();
        symlink("../../../..", tree.join("up")).unwrap();
        symlink("/proc/1/root", tree.join("magic")).unwrap();
        symlink("/proc/self/fd/0", tree.join("fd")).unwrap();
    });
    let inner = host.word("outside");
    for path in [
        "/abs",
        "/abs/file",
        "/file",
        &format!("/up{inner}"),
        "/magic/etc/hostname",
        "/fd",
        &inner,
        "/up/..",
    ] {
        let results = host.folder("results");
        let out = host.shell(&["--out", &format!("{path}:{results}")], "true");
        assert_eq!(out.status.code(), Some(125), "{path}: {}", text(&out.stderr));
        assert_eq!(left::names(&host.path("results")), [""; 0], "{path}");
    }
}

/// CVE-2018-15664: symlinks that the payload leaves behind, above and among its results.
#[test]
fn results_are_not_written_through_symlinks() {
    let host = Host::plain();
    let outside = host.word("outside");
    let line = format!(
        "mkdir -p /o/sub && ln -s {outside} /o/link && echo stolen >/o/sub/file && ln -s {outside} /one"
    );
    let results = host.folder("results");
    // Also where a symlink is at the place already: the caller's own, and the result of a run before.
    symlink(&outside, host.path("results/sub")).unwrap();
    for path in ["/o", "/o/sub", "/one"] {
        let out = host.shell(&["--out", &format!("{path}:{results}")], &line);
        assert!(matches!(out.status.code(), Some(0 | 125)), "{path}: {}", text(&out.stderr));
    }
    assert_eq!(fs::read_link(host.path("results/o/link")).unwrap(), host.path("outside"));
    let again = host.shell(&["--out", &format!("/link:{results}/o")], "echo stolen >/link");
    assert!(matches!(again.status.code(), Some(0 | 125)), "{}", text(&again.stderr));
}
