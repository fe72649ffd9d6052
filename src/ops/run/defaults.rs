//! What was not said of a run is as its box says.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::time::Instant;

use super::resolve::Base;
use super::{Bind, RunOptions};
use crate::fault::{Context, Fault, Result, printable};
use crate::ops::{in_time, words};
use crate::store::{BoxName, BoxSettings};

/// The options with the settings of the box where nothing was typed: flag before box before profile.
///
/// # Errors
/// Usage for a setting that cannot be used now, such as a bind whose source is gone.
pub(super) fn fill_in<'o>(options: &'o RunOptions, base: &Base) -> Result<Cow<'o, RunOptions>> {
    let settings = &base.settings;
    if *settings == BoxSettings::default() {
        return Ok(Cow::Borrowed(options));
    }
    let mut filled = options.clone();
    filled.profile = filled.profile.or_else(|| settings.profile.clone());
    if !filled.as_user {
        filled.user = filled.user.or_else(|| settings.user.clone());
    }
    // The last word on a variable wins.
    let variables = settings.env.iter().filter_map(|line| line.split_once('='));
    filled.env.splice(0..0, variables.map(|(name, value)| (name.into(), value.into())));
    let binds = binds(settings, &base.box_name, options)?;
    filled.binds.splice(0..0, binds);
    Ok(Cow::Owned(filled))
}

/// The binds of the box, but those over whose target one was typed.
fn binds(settings: &BoxSettings, box_name: &BoxName, options: &RunOptions) -> Result<Vec<Bind>> {
    let mut binds = Vec::with_capacity(settings.binds.len());
    for text in &settings.binds {
        let of_setting = |fault: Fault| {
            let shown = printable(text);
            Fault::usage(format!("run: bind={shown} of box {box_name}: {}", fault.message))
                .hint(format!("take it away with `sandbox box set {box_name} bind-=TARGET`"))
        };
        let bind = words::bind(OsStr::new(text)).map_err(of_setting)?;
        if options.binds.iter().any(|known| known.target == bind.target) {
            continue;
        }
        if let Some(until) = options.until(Instant::now()) {
            in_time::answer_until(&[&bind.source], &[], until)?;
        }
        let shown = bind.source.display();
        fs::metadata(&bind.source).context("look at", shown).map_err(of_setting)?;
        binds.push(bind);
    }
    Ok(binds)
}
