use super::*;

fn host(path: &str) -> Source {
    Source::Host(path.into())
}

fn request() -> Request {
    Request {
        hostname: "box".into(),
        masked: vec!["/proc/keys".into(), "/proc/kcore".into()],
        read_only: vec!["/proc/sys".into(), "/proc/bus".into()],
        ..Request::default()
    }
}

fn position(plan: &MountPlan, line: &str) -> usize {
    let lines = plan.describe();
    lines.iter().position(|l| l == line).unwrap_or_else(|| panic!("{line} not in {lines:#?}"))
}

#[test]
fn proc_comes_after_everything_that_resolves_a_path_of_a_layer() {
    let mut wanted = request();
    wanted.binds.push(Bind {
        source: host("/src"),
        target: "/mnt/src".into(),
        mode: BindMode::ReadOnly,
    });
    let plan = build(&wanted).expect("plan");
    assert!(position(&plan, "bind /src on /mnt/src ro") < position(&plan, "proc /proc"));
    assert!(position(&plan, "proc /proc") < position(&plan, "mask /proc/keys"));
    assert_eq!(plan.describe()[0], "tmpfs /dev mode=755 size=10%,nr_inodes=64k noexec");
}

#[test]
fn what_only_the_hosts_root_may_touch_is_covered_only_where_it_is_inside() {
    let lines = build(&request()).expect("plan").describe();
    assert!(lines.contains(&"read-only /proc/sys".to_owned()));
    assert!(!lines.contains(&"mask /proc/kcore".to_owned()));
    let lines = build(&Request { host_root: true, ..request() }).expect("plan").describe();
    assert!(lines.contains(&"mask /proc/kcore".to_owned()));
    assert!(lines.contains(&"read-only /proc/bus".to_owned()));
}

#[test]
fn targets_that_cannot_be_meant_are_refused() {
    for target in ["relative", "/a/../b", "/", "/proc", "/proc/sys"] {
        let mut wanted = request();
        wanted.tmpfs.push(Memory { target: target.into(), size: None, mode: 0o755 });
        let fault = build(&wanted).expect_err(target);
        assert_eq!(fault.kind, crate::fault::Kind::Usage, "{target}");
    }
}

#[test]
fn places_in_a_tmpfs_of_ours_are_made_there_and_others_by_the_scaffold() {
    let mut wanted = request();
    for target in ["/run/user/sock", "/opt/tool"] {
        wanted.binds.push(Bind {
            source: host("/src"),
            target: target.into(),
            mode: BindMode::ReadWrite,
        });
    }
    let mut plan = build(&wanted).expect("plan");
    plan.make_places(|_| false);
    let lines = plan.describe();
    assert!(lines.contains(&"directory /run/user mode=755".to_owned()));
    assert!(lines.contains(&"file /run/user/sock".to_owned()));
    let places = plan.places(|_| false);
    assert!(places.contains(&("/opt/tool".into(), false)));
    assert!(places.contains(&("/run".into(), true)));
    assert!(!places.iter().any(|(path, _)| path == Path::new("/run/user/sock")));
}

#[test]
fn overlay_binds_get_scratch_names_of_their_own() {
    let mut wanted = request();
    for target in ["/a", "/b"] {
        wanted.binds.push(Bind {
            source: host("/src"),
            target: target.into(),
            mode: BindMode::Overlay,
        });
    }
    let plan = build(&wanted).expect("plan");
    let scratch: Vec<&str> = plan
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::OverlayBind { scratch, .. } => Some(scratch.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(scratch, ["work/bind0", "work/bind1"]);
}

#[test]
fn apt_is_told_where_there_is_nobody_to_become() {
    let note = |request: &Request| {
        let ops = build(request).expect("plan").ops;
        ops.into_iter().find_map(|op| match op {
            Op::Note { target, content } => Some((target, content)),
            _ => None,
        })
    };
    assert_eq!(note(&request()), None);
    let (target, content) = note(&Request { apt_as_root: true, ..request() }).expect("a file");
    let said = APT_CONFIG.to_str().expect("UTF-8");
    assert_eq!(said, format!("APT_CONFIG={}", target.display()));
    assert_eq!(content, "APT::Sandbox::User \"root\";\n");
}

#[test]
fn an_inner_store_is_there_before_its_layers_and_both_before_proc() {
    let mut plan = build(&request()).expect("plan");
    plan.add_nest(["one", "two"].into_iter());
    let store = position(&plan, "bind run:nest on /run/sandbox rw");
    let layer = |id: &str| {
        position(&plan, &format!("bind store:layers/{id}/fs on /run/sandbox/layers/{id}/fs ro"))
    };
    assert!(store < layer("one") && layer("one") < layer("two"));
    assert!(layer("two") < position(&plan, "proc /proc"));
    // In a tmpfs of ours: no layer needs a place for it.
    assert!(plan.places(|_| true).iter().all(|(place, _)| !place.starts_with("/run/sandbox")));
}
