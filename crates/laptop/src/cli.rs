//! The flags of these commands, and how they end.

mod endings;
pub mod explain;
pub mod observe;
pub mod runs;

pub use endings::ENDINGS;
