use super::*;

#[test]
fn ports() {
    let read = |text: &str| {
        publish(text).ok().map(|one| {
            (one.address.map(|address| address.to_string()), one.host, one.inner, one.udp)
        })
    };
    assert_eq!(read("8080:80"), Some((None, 8080, 80, false)));
    assert_eq!(read("127.0.0.1:53:5353/udp"), Some((Some("127.0.0.1".into()), 53, 5353, true)));
    assert_eq!(read("[::1]:1:2/tcp"), Some((Some("::1".into()), 1, 2, false)));
    for bad in [
        "",
        "80",
        ":80",
        "80:",
        "0:80",
        "80:0",
        "65536:1",
        "-1:1",
        "+1:1",
        "a:b",
        "x:1:2",
        "1:2/sctp",
        "::1:1:2",
        "[::1:1:2",
        "1.2.3:1:2",
        "1:2:3:4",
        "80:80/",
        "8080-8090:80",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn hosts() {
    let read = |text: &str| add_host(text).ok().map(|(name, address)| (name, address.to_string()));
    assert_eq!(read("a.b:10.0.0.7"), Some(("a.b".into(), "10.0.0.7".into())));
    assert_eq!(read("a:::1"), Some(("a".into(), "::1".into())));
    assert_eq!(read("a:[fe80::1]"), Some(("a".into(), "fe80::1".into())));
    for bad in
        ["", "a", "a:", ":1.2.3.4", "a b:1.2.3.4", "a\n:1.2.3.4", "a:1.2.3", "a:host", "a#:1.1.1.1"]
    {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn names_are_asked_of_who_can_be_reached() {
    let behind = || "nameserver 10.1.1.1\n".to_owned();
    let text = |helper, own: &str| resolver_of(helper, own, behind).text;
    let own = "# x\nsearch a.b\nnameserver 127.0.0.53\noptions edns0 trust-ad\n";
    let rest = "search a.b\noptions edns0 trust-ad\n";
    assert_eq!(text(Helper::Pasta, own), format!("nameserver 10.1.1.1\n{rest}"));
    assert_eq!(text(Helper::Slirp4netns, own), format!("nameserver 10.0.2.3\n{rest}"));
    assert_eq!(text(Helper::Pasta, "nameserver 9.9.9.9\nnameserver ::1\n"), "nameserver 9.9.9.9\n");
    // Nobody but the host itself knows.
    let resolver = resolver_of(Helper::Pasta, "nameserver 127.0.0.1\n", String::new);
    assert_eq!(resolver.text, "nameserver 169.254.1.1\n");
    assert!(Helper::Pasta.arguments("/n", 0, &[], &resolver).contains(&"--dns-forward".to_owned()));
    assert!(resolver_of(Helper::Pasta, "", String::new).forwarded);
}

#[test]
fn the_hosts_loopback_stays_closed() {
    let published = [publish("127.0.0.1:8080:80").expect("publish"), publish("53:53/udp").unwrap()];
    let line = |helper: Helper, published: &[Publish]| {
        helper.arguments("/n", 0, published, &Resolver::default()).join(" ")
    };
    let pasta = line(Helper::Pasta, &published);
    for part in [
        "--runas",
        "0:0",
        "--no-map-gw",
        "--tcp-ns none --udp-ns none",
        "--tcp-ports 127.0.0.1/8080:80",
        "--udp-ports 53:53",
    ] {
        assert!(pasta.contains(part), "{part}: {pasta}");
    }
    assert!(line(Helper::Pasta, &[]).contains("--tcp-ports none --udp-ports none"));
    let slirp = line(Helper::Slirp4netns, &published);
    assert!(
        slirp.contains("--disable-host-loopback") && slirp.contains("--api-socket api"),
        "{slirp}"
    );
    assert!(!line(Helper::Slirp4netns, &[]).contains("api"));
    let order = slirp_order(&published[1]);
    assert!(order.contains(r#""host_port":53"#) && order.contains(r#""proto":"udp""#), "{order}");
}
