//! What is mounted over the layers of a run.

use std::collections::BTreeMap;
use std::path::Path;

use super::resolve::Base;
use super::{Net, RunOptions, binds, network, who};
use crate::fault::{Context, Result, printable};
use crate::isolate::profile::{Profile, Tmp};
use crate::rootfs::plan::{self, BindMode, MountPlan, Op, Source};
use crate::rootfs::scaffold;
use crate::store::{Cache, Store};

/// The mount plan, and for each bind source whether it is a directory.
pub(super) fn plan(
    store: &Store,
    base: &Base,
    options: &RunOptions,
    profile: &Profile,
    hostname: &str,
    network: &network::Plan,
) -> Result<(MountPlan, BTreeMap<Source, bool>)> {
    let mut request = plan::Request {
        binds: Vec::new(),
        tmpfs: options.tmpfs.clone(),
        tmp_in_memory: profile.tmp == Tmp::Memory,
        hostname: hostname.to_owned(),
        host_network: network.net == Net::Host && Path::new("/etc/resolv.conf").exists(),
        resolver: network.outside.as_ref().map(|outside| outside.resolver.text.clone()),
        hosts: options.network.hosts.clone(),
        apt_as_root: keeps_apt_root(profile, base, options),
        ordinary_user: options.as_user,
        masked: profile.masked_paths.clone(),
        read_only: profile.readonly_paths.clone(),
        host_root: base.id_map.has_root_of_outside(),
    };
    for bind in &options.binds {
        request.binds.push(binds::host_bind(store, bind)?);
    }
    for (name, target) in &options.caches {
        let source = Source::Store(Cache::place(&base.box_name, &binds::cache_name(name)?));
        let (target, mode) = (target.clone(), BindMode::ReadWrite);
        request.binds.push(plan::Bind { source, target, mode });
    }
    let mut plan = plan::build(&request)?;
    let mut directories = BTreeMap::new();
    for op in &mut plan.ops {
        if let Op::Bind { source: source @ Source::Host(_), .. } = op {
            let path = binds::canonical(source)?;
            let directory = scaffold::is_directory(&path)
                .context("bind", printable(&path.to_string_lossy()))?;
            *source = Source::Host(path);
            directories.insert(source.clone(), directory);
        }
    }
    plan.make_places(|source| directories.get(source).copied().unwrap_or(true));
    Ok((plan, directories))
}

/// Whether apt is told to fetch as root: with one id there is nobody else it could become, and it looks whether it did.
pub(super) fn keeps_apt_root(profile: &Profile, base: &Base, options: &RunOptions) -> bool {
    profile.remember_ids && who::pretends(&base.id_map, options.as_user)
}
