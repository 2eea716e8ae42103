//! The run of one pod of an Indexed Job. All pods of a Job have the same annotations, so the
//! annotation contains a pattern for the run's ID, and the completion index distinguishes the pods.

/// The placeholder for the index in a run's ID.
const PLACE: &str = "{index}";

/// Returns the run's ID for the pod with this index: `trn.1234-{index}` becomes `trn.1234-0` in the
/// first pod. A pattern without `{index}` is the ID itself. Returns `None` if the pattern needs an
/// index and there is none.
#[must_use]
pub fn run_id(pattern: &str, index: Option<u32>) -> Option<String> {
    if !pattern.contains(PLACE) {
        return Some(pattern.to_owned());
    }
    index.map(|index| pattern.replace(PLACE, &index.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_takes_its_place_wherever_it_stands() {
        for (pattern, index, id) in [
            ("trn.1", None, Some("trn.1")),
            ("trn.1", Some(4), Some("trn.1")),
            ("trn.1-{index}", Some(0), Some("trn.1-0")),
            ("{index}/{index}", Some(12), Some("12/12")),
            ("trn.1-{index}", None, None),
            // Only these seven characters are the placeholder.
            ("trn.{Index}{}{0}", None, Some("trn.{Index}{}{0}")),
        ] {
            assert_eq!(run_id(pattern, index).as_deref(), id, "{pattern}");
        }
    }
}
