//! What a user can do, one file per operation: typed arguments in, plain data out (its serde form is the
//! JSON of the command line). Nothing here prints.

pub mod adopt;
pub mod boxes;
pub mod budget;
mod commit;
mod copyup;
pub mod cp;
pub mod df;
pub mod diff;
pub mod doctor;
pub mod exec;
mod fresh;
pub mod fsck;
pub mod gc;
pub mod in_time;
pub mod init;
mod layermaps;
pub mod list;
pub mod log;
mod owners;
pub mod profile;
pub mod recover;
pub mod rm;
pub mod rollback;
pub mod run;
pub mod scrub;
mod seal;
pub mod settings;
pub mod show;
pub mod snapshot;
pub mod start;
pub mod stay;
pub mod trash;
pub mod undo;
pub mod unshare;
mod usage;
mod verify;
pub mod words;

#[cfg(test)]
mod tests;
