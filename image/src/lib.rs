//! Container images, written without a builder, a daemon or root: podbeat's own, and small ones for tests.
//! Here lives what is in an image ([`Image`], [`Entry`]), how it becomes an archive of the OCI image layout or a
//! directory, and what podbeat's image holds ([`podbeat`]).
//! Never here: a registry, a base image, or anything taken from the host that isn't named by the caller. The same
//! entries make the same bytes, always and everywhere.

pub mod elf;
mod files;
mod image;
mod layout;
pub mod podbeat;

pub use files::{Entry, Error as FilesError};
pub use image::{Error, Image, Sizes};
