//! The commands that nobody needs in a pod, and the profiles of the person who runs them.
//! Here live `podbeat observe`, `explain` and `runs`, with their flags.
//! Never here: the agent. An observer has no way to the service.

pub mod cli;
pub mod explain;
pub mod observe;
pub mod profiles;
pub mod runs;
mod show;
