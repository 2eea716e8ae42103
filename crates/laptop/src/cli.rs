//! The flags of these commands, and how the commands end.

mod endings;
pub mod explain;
pub mod observe;
pub mod runs;

pub use endings::ENDINGS;
