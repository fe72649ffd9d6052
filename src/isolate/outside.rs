//! A network of its own that reaches the outside: by a program beside the run, pasta(1) or slirp4netns(1), which
//! needs no privilege. Here its command line and what the command finds in /etc/resolv.conf are decided;
//! `run/network.rs` starts it.
//!
//! Both are told to keep the host's own loopback closed: else 127.0.0.1 of the host would be reachable at the
//! gateway's address, and with it whatever listens there and trusts its neighbours.

use std::ffi::{CString, OsStr};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::{env, fs};

use crate::fault::{Fault, Result, printable};

/// The program that makes the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// Of the package passt.
    Pasta,
    /// Of the package of this name.
    Slirp4netns,
}

/// A port of the host that leads to one inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// The address of the host; all if none.
    pub address: Option<IpAddr>,
    /// The port of the host.
    pub host: u16,
    /// The port inside.
    pub inner: u16,
    /// UDP, not TCP.
    pub udp: bool,
}

/// Where pasta hands queries for names to the host's own server, also to one on its loopback.
const FORWARDED: &str = "169.254.1.1";
/// slirp4netns has a server of its own there.
const SLIRP_SERVER: &str = "10.0.2.3";
/// The address inside that slirp4netns gives.
pub const SLIRP_INNER: &str = "10.0.2.100";
/// The names of files in the helper's directory.
pub const PID_FILE: &str = "ready";
/// Of the socket that slirp4netns takes ports by.
pub const API_SOCKET: &str = "api";

/// Reads `[IP:]HOST:INNER[/tcp|/udp]`; an IPv6 address stands in brackets.
///
/// # Errors
/// Usage for any other form, and for port 0.
pub fn publish(text: &str) -> Result<Publish> {
    let form =
        || Fault::usage("write [IP:]HOST:INNER[/udp], such as 8080:80 or 127.0.0.1:53:53/udp");
    let (ports, udp) = match text.rsplit_once('/') {
        Some((ports, "udp")) => (ports, true),
        Some((ports, "tcp")) => (ports, false),
        Some(_) => return Err(form()),
        None => (text, false),
    };
    let (rest, inner) = ports.rsplit_once(':').ok_or_else(form)?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => {
            let bare = address.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            let parsed = match bare {
                Some(bare) => bare.parse().map(IpAddr::V6).ok(),
                None => address.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
            };
            let shown = printable(address);
            (Some(parsed.ok_or_else(|| Fault::usage(format!("not an address: {shown}")))?), host)
        }
        None => (None, rest),
    };
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(Fault::usage(format!("not a port: {}", printable(text)))),
    };
    Ok(Publish { address, host: port(host)?, inner: port(inner)?, udp })
}

/// Reads `NAME:IP` of `--add-host`.
///
/// # Errors
/// Usage for any other form.
pub fn add_host(text: &str) -> Result<(String, IpAddr)> {
    let form = || Fault::usage("write NAME:IP, such as mirror:10.0.0.7");
    let (name, address) = text.split_once(':').ok_or_else(form)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(allowed) {
        return Err(form());
    }
    let bare = address.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(address);
    let address = bare
        .parse()
        .map_err(|_| Fault::usage(format!("not an address: {}", printable(address))))?;
    Ok((name.to_owned(), address))
}

impl Helper {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Finds the program.
    ///
    /// # Errors
    /// A host fault with the name of its package.
    pub fn find(self) -> Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
        let folders = env::split_paths(&path).filter(|folder| folder.is_absolute()).chain(usual);
        let found = folders.map(|folder| folder.join(self.name())).find(|path| {
            rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
        });
        let package = match self {
            Self::Pasta => "passt",
            Self::Slirp4netns => "slirp4netns",
        };
        found.ok_or_else(|| {
            Fault::host(format!("--net {}: PATH, /usr/bin: no such program", self.name()))
                .hint(format!("install the package {package}, or use --net none or --net host"))
        })
    }

    /// Its arguments, for a network namespace that is `netns` as a path. Its working directory is one of its
    /// own, where [`PID_FILE`] and [`API_SOCKET`] are made.
    pub fn arguments(
        self,
        netns: &str,
        id: u32,
        published: &[Publish],
        resolver: &Resolver,
    ) -> Vec<String> {
        match self {
            Self::Pasta => pasta(netns, id, published, resolver),
            Self::Slirp4netns => slirp(netns, published),
        }
    }
}

