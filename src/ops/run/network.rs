//! The network of a run: which one, what makes it, and what of the host's stays closed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::{Net, RunOptions};
use crate::fault::{Context, Fault, Result, printable};
use crate::isolate::outside::{self, Publish};
use crate::isolate::profile::{Network, Profile};
use crate::run::network::Outside;

/// What was typed about the network besides its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Ports of the host that lead inside.
    pub published: Vec<Publish>,
    /// Names for /etc/hosts inside.
    pub hosts: Vec<(String, IpAddr)>,
}

/// The network of a run, decided.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) net: Net,
    /// What fills it.
    pub(super) outside: Option<Outside>,
}

/// Whether a port can be had: the programs differ in what they say of one that cannot, and some say nothing.
fn free(publish: &Publish) -> Result<()> {
    let address = publish.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let place = SocketAddr::new(address, publish.host);
    let bound = match publish.udp {
        true => UdpSocket::bind(place).map(drop),
        false => TcpListener::bind(place).map(drop),
    };
    bound.context("publish: port", place).map_err(|fault| {
        fault.hint("take one that is free, and from 1024 on; `[IP:]HOST:INNER` names an address of this machine")
    })
}

/// Decides.
///
/// # Errors
/// Usage for ports without a network that could have them; a host fault if its program is missing.
pub(super) fn plan(options: &RunOptions, profile: &Profile) -> Result<Plan> {
    let net = options.net.unwrap_or(match profile.network {
        Network::None => Net::None,
        Network::Host => Net::Host,
    });
    let published = &options.network.published;
    let mut plan = Plan { net, outside: None };
    match net {
        Net::Outside(helper) => {
            let program = helper.find()?;
            published.iter().try_for_each(free)?;
            let (published, resolver) = (published.clone(), outside::resolver(helper));
            plan.outside = Some(Outside { helper, program, published, resolver });
        }
        _ if !published.is_empty() => {
            return Err(Fault::usage("--publish: this network has no ports of its own to lead to")
                .hint("add --net pasta, or --net slirp4netns"));
        }
        Net::None | Net::Host => {}
    }
    Ok(plan)
}

/// The name of the host inside.
///
/// # Errors
/// Usage for what is none.
pub(super) fn hostname(name: &str) -> Result<String> {
    let fits = (1..=64).contains(&name.len());
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if fits && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    let shown = printable(name);
    Err(Fault::usage(format!("host name: {shown}: not 1 to 64 letters, digits, `.`, `_`, `-`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_plain() {
        assert!(hostname("build-1.example").is_ok());
        for name in ["", "a b", "a/b", "a\n", &"x".repeat(65)] {
            assert!(hostname(name).is_err(), "{name:?}");
        }
    }
}
