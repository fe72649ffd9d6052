//! The flags of `run` and `shell` about the network, besides its kind.

use std::net::IpAddr;

use clap::Args;

use crate::fault::{Fault, Result};
use crate::isolate::outside::{self, Helper, Publish};
use crate::ops::run::Net;
use crate::ops::run::network::Details;

/// Ports and names.
#[derive(Debug, Default, Args)]
pub(super) struct NetFlags {
    /// Lead a port of the host to one inside, with --net pasta or slirp4netns
    #[arg(
        long,
        value_name = "[IP:]HOST:INNER[/udp]",
        value_parser = outside::publish,
        help_heading = "What the command finds"
    )]
    publish: Vec<Publish>,

    /// Add a name to /etc/hosts inside
    #[arg(
        long,
        value_name = "NAME:IP",
        value_parser = outside::add_host,
        help_heading = "What the command finds"
    )]
    add_host: Vec<(String, IpAddr)>,
}

impl NetFlags {
    /// What was typed.
    pub(super) fn details(self) -> Details {
        Details { published: self.publish, hosts: self.add_host }
    }
}

/// The value of `--net`.
pub(super) fn net(text: &str) -> Result<Net> {
    match text {
        "none" => Ok(Net::None),
        "host" => Ok(Net::Host),
        "pasta" => Ok(Net::Outside(Helper::Pasta)),
        "slirp4netns" => Ok(Net::Outside(Helper::Slirp4netns)),
        _ => Err(Fault::usage("use none, host, pasta or slirp4netns")),
    }
}
