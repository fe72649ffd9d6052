//! The store of a sandbox inside the sandbox, as mounts.

use super::{MountPlan, Op, Source};

pub use crate::remedy::NEST;

impl MountPlan {
    /// Adds the store of a sandbox inside: the directory `nest` of the run, and in it `layers`, the names of
    /// those that are lent, each as a read-only mount of its own.
    pub fn add_nest<'a>(&mut self, layers: impl Iterator<Item = &'a str>) {
        let bind = |source, target: String, read_only| Op::Bind {
            source,
            target: target.into(),
            read_only,
            required: true,
        };
        let mut ops = vec![
            Op::Directory { target: NEST.into(), mode: 0o755 },
            bind(Source::Run("nest"), NEST.to_owned(), false),
        ];
        ops.extend(layers.map(|layer| {
            let tree = format!("layers/{layer}/fs");
            bind(Source::Store(tree.clone()), format!("{NEST}/{tree}"), true)
        }));
        let last = self.ops.iter().position(|op| *op == Op::Proc).unwrap_or(self.ops.len());
        self.ops.splice(last..last, ops);
    }
}
