//! Builds container images without a builder, a daemon or root: podbeat's own, and small ones for
//! tests.
//! Contains the content of an image ([`Image`], [`Entry`]), how it becomes an archive of the OCI
//! image layout or a directory, the images for several architectures as one ([`index`]), and the
//! content of podbeat's images ([`podbeat`]).
//! Never here: a registry, a base image, or a file of the host that the caller doesn't name. The
//! same entries always produce the same bytes.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use podbeat_image::{Architecture, Entry, Image};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let busybox = std::fs::read("/bin/busybox")?;
//! let architecture = Architecture::of(&busybox)?;
//! let file = Entry::file("/bin/busybox", 0o755, busybox);
//! let entries = vec![file, Entry::link("/bin/sh", "busybox")];
//! let mut image = Image::new("localhost/task:1", architecture, entries);
//! image.entrypoint = vec!["/bin/sh".to_owned(), "-c".to_owned()];
//! image.write_archive(Path::new("task.tar"), None)?;
//! # Ok(())
//! # }
//! ```

pub mod elf;
mod files;
mod image;
pub mod index;
mod layout;
pub mod podbeat;

pub use elf::Architecture;
pub use files::{Entry, Error as FilesError};
pub use image::{Error, Image, Sizes};
