//! A profile as flags change it.

use super::{Profile, Root, Tmp};

impl Profile {
    /// The same with a root that cannot be written; what programs write by habit goes to memory.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.settings.root = Root::Readonly;
        self.settings.tmp = Tmp::Memory;
        self
    }

    /// The same around a sandbox inside, which could have no /proc of its own while parts of the outer one are
    /// covered, and could not remember ids: a process has one listener of system calls.
    #[must_use]
    pub fn around_nest(mut self) -> Self {
        self.settings.masked_paths.clear();
        self.settings.readonly_paths.clear();
        self.settings.remember_ids = false;
        self
    }
}
