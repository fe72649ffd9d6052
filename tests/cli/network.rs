//! The network: none, the host's, or one that a program beside the run makes.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Env, debian};

const HELPERS: [&str; 2] = ["pasta", "slirp4netns"];

/// As ping does where it has no capability.
#[test]
fn echo_requests_need_no_capability() {
    let env = debian();
    for net in HELPERS {
        let line =
            "perl -e 'socket(S, 2, 2, 1) or die $!'; cat /proc/sys/net/ipv4/ping_group_range";
        drop(env.line(&["--net", net], line).run().ok().stdout("0\t0\n"));
    }
}

/// A port that nobody has.
fn port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Until it is so; fails after ten seconds.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server inside that answers each connection with a word.
const SERVER: &str = "use Socket; $|=1; socket(S,PF_INET,SOCK_STREAM,0) or die; \
    setsockopt(S,SOL_SOCKET,SO_REUSEADDR,1); bind(S,sockaddr_in(80,INADDR_ANY)) or die; listen(S,5); \
    print \"up\\n\"; while(accept(C,S)){print C \"hello\\n\"; close C}";

/// A server inside that says what it got.
const UDP_SERVER: &str = "use Socket; $|=1; socket(S,PF_INET,SOCK_DGRAM,0) or die; \
    bind(S,sockaddr_in(53,INADDR_ANY)) or die; print \"up\\n\"; \
    while($from=recv(S,$text,99,0)){print \"got $text\n\"}";

/// Connects to arguments HOST PORT, and says what came of it.
const CLIENT: &str = "use Socket; socket(S,PF_INET,SOCK_STREAM,0) or die; $SIG{ALRM}=sub{print \"nothing\\n\"; exit}; \
    alarm 2; print connect(S,sockaddr_in($ARGV[1],inet_aton($ARGV[0])))?\"connected\\n\":\"refused\\n\"";

/// A run that goes on; killed, as by nobody's wish, when this is dropped.
struct Running(Child);

impl Running {
    fn start(words: Vec<std::ffi::OsString>) -> (Self, ChildStdout) {
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env("SANDBOX_BUDGET", "off").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        (Self(child), stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Reads so many bytes.
fn read(stdout: &mut ChildStdout, bytes: usize) -> String {
    let mut text = vec![0; bytes];
    stdout.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The helpers of a run that are there, by the number of its supervisor.
fn helpers(supervisor: u32) -> Vec<String> {
    let out =
        Command::new("ps").args(["-o", "pid=,comm=", "--ppid", &supervisor.to_string()]).output();
    let text = String::from_utf8(out.unwrap().stdout).unwrap();
    let helper = |line: &&str| ["pasta", "passt", "slirp"].iter().any(|name| line.contains(name));
    text.lines()
        .filter(helper)
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

#[test]
fn ports_lead_inside_and_nothing_is_left() {
    let env = debian();
    for helper in HELPERS {
        let (tcp, udp) = (port(), port());
        let publish = format!("--publish=127.0.0.1:{tcp}:80");
        let other = format!("--publish={udp}:53/udp");
        let line = format!("perl -e '{UDP_SERVER}' & exec perl -e '{SERVER}'");
        let words = env.line(&["--net", helper, &publish, &other], &line).words();
        let (run, mut stdout) = Running::start(words);
        assert_eq!(read(&mut stdout, 6), "up\nup\n");
        let mut answer = String::new();
        until("an answer", || {
            answer.clear();
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, tcp));
            let asked = stream.and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                stream.read_to_string(&mut answer)
            });
            asked.is_ok_and(|bytes| bytes > 0)
        });
        assert_eq!(answer, "hello\n", "{helper}");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(read(&mut stdout, 8)));
        until("a datagram", || {
            socket.send_to(b"who", (Ipv4Addr::LOCALHOST, udp)).unwrap();
            heard.recv_timeout(Duration::from_millis(50)).is_ok_and(|text| text == "got who\n")
        });
        let there = helpers(run.0.id());
        assert_eq!(there.len(), 1, "{helper}: {there:?}");
        // Not even a supervisor that has no last words leaves it behind.
        drop(run);
        until("an orphan", || !std::path::Path::new(&format!("/proc/{}", there[0])).exists());
        drop(env.sandbox(&["gc"]).run().ok());
    }
}

#[test]
fn the_hosts_loopback_is_closed() {
    let env = debian();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let number = listener.local_addr().unwrap().port().to_string();
    let any = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for net in ["none", "pasta", "slirp4netns"] {
        let gateway = "set -- $(sed -n '2s/^[^\\t]*\\t[^\\t]*\\t\\(..\\)\\(..\\)\\(..\\)\\(..\\).*/0x\\4 0x\\3 0x\\2 0x\\1/p' /proc/net/route); \
            [ $# = 4 ] && gateway=$(($1)).$(($2)).$(($3)).$(($4)) || gateway=127.0.0.1";
        let line = format!(
            "{gateway}; for host in 127.0.0.1 10.0.2.2 $gateway; do perl -e '{CLIENT}' $host {number}; done"
        );
        let out = env.line(&["--net", net], &line).run().ok();
        let text = out.text();
        drop(out.check(!text.contains("connected"), "the host's loopback is open"));
        assert!(listener.accept().is_err(), "{net}");
    }
    drop(any);
}

