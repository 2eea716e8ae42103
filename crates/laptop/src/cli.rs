//! The flags of these commands, and how the commands end.

mod endings;
pub mod explain;
pub mod observe;
pub mod runs;

use std::error::Error;

use podbeat_task_runs::model::InvalidSort;

pub use endings::ENDINGS;

use self::runs::mapping::InvalidMapping;
use crate::runs::image_reference::Unfit;

/// The text of an error of these commands' own parsers of values. Their errors never repeat the
/// value. `None` for any other error.
#[must_use]
pub fn wrong(error: &(dyn Error + 'static)) -> Option<String> {
    let image = error.downcast_ref::<Unfit>().map(ToString::to_string);
    let sort = || error.downcast_ref::<InvalidSort>().map(ToString::to_string);
    let mapping = || {
        error
            .downcast_ref::<InvalidMapping>()
            .map(ToString::to_string)
    };
    image.or_else(sort).or_else(mapping)
}
