//! `run --dry-run`.

use serde::Serialize;

use super::{RunOptions, defaults, out, resolve, who};
use crate::fault::Result;
use crate::ids::IdMap;
use crate::isolate::lost::Lost;
use crate::rootfs::copy_up::CopyUp;
use crate::store::{BoxName, Store};

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// The command.
    pub argv: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// Its working directory.
    pub workdir: String,
    /// The ids inside and outside.
    pub id_map: IdMap,
    /// Who it is; inside root if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its capabilities.
    pub capabilities: Vec<String>,
    /// The layers, top first.
    pub lowers: Vec<String>,
    /// The mounts, in order.
    pub mounts: Vec<String>,
    /// What is copied up then, if it is there.
    pub copy_up: Vec<String>,
    /// Its limits.
    pub limits: Vec<String>,
    /// The protections it would go without.
    pub lost: Vec<Lost>,
}

/// Says what a run would do. Makes nothing (but, where it can, the entry of a filter in the cache), so that the store may be one
/// that nobody can write to.
///
/// # Errors
/// As [`super::run`], for everything that is decided before the run begins.
pub fn plan(store: &Store, box_name: &BoxName, options: &RunOptions) -> Result<DryRun> {
    out::check(&options.outs)?;
    let lock = store.lock_shared()?;
    let base = resolve::base(store, box_name, options)?;
    // What the mount would find out.
    store.openable(&base.layer.id)?;
    let options = &*defaults::fill_in(options, &base)?;
    let settings = resolve::settings(store, &lock, &base, options, true)?;
    drop(lock);
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(DryRun {
        argv: settings.argv.iter().map(|word| show(word.as_bytes())).collect(),
        environment: settings.environment.iter().map(|line| show(line.as_bytes())).collect(),
        workdir: match who::ordinary(options) {
            // Where that is, the tree knows.
            Some(ordinary) if ordinary.at_home => "~".to_owned(),
            _ => settings.workdir.to_string_lossy().into_owned(),
        },
        id_map: who::map(&base.id_map, options.as_user).into_owned(),
        user: settings.user.map(|user| user.to_string()),
        capabilities: settings.profile.capabilities.names(),
        lowers: settings.lowers.clone(),
        mounts: settings.plan.describe(),
        copy_up: settings.copy_up.iter().map(CopyUp::describe).collect(),
        limits: settings.limits.describe(),
        lost: settings.lost,
    })
}
