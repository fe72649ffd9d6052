//! What its mode closes to us: after a chmod -R, or a backup that was restored by somebody else.
//!
//! Nothing is known of what lies in there, and nothing may follow from that: a box whose names cannot be read has not
//! lost them. So this is looked for first, and what else is wrong only when it has been opened.

use rustix::fs::{Access, AtFlags, FileType, accessat};

use super::{Remedy, Survey};
use crate::fault::Result;
use crate::store::{Store, layout};

impl Store {
    /// Whether the mode of something in the store forbids us to read it, or to go into it. The superuser it does not.
    pub(super) fn is_closed(&self, path: &str, kind: FileType) -> bool {
        let wanted = match kind {
            FileType::Directory => Access::READ_OK | Access::EXEC_OK,
            _ => Access::READ_OK,
        };
        accessat(self.dir(), path, wanted, AtFlags::empty()) == Err(rustix::io::Errno::ACCESS)
    }

    /// Looks at all that is ours but what lies in trees, in the trash and in the cache.
    pub(super) fn look_for_closed(&self, survey: &mut Survey) -> Result<()> {
        let ends = [layout::LOCK, layout::FORMAT, layout::SETTINGS];
        for path in layout::FOLDERS.into_iter().chain(ends) {
            self.closed_at(survey, path)?;
        }
        Ok(())
    }

    fn closed_at(&self, survey: &mut Survey, path: &str) -> Result<()> {
        if is_foreign(path) {
            return Ok(());
        }
        let Some(stat) = self.look(path)? else { return Ok(()) };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = match kind {
            FileType::Directory => 0o700,
            FileType::RegularFile => 0o600,
            // It should not be there at all.
            _ => return Ok(()),
        };
        if self.is_closed(path, kind) {
            let known = survey.findings.len();
            self.own_mode(survey, path, &stat, mode);
            if survey.findings.len() == known {
                // Mode and owner are right: an access control list, or a security module.
                survey.record(None, path, "it cannot be read: permission denied", Remedy::None);
            }
            survey.unread.insert(path.to_owned());
        } else if kind == FileType::Directory && ![layout::TRASH, layout::CACHE].contains(&path) {
            for name in self.names(path).unwrap_or_default() {
                self.closed_at(survey, &format!("{path}/{name}"))?;
            }
        }
        Ok(())
    }
}

/// Whether it belongs to those who run things inside, with whatever mode they gave it.
fn is_foreign(path: &str) -> bool {
    let mut parts = path.splitn(3, '/');
    match (parts.next(), parts.nth(1)) {
        (Some(layout::LAYERS), Some(inner)) => inner == "fs",
        (Some(layout::RUNS), Some(inner)) => layout::FOREIGN_IN_RUN.contains(&inner),
        _ => false,
    }
}
