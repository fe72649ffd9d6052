//! The `sandbox` program: see the library.

fn main() {}