#[test]
fn names_are_found() {
    let env = debian();
    let hosts = ["--add-host", "mirror.example:10.9.8.7", "--add-host", "six:[fd00::7]"];
    let line = "cat /etc/hosts";
    for net in ["none", "host", "pasta", "slirp4netns"] {
        let out = env.line(&[&hosts[..], &["--net", net]].concat(), line).run().ok().stderr("");
        drop(
            out.says("10.9.8.7\tmirror.example\n")
                .says("fd00::7\tsix\n")
                .says("127.0.0.1\tlocalhost"),
        );
    }
    let line = "grep -c . /proc/net/route; cat /etc/resolv.conf";
    drop(env.line(&["--net", "slirp4netns"], line).run().ok().says("nameserver 10.0.2.3\n"));
    let out = env.line(&["--net", "pasta"], line).run().ok().says("nameserver ");
    let text = out.text();
    drop(out.check(!text.contains("nameserver 127."), "a loopback of the host"));
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    drop(env.line(&["--net", "host"], "cat /etc/resolv.conf").run().ok().stdout(&host));
    // Where the layer has a link into /run, as with systemd-resolved.
    let line =
        "rm -f /etc/resolv.conf; ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf";
    let own = Env::filled();
    drop(own.line(&["--commit", "link"], line).run().ok());
    for (net, what) in [("host", host.as_str()), ("slirp4netns", "nameserver 10.0.2.3\n")] {
        let out = own.line(&["--from", "link", "--net", net], "cat /etc/resolv.conf").run();
        drop(out.ok().says(what));
    }
    drop(own.line(&["--from", "link"], "readlink /etc/resolv.conf").run().ok().says("stub"));
}

/// Landlock's scope: the host's abstract sockets have no owner, and stay out of reach in its network.
#[test]
fn abstract_sockets_of_the_host_are_closed() {
    let env = debian();
    let name = format!("sandbox-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let client = format!(
        "use Socket; socket(S,PF_UNIX,SOCK_STREAM,0); print connect(S,pack_sockaddr_un(\"\\0{name}\"))?\"connected\":$!{{EPERM}}?\"refused\":$!{{ECONNREFUSED}}?\"nobody\":\"$!\""
    );
    let run = |net: &str| {
        env.sandbox(&["run", "--net", net, "--", "perl", "-MErrno", "-e", &client]).run().ok()
    };
    drop(run("host").stdout("refused").stderr(""));
    drop(run("none").stdout("nobody"));
    assert!(listener.accept().is_err());
    // Those of its own work.
    let own = "use Socket; socket(S,PF_UNIX,SOCK_STREAM,0); bind(S,pack_sockaddr_un(\"\\0own\")); listen(S,1); \
        socket(C,PF_UNIX,SOCK_STREAM,0); print connect(C,pack_sockaddr_un(\"\\0own\"))?\"connected\":$!";
    for net in ["host", "none"] {
        let out = env.sandbox(&["run", "--net", net, "--", "perl", "-e", own]).run();
        drop(out.ok().stdout("connected"));
    }
}

#[test]
fn networks_that_cannot_be() {
    let env = Env::filled();
    let state = env.state();
    for (flags, why) in [
        (&["--net", "bridge"][..], "use none, host, pasta or slirp4netns"),
        (&["--publish", "80:80"], "--publish: this network has no ports"),
        (&["--publish", "80:80", "--net", "host"], "--publish: this network has no ports"),
        (&["--publish", "80", "--net", "pasta"], "HOST:INNER"),
        (&["--publish", "0:80", "--net", "pasta"], "not a port: 0"),
        (&["--add-host", "a"], "NAME:IP"),
    ] {
        let out = env.sandbox(&["run"]).args(flags).args(["--", "true"]).run();
        drop(out.stdout("").code(125).warns(why));
    }
    // A port that somebody has.
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let publish = format!("--publish={}:80", taken.local_addr().unwrap().port());
    for helper in HELPERS {
        let out = env.sandbox(&["run", "--net", helper, &publish, "--", "true"]).run();
        drop(out.stdout("").fault(125, "already in use", "take one that is free"));
    }
    assert_eq!(env.state(), state);
}

/// What makes the network must not die unseen.
#[test]
fn a_network_that_is_gone_ends_the_run() {
    let env = debian();
    for helper in HELPERS {
        let words = env.line(&["--net", helper], "echo up; sleep 1000").words();
        let (mut run, mut stdout) = Running::start(words);
        assert_eq!(read(&mut stdout, 3), "up\n");
        let there = helpers(run.0.id());
        assert!(Command::new("kill").arg("-9").args(&there).status().unwrap().success());
        let mut said = String::new();
        run.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(run.0.wait().unwrap().code(), Some(137), "{helper}");
        assert!(said.contains("a process that it cannot do without has failed"), "{said}");
    }
}
