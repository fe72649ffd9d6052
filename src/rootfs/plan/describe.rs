//! What a plan's steps are, in words and to whoever executes them.

use std::path::Path;

use super::{Op, Source};
use crate::fault::printable;

impl Op {
    /// Whether a run fails without it. The small files of ours, and the host's resolv.conf, are there where a layer has a
    /// place for them.
    pub fn is_required(&self) -> bool {
        !matches!(
            self,
            Self::Text { .. } | Self::Account { .. } | Self::Bind { required: false, .. }
        )
    }

    /// What is mounted there, of a step that may have to make its place in the layers.
    pub fn place(&self) -> Option<&Path> {
        match self {
            Self::Tmpfs { target, .. }
            | Self::Text { target, .. }
            | Self::Account { target, .. }
            | Self::Bind { target, .. }
            | Self::OverlayBind { target, .. } => Some(target),
            _ => None,
        }
    }

    /// What it does, in one line.
    pub fn describe(&self) -> String {
        let show = |path: &Path| printable(&path.to_string_lossy());
        match self {
            Self::Tmpfs { target, mode, limits, exec } => {
                let limits = limits.as_ref().map_or(String::new(), |limits| format!(" {limits}"));
                let noexec = if *exec { "" } else { " noexec" };
                format!("tmpfs {} mode={mode:o}{limits}{noexec}", show(target))
            }
            Self::Devpts { target } => format!("devpts {}", show(target)),
            Self::Directory { target, mode } => format!("directory {} mode={mode:o}", show(target)),
            Self::File { target } => format!("file {}", show(target)),
            Self::Note { target, .. } => format!("file {} of ours", show(target)),
            Self::Symlink { target, to } => format!("symlink {} -> {to}", show(target)),
            Self::Device { name } => format!("device /dev/{name}"),
            Self::Text { target, .. } => format!("file {} of ours", show(target)),
            Self::Account { target, entry } => {
                format!("file {} with id {}, if it has none", show(target), entry.id)
            }
            Self::Bind { source, target, read_only, .. } => {
                let access = if *read_only { "ro" } else { "rw" };
                format!("bind {} on {} {access}", source.describe(), show(target))
            }
            Self::OverlayBind { source, target, .. } => {
                format!("bind {} on {} overlay", show(source), show(target))
            }
            Self::Proc => "proc /proc".to_owned(),
            Self::Mask { target } => format!("mask {}", show(target)),
            Self::ReadOnly { target } => format!("read-only {}", show(target)),
        }
    }
}

impl Source {
    fn describe(&self) -> String {
        match self {
            Self::Host(path) => printable(&path.to_string_lossy()),
            Self::Store(path) => format!("store:{path}"),
            Self::Run(path) => format!("run:{path}"),
        }
    }
}
