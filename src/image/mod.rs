//! Images, in and out: archives, tar, and where the tree of a new box comes from.
//!
//! What is read here is hostile. Extraction works by descriptor beneath its target and refuses what could
//! lead out of it or forge the notes of overlayfs; it runs inside the user namespace of the box.

pub mod archive;
pub mod mmdebstrap;
pub mod source;
pub mod tar;

#[cfg(test)]
mod tests;

pub use source::Source;
