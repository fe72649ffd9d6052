//! What the end-to-end tests stand on: a hermetic environment, a command whose whole output is shown when
//! something is not as expected, and small trees to start from.

pub(crate) mod command;
pub(crate) mod env;
pub(crate) mod left;
pub(crate) mod mode;
pub(crate) mod packages;
pub(crate) mod tree;

pub(crate) use command::{Cmd, Out};
pub(crate) use env::{Env, binary};
pub(crate) use mode::{Ids, ids};
pub(crate) use tree::{debian, tiny};
