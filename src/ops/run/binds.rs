//! What is bound into a run, from a typed path to one that cannot lead elsewhere any more.

use std::path::{Path, PathBuf};

use super::resolve::Base;
use super::{Bind, RunOptions};
use crate::fault::{Context, Fault, Result, printable};
use crate::rootfs::plan::{self, BindMode, MountPlan, Op, Source};
use crate::store::{Cache, SharedLock, SnapshotName, Store};

/// Where a bind source really lies. What the user named was looked at already, and must not be resolved a second time:
/// a symlink put there meanwhile would lead to where it was never allowed to (CVE-2024-42472).
pub(super) fn canonical(source: &Source) -> Result<PathBuf> {
    match source {
        // Often a symlink; what is bound is what it leads to.
        Source::Host(path) if path == Path::new(plan::RESOLV_CONF) => {
            path.canonicalize().context("bind", printable(&path.to_string_lossy()))
        }
        Source::Host(path) => Ok(path.clone()),
        Source::Store(path) => Ok(path.into()),
        Source::Run(path) => Ok(path.into()),
    }
}

/// A bind of the host: canonical, so that the child can refuse a path that changes; never base_dir, nor
/// what contains it, nor what lies in it: a payload must not reach the store.
pub(super) fn host_bind(store: &Store, bind: &Bind) -> Result<plan::Bind> {
    let shown = printable(&bind.source.to_string_lossy());
    let source = bind.source.canonicalize().map_err(|error| {
        let fault = Err::<(), _>(error).context("bind", &shown);
        Fault { kind: crate::fault::Kind::Usage, ..fault.err().unwrap_or_else(unreachable_fault) }
    })?;
    let base_dir = store.path().canonicalize().context("resolve", store.path().display())?;
    if leads_to(&source, &base_dir) || leads_to(&base_dir, &source) {
        return Err(Fault::usage(format!("bind: {shown}: it contains or is part of the store"))
            .hint("move the store elsewhere with --base-dir, or bind a smaller directory"));
    }
    if bind.mode == BindMode::Overlay && !source.is_dir() {
        return Err(Fault::usage(format!("bind: {shown}: only a directory can be an overlay")));
    }
    Ok(plan::Bind { source: Source::Host(source), target: bind.target.clone(), mode: bind.mode })
}

/// Whether `path` is `place` or lies in it, also where a bind mount of the host gives it another path.
fn leads_to(path: &Path, place: &Path) -> bool {
    let inode = |path: &Path| {
        let stat = rustix::fs::stat(path).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    let place_inode = inode(place);
    path.starts_with(place)
        || path.ancestors().any(|above| place_inode.is_some() && inode(above) == place_inode)
}

fn unreachable_fault() -> Fault {
    Fault::failed("bind: unknown reason")
}

/// Whether a run is given what another one may write meanwhile: a cache, or a place of the host by whatever mode (the
/// other may have it with writes). Who can write beneath /usr and /etc needs no way out of a sandbox.
pub(super) fn shares(plan: &MountPlan) -> bool {
    let owned = |path: &Path| path.starts_with("/usr") || path.starts_with("/etc");
    plan.ops.iter().any(|op| match op {
        Op::Bind { target, read_only: true, .. } if target == Path::new(plan::RESOLV_CONF) => false,
        Op::Bind { source: Source::Host(path), read_only: true, .. }
        | Op::OverlayBind { source: path, .. } => !owned(path),
        Op::Bind { .. } => true,
        _ => false,
    })
}

/// The persistent caches that are asked for, made when they are first named. Where nothing is to be made (`dry`), only
/// their names are looked at.
pub(super) fn caches(
    store: &Store,
    lock: &SharedLock,
    base: &Base,
    options: &RunOptions,
    dry: bool,
) -> Result<Vec<Cache>> {
    let mut caches = Vec::new();
    for (name, _) in &options.caches {
        let name = cache_name(name)?;
        if !dry {
            caches.push(store.use_cache(lock, &base.box_name, &name, &base.id_map)?);
        }
    }
    Ok(caches)
}

/// The name of a cache, which is made like that of a snapshot.
pub(super) fn cache_name(name: &str) -> Result<SnapshotName> {
    name.parse()
        .map_err(|fault: Fault| Fault::usage(fault.message.replacen("snapshot", "cache", 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_write_is_shared() {
        let shared = |source: &str, target: &str, mode| {
            let source = Source::Host(source.into());
            let binds = vec![plan::Bind { source, target: target.into(), mode }];
            shares(&plan::build(&plan::Request { binds, ..Default::default() }).expect("a plan"))
        };
        let (ro, rw, overlay) = (BindMode::ReadOnly, BindMode::ReadWrite, BindMode::Overlay);
        for (source, mode, wanted) in [
            ("/usr", ro, false),
            ("/etc/ssl", overlay, false),
            ("/usr", rw, true),
            ("/home/me", ro, true),
            ("/home/me", rw, true),
            ("/home/me", overlay, true),
        ] {
            assert_eq!(shared(source, "/mnt", mode), wanted, "{source} {mode:?}");
        }
        let source = Source::Store("caches/x".into());
        let binds = vec![plan::Bind { source, target: "/mnt".into(), mode: rw }];
        let cache = plan::Request { binds, host_network: true, ..Default::default() };
        assert!(shares(&plan::build(&cache).expect("a plan")));
        let network = plan::Request { host_network: true, ..Default::default() };
        assert!(!shares(&plan::build(&network).expect("a plan")));
    }

    #[test]
    fn a_source_is_resolved_once() {
        let dir = tempfile::tempdir().expect("directory");
        let link = dir.path().join("link");
        // What was a directory when it was looked at.
        std::os::unix::fs::symlink("/", &link).expect("link");
        assert_eq!(canonical(&Source::Host(link.clone())).expect("a path"), link);
    }
}