fn pasta(netns: &str, id: u32, published: &[Publish], resolver: &Resolver) -> Vec<String> {
    let mut words: Vec<String> = [
        "--config-net",
        // Who it is started as: where that is root, pasta would become nobody, who may not enter.
        "--runas",
        &format!("{id}:{id}"),
        "--no-map-gw",
        "--quiet",
        "--foreground",
        "--netns-only",
        "--no-netns-quit",
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
        "--pid",
        PID_FILE,
    ]
    .map(str::to_owned)
    .to_vec();
    for (udp, flag) in [(false, "--tcp-ports"), (true, "--udp-ports")] {
        let mine = published.iter().filter(|one| one.udp == udp);
        let before = words.len();
        for Publish { address, host, inner, .. } in mine {
            let address = address.map_or(String::new(), |address| format!("{address}/"));
            words.extend([flag.to_owned(), format!("{address}{host}:{inner}")]);
        }
        if words.len() == before {
            words.extend([flag.to_owned(), "none".to_owned()]);
        }
    }
    if resolver.forwarded {
        words.extend(["--dns-forward".to_owned(), FORWARDED.to_owned()]);
    }
    words.extend(["--netns".to_owned(), netns.to_owned()]);
    words
}

fn slirp(netns: &str, published: &[Publish]) -> Vec<String> {
    let mut words: Vec<String> = [
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        "--ready-fd=3",
        "--netns-type=path",
    ]
    .map(str::to_owned)
    .to_vec();
    if !published.is_empty() {
        words.extend(["--api-socket".to_owned(), API_SOCKET.to_owned()]);
    }
    words.extend([netns.to_owned(), "tap0".to_owned()]);
    words
}

/// The order that slirp4netns takes for a port.
pub fn slirp_order(publish: &Publish) -> String {
    let Publish { address, host, inner, udp } = publish;
    let proto = if *udp { "udp" } else { "tcp" };
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    serde_json::json!({"execute": "add_hostfwd", "arguments": {
        "proto": proto, "host_addr": address.to_string(), "host_port": host,
        "guest_addr": SLIRP_INNER, "guest_port": inner,
    }})
    .to_string()
}

/// Who answers for names inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// /etc/resolv.conf inside.
    pub text: String,
    /// Whether pasta has to hand queries on to the host's own server.
    forwarded: bool,
}

/// What the host's files say, for a network that does not have the host's loopback. The stub of systemd-resolved
/// is replaced by the servers behind it.
pub fn resolver(helper: Helper) -> Resolver {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let own = read("/etc/resolv.conf");
    let behind = || read("/run/systemd/resolve/resolv.conf");
    resolver_of(helper, &own, behind)
}

fn resolver_of(helper: Helper, own: &str, behind: impl FnOnce() -> String) -> Resolver {
    let outside = |text: &str| -> Vec<String> {
        let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        let servers = servers.filter_map(|rest| rest.split_whitespace().next());
        let reachable = |server: &&str| {
            let address = server.split('%').next().unwrap_or_default().parse::<IpAddr>();
            address.is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
                && !server.contains('%')
        };
        servers.filter(reachable).map(str::to_owned).collect()
    };
    let mut servers = outside(own);
    let mut forwarded = false;
    if helper == Helper::Slirp4netns {
        servers = vec![SLIRP_SERVER.to_owned()];
    } else if servers.is_empty() {
        servers = outside(&behind());
        forwarded = servers.is_empty();
        if forwarded {
            servers.push(FORWARDED.to_owned());
        }
    }
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let kept =
        |line: &&str| ["search", "options", "domain"].iter().any(|word| line.starts_with(word));
    text.extend(own.lines().map(str::trim).filter(kept).map(|line| format!("{line}\n")));
    Resolver { text, forwarded }
}

/// A program and its words, as execve(2) takes them.
///
/// # Errors
/// Usage if a word holds a null byte.
pub fn c_words<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Result<Vec<CString>> {
    let word = |word: &OsStr| CString::new(word.as_bytes());
    words
        .into_iter()
        .map(word)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Fault::usage("the program of the network: a word holds a null byte"))
}

#[cfg(test)]
#[path = "outside_tests.rs"]
mod tests;
