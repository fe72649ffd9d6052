use super::*;

fn of(engine: Engine) -> Host {
    Host { engine: Some(engine), filtered: true, ..Host::default() }
}

#[test]
fn a_refused_namespace_has_the_remedy_that_helps() {
    let plain = Host::default();
    let docker = of(Engine::Docker);
    let both = Host { apparmor_confined: true, ..docker };
    for (errno, host, part) in [
        (Errno::PERM, docker, "docker run --security-opt seccomp=docker-nested.json`"),
        (Errno::PERM, docker, "docker run --cap-add SYS_ADMIN`"),
        (Errno::PERM, both, "SYS_ADMIN --security-opt apparmor=unconfined"),
        (Errno::PERM, of(Engine::Podman), "podman run --security-opt seccomp="),
        (Errno::PERM, of(Engine::Kubernetes), "seccompProfile: {type: Unconfined}"),
        (Errno::PERM, Host { filtered: true, ..plain }, "RestrictNamespaces="),
        (Errno::PERM, plain, "chroot"),
        (Errno::PERM, Host { unprivileged_off: true, ..plain }, "unprivileged_userns_clone=1"),
        (Errno::PERM, Host { apparmor_restricts: true, ..plain }, "/etc/apparmor.d/sandbox"),
        (Errno::ACCESS, Host { apparmor_restricts: true, ..plain }, "userns, }"),
        (
            Errno::NOSPC,
            Host {
                none_allowed: Spaces::where_limit(|name| name == "max_pid_namespaces"),
                ..plain
            },
            "max_pid_namespaces=15000",
        ),
        (Errno::NOSPC, plain, "32"),
        (Errno::INVAL, plain, "CONFIG_USER_NS"),
    ] {
        let text = user_namespace(errno, host);
        assert!(text.contains(part), "{errno:?} {host:?}: {text}");
    }
}

#[test]
fn what_comes_later_is_told_apart_too() {
    let plain = Host::default();
    let docker = of(Engine::Docker);
    for (text, part) in [
        (mounts(Errno::ACCESS, docker), "apparmor=unconfined"),
        (mounts(Errno::PERM, docker), "seccomp=docker-nested.json"),
        (mounts(Errno::PERM, plain), "Linux 5.12 or newer"),
        (mounts(Errno::NODEV, plain), "modprobe overlay"),
        (proc(docker), "systempaths=unconfined"),
        (proc(of(Engine::Podman)), "unmask=ALL"),
        (proc(of(Engine::Kubernetes)), "procMount: Unmasked"),
        (base_dir("/s", docker), "docker run -v sandbox:/s"),
        (base_dir("/s", of(Engine::Kubernetes)), "mountPath: /s"),
        (base_dir("/s", docker), "--base-dir"),
        (base_dir("/s", plain), "a directory of another file system with --base-dir"),
        (network(Errno::NOSPC, plain), "max_net_namespaces"),
        (id_map(plain), "SETFCAP"),
        (pivot_root(plain), "docker-nested.json"),
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn where_apparmor_restricts_it_is_the_profile_whatever_fails_first() {
    // Ubuntu 23.10 refuses the namespace; 24.04 lets it be made and takes its capabilities, so that the id map or a
    // mount is what fails.
    let host = Host { apparmor_restricts: true, ..Host::default() };
    let shipped = include_str!("../../profiles/apparmor/sandbox");
    for text in [
        user_namespace(Errno::ACCESS, host),
        user_namespace(Errno::PERM, host),
        id_map(host),
        mounts(Errno::PERM, host),
        mounts(Errno::ACCESS, host),
    ] {
        for part in [
            "abi <abi/4.0>,",
            "profile sandbox /usr{/local,}/bin/sandbox flags=(unconfined) {",
            "userns,",
        ] {
            assert!(text.contains(part) && shipped.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"));
    }
}

#[test]
fn a_hint_is_one_line() {
    let text = in_one_line(&user_namespace(Errno::PERM, of(Engine::Docker)));
    assert!(!text.contains('\n') && text.contains("; or as root inside"), "{text}");
}

#[test]
fn what_is_around_us_counts_first() {
    let docker = of(Engine::Docker);
    for (host, part) in [
        (Host { no_proc: true, ..docker }, "/proc is not mounted"),
        (Host { in_run: true, filtered: true, ..Host::default() }, "with `--nest`"),
    ] {
        for text in [
            user_namespace(Errno::PERM, host),
            seccomp(host),
            mounts(Errno::PERM, host),
            id_map(host),
            pivot_root(host),
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!base_dir("/s", host).contains("/proc is not mounted"));
    }
}

#[test]
fn limits_are_named_by_kind() {
    let zero = |names: &'static [&str]| Host {
        none_allowed: Spaces::where_limit(|name| names.contains(&name)),
        ..Host::default()
    };
    let both = zero(&["max_ipc_namespaces", "max_net_namespaces"]);
    let (why, all) = (
        |spaces| why_no_namespace(Errno::NOSPC, spaces, both),
        "as root: `sysctl -w user.max_ipc_namespaces=15000 user.max_net_namespaces=15000`",
    );
    assert_eq!(why(Spaces::OTHERS), "user.max_ipc_namespaces is 0");
    assert_eq!(why(Spaces::NETWORK), "user.max_net_namespaces is 0");
    assert_eq!(why(Spaces::MOUNTS), "there are too many (user.max_mnt_namespaces)");
    let named = "there are too many (user.max_user_namespaces)";
    assert_eq!(why_no_namespace(Errno::NOSPC, Spaces::OF_BIRTH, Host::default()), named);
    assert_eq!(namespaces(Errno::NOSPC, Spaces::OF_BIRTH, both), all);
    // That of the network stops nobody else.
    let network = zero(&["max_net_namespaces"]);
    assert!(user_namespace(Errno::NOSPC, network).contains("too many"));
    // Nor is a refusal for another reason one of theirs.
    assert!(user_namespace(Errno::PERM, both).contains("something forbids it"));
}
