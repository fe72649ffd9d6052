use std::os::fd::AsFd;

use super::*;

const HYBRID: &str = "9:name=systemd:/\n8:pids:/\n0::/\n";
const SESSION: &str = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope\n";

fn mount(root: &str, point: &str) -> String {
    format!(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw\n"
    )
}

#[test]
fn our_own_cgroup_is_found_where_it_is_mounted() {
    let found = |cgroups, mounts: String| {
        locate(cgroups, &mounts).map(|(own, top)| [own, top].map(|path| path.display().to_string()))
    };
    let pair = |own: &str, top: &str| Ok([own.to_owned(), top.to_owned()]);
    let top = "/sys/fs/cgroup";
    assert_eq!(
        found(HYBRID, mount("/", "/sys/fs/cgroup/unified")),
        pair("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified")
    );
    let own = format!("{top}/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope");
    assert_eq!(found(SESSION, mount("/", top)), pair(&own, top));
    // A bind of a part of the hierarchy.
    assert_eq!(found("0::/docker/x/y\n", mount("/docker/x", "/a\\040b")), pair("/a b/y", "/a b"));
    assert!(found("0::/other\n", mount("/docker/x", top)).is_err());
    assert!(found("0::/../x\n", mount("/", top)).is_err());
    assert!(found("8:pids:/\n", mount("/", top)).is_err());
    assert!(found(HYBRID, "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned()).is_err());
    assert!(found(HYBRID, "garbage\n - cgroup2\n".to_owned()).is_err());
    // A root that is none: joined to it, our path would be the host's.
    assert!(found(HYBRID, "23 27 0:22  31 0 rw - cgroup2 c rw\n".to_owned()).is_err());
}

/// A directory that looks like a cgroup.
fn cgroup(path: &Path, there: &str, on: &str, procs: &str) {
    fs::create_dir_all(path).expect("directory");
    for (file, text) in [
        ("cgroup.controllers", there),
        ("cgroup.subtree_control", on),
        ("cgroup.procs", procs),
        ("cgroup.type", "domain\n"),
    ] {
        fs::write(path.join(file), text).expect("file");
    }
}

#[test]
fn the_nearest_place_with_most_is_taken() {
    let dir = tempfile::tempdir().expect("tempdir");
    let top = dir.path();
    let own = top.join("slice/scope");
    cgroup(top, "memory pids cpu", "memory pids cpu", "");
    cgroup(&top.join("slice"), "memory pids cpu", "memory pids", "");
    cgroup(&own, "memory pids", "", "1\n2\n");
    let place = search(&["memory", "pids"], &own, top).expect("a place");
    assert_eq!(place.parent, top.join("slice"));
    assert!(place.enable.is_empty() && !place.leaf);
    // What is off where nobody is, is turned on.
    let place = search(&["memory", "cpu"], &own, top).expect("a place");
    assert_eq!((place.parent, place.enable), (top.join("slice"), vec!["cpu"]));
    // In ours nobody else is.
    cgroup(&own, "memory pids", "", &format!("{}\n", std::process::id()));
    let place = search(&["memory"], &own, top).expect("a place");
    assert!(place.leaf);
    assert_eq!((place.parent, place.enable), (own, vec!["memory"]));
}

#[test]
fn what_cannot_be_had_is_told() {
    let dir = tempfile::tempdir().expect("tempdir");
    let top = dir.path();
    cgroup(top, "hugetlb", "", "1\n2\n");
    let reason = search(&["memory"], top, top).expect_err("no controller").reason;
    assert!(reason.contains("no such controller"), "{reason}");
    cgroup(top, "memory", "", "1\n2\n");
    let reason = search(&["memory"], top, top).expect_err("crowded").reason;
    assert!(reason.contains("other processes are in it"), "{reason}");
    // The root of the hierarchy may have both.
    fs::remove_file(top.join("cgroup.type")).expect("remove");
    assert!(search(&["memory"], top, top).is_ok());
    fs::write(top.join("cgroup.type"), "domain threaded\n").expect("write");
    assert!(search(&["memory"], top, top).is_err());
    // What the kernel refuses, it refuses with a reason.
    fs::remove_file(top.join("cgroup.procs")).expect("remove");
    let nowhere = search(&["memory"], top, top).expect_err("nothing to write to");
    assert!(nowhere.reason.contains("may write to"), "{nowhere:?}");
    assert_eq!(nowhere.errno, Some(Errno::NOENT));
}

#[test]
fn nothing_is_wanted_by_default() {
    assert!(Wanted::default().is_empty());
    let wanted = Wanted { cpu_quota: Some(50_000), pids: Some(1), ..Wanted::default() };
    assert_eq!(wanted.controllers(), ["pids", "cpu"]);
}

#[test]
fn what_killed_supervisors_left_is_swept() {
    let dir = tempfile::tempdir().expect("tempdir");
    let top = dir.path();
    for name in ["sandbox-r-1", "sandbox-supervisor-1", "sandbox-supervisor-2", "other"] {
        fs::create_dir(top.join(name)).expect("directory");
    }
    // One that somebody is in, which the kernel would not remove, and one whose supervisor is on its way there.
    cgroup(&top.join("sandbox-supervisor-3"), "", "", "3\n");
    fs::write(top.join("sandbox-supervisor-3/cgroup.kill"), "").expect("file");
    let held = fs::File::open(top.join("sandbox-supervisor-2")).expect("open");
    held.lock().expect("lock");
    live::sweep(top);
    let mut left: Vec<_> = fs::read_dir(top)
        .expect("read")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    left.sort();
    assert_eq!(left, ["other", "sandbox-supervisor-2", "sandbox-supervisor-3"]);
    let killed = fs::read_to_string(top.join("sandbox-supervisor-3/cgroup.kill")).expect("read");
    assert_eq!(killed, "", "a supervisor that lives is killed");
}

#[test]
fn a_cgroup_is_entered_by_its_directory() {
    let dir = tempfile::tempdir().expect("tempdir");
    let top = fs::File::open(dir.path()).expect("open");
    assert!(live::enter(top.as_fd()).is_err(), "what is no cgroup is entered");
    cgroup(dir.path(), "pids", "", "");
    live::enter(top.as_fd()).expect("enter");
    assert_eq!(fs::read_to_string(dir.path().join("cgroup.procs")).expect("read"), "0");
}

#[test]
fn a_full_cgroup_is_known() {
    let dir = tempfile::tempdir().expect("tempdir");
    let top = fs::File::open(dir.path()).expect("open");
    assert!(!live::is_full(top.as_fd()), "one without the controller");
    for (max, now, full) in [
        ("5", "4", false),
        ("5", "5", true),
        ("5", "6", true),
        ("max", "9", false),
        ("", "1", false),
    ] {
        fs::write(dir.path().join("pids.max"), format!("{max}\n")).expect("file");
        fs::write(dir.path().join("pids.current"), format!("{now}\n")).expect("file");
        assert_eq!(live::is_full(top.as_fd()), full, "{now} of {max}");
    }
}
