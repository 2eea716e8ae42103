//! File sizes.

use std::path::Path;

use super::{Measured, Subject};
use crate::{Error, io};

pub(super) fn measure(subject: &Subject) -> Result<Vec<Measured>, Error> {
    Ok(vec![
        ("binary", size(&subject.program)?),
        ("image", size(&subject.image)?),
    ])
}

#[expect(
    clippy::cast_precision_loss,
    reason = "files are far smaller than 2^52 bytes"
)]
fn size(path: &Path) -> Result<f64, Error> {
    let metadata = std::fs::metadata(path)
        .map_err(io(format!("reading {}; build it first", path.display())))?;
    Ok(metadata.len() as f64)
}
