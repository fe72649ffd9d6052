//! Files and directories of ours: there, of the right type, owner and mode, and nothing else beside them.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use rustix::io::Errno;

use super::{DamageKind, Remedy, Survey};
use crate::fault::{Result, is_of_the_disk, why};
use crate::store::{Store, file, layout};
use crate::tree::dir::Names;

impl Store {
    pub(super) fn has_lock(&self) -> Result<bool> {
        Ok(self.look(layout::LOCK)?.is_some())
    }

    /// lstat(2) of something in the store, if it is there.
    pub(super) fn look(&self, path: &str) -> Result<Option<Stat>> {
        match statat(self.dir(), path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.unread("look at", path, errno)),
        }
    }

    /// A directory that must be there; says whether it is.
    pub(super) fn own_folder(&self, survey: &mut Survey, path: &str) -> Result<bool> {
        let Some(stat) = self.look(path)? else {
            survey.record(None, path, "the directory is missing", Remedy::MakeFolder);
            return Ok(false);
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            survey.record(None, path, "it is no directory", Remedy::Remove);
            return Ok(false);
        }
        self.own_mode(survey, path, &stat, 0o700);
        Ok(true)
    }

    /// A directory that must be there, and is looked into; says whether all of it can be read.
    pub(super) fn enter_folder(&self, survey: &mut Survey, path: &str) -> Result<bool> {
        if !self.own_folder(survey, path)? {
            return Ok(false);
        }
        match file::open_dir(self.dir(), path).and_then(|dir| Names::read(dir.as_fd())) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // What it holds may be there yet for whoever checks the file system: it is not taken away.
            Err(errno) if is_of_the_disk(errno) => {
                survey.record(None, path, &why(errno), Remedy::None);
                survey.unread.insert(path.to_owned());
                Ok(false)
            }
            Err(errno) => Err(self.unread("read directory", path, errno)),
        }
    }

    /// A file that must be there, empty ones can be made again; says whether it can be read.
    pub(super) fn own_file(&self, survey: &mut Survey, path: &str, empty: bool) -> Result<bool> {
        if self.look(path)?.is_none() {
            let remedy = if empty { Remedy::MakeFile } else { Remedy::None };
            survey.record(None, path, "the file is missing", remedy);
            return Ok(false);
        }
        self.own_file_if_any(survey, path)
    }

    /// A file that may be there; says whether it is and can be read.
    pub(super) fn own_file_if_any(&self, survey: &mut Survey, path: &str) -> Result<bool> {
        let Some(stat) = self.look(path)? else { return Ok(false) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            survey.record(None, path, "it is no regular file", Remedy::Remove);
            return Ok(false);
        }
        self.own_mode(survey, path, &stat, 0o600);
        Ok(true)
    }

    pub(super) fn own_mode(&self, survey: &mut Survey, path: &str, stat: &Stat, mode: u32) {
        survey.mode(path, stat, mode);
        // A layer that was made in `range` mode belongs to root inside; who that is, records of boxes say.
        let inside = || {
            survey.unread.iter().any(|path| path.starts_with(layout::BOXES))
                || survey.boxes.iter().any(|one| one.id_map.root_owner().0 == stat.st_uid)
        };
        if stat.st_uid != self.owner && !inside() {
            let why = format!("belongs to user id {}", stat.st_uid);
            survey.found(None, path.as_bytes(), DamageKind::Metadata, &why, Remedy::None);
        }
    }

    /// What lies in a directory of ours and is not `known`. Unfinished entries are noted.
    pub(super) fn strays(
        &self,
        survey: &mut Survey,
        folder: &str,
        known: impl Fn(&str) -> bool,
    ) -> Result<()> {
        for name in self.raw_names(folder)? {
            let text = str::from_utf8(&name);
            if text.is_ok_and(&known) {
                continue;
            }
            let path = match folder {
                "." => name.clone(),
                _ => [folder.as_bytes(), b"/", &name].concat(),
            };
            if text.is_ok_and(|name| name.starts_with(layout::UNFINISHED)) {
                survey.note(&String::from_utf8_lossy(&path), "was never finished: gc removes it");
            } else if !self.ignores_strays {
                survey.found(None, &path, DamageKind::Extra, "is not ours", Remedy::Remove);
            }
        }
        Ok(())
    }

    /// All names in a directory, also those that are not UTF-8, sorted; none if it is not there.
    pub(super) fn raw_names(&self, folder: &str) -> Result<Vec<Vec<u8>>> {
        let read = || -> Result<Vec<Vec<u8>>, Errno> {
            let dir = file::open_dir(self.dir(), folder)?;
            let mut names = Vec::new();
            for entry in Dir::read_from(dir.as_fd())? {
                let entry = entry?;
                match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => names.push(name.to_vec()),
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        match read() {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
            other => other.map_err(|errno| self.unread("read directory", folder, errno)),
        }
    }
}
