//! Container images, written without a builder, a daemon or root: podbeat's own, and small ones for tests.
//! Here lives what is in an image ([`Image`], [`Entry`]), how it becomes an archive of the OCI image layout or a
//! directory, and what podbeat's image holds ([`podbeat`]).
//! Never here: a registry, a base image, or anything taken from the host that isn't named by the caller. The same
//! entries make the same bytes, always and everywhere.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use podbeat_image::{Architecture, Entry, Image};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let busybox = std::fs::read("/bin/busybox")?;
//! let architecture = Architecture::of(&busybox)?;
//! let entries = vec![Entry::file("/bin/busybox", 0o755, busybox), Entry::link("/bin/sh", "busybox")];
//! let mut image = Image::new("localhost/task:1", architecture, entries);
//! image.entrypoint = vec!["/bin/sh".to_owned(), "-c".to_owned()];
//! image.write_archive(Path::new("task.tar"), None)?;
//! # Ok(())
//! # }
//! ```

pub mod elf;
mod files;
mod image;
mod layout;
pub mod podbeat;

pub use elf::Architecture;
pub use files::{Entry, Error as FilesError};
pub use image::{Error, Image, Sizes};
