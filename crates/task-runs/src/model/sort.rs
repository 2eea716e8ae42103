//! The order of a list.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The order of a list: one field or several. Runs that are equal in the first field are sorted by
/// the second, and so on. No field occurs twice.
///
/// A text has the fields separated by commas. Each may be followed by `asc` (the default) or
/// `desc`, after a space or a colon. The case of letters does not matter.
///
/// ```
/// use podbeat_task_runs::model::{SortField, SortOrder};
///
/// let order: SortOrder = "status:DESC, name".parse()?;
/// assert_eq!(order.fields(), [SortField::Status.descending(), SortField::Name.ascending()]);
/// assert_eq!(order.to_string(), "status desc,name asc");
/// # Ok::<(), podbeat_task_runs::model::InvalidSort>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SortOrder(Vec<Sort>);

impl SortOrder {
    /// Creates an order from its fields.
    ///
    /// # Errors
    /// There is no field, or a field occurs twice.
    pub fn new(fields: impl IntoIterator<Item = Sort>) -> Result<Self, InvalidSort> {
        let mut order = Vec::new();
        for sort in fields {
            // Checked one by one, so that an endless list ends.
            if order.iter().any(|other: &Sort| other.field == sort.field) {
                return Err(InvalidSort::Twice(sort.field));
            }
            order.push(sort);
        }
        if order.is_empty() {
            return Err(InvalidSort::Empty);
        }
        Ok(Self(order))
    }

    /// The fields, the most important one first.
    #[must_use]
    pub fn fields(&self) -> &[Sort] {
        &self.0
    }
}

impl From<Sort> for SortOrder {
    fn from(sort: Sort) -> Self {
        Self(vec![sort])
    }
}

impl FromStr for SortOrder {
    type Err = InvalidSort;

    fn from_str(text: &str) -> Result<Self, InvalidSort> {
        if text.trim().is_empty() {
            return Err(InvalidSort::Empty);
        }
        let sorts: Result<Vec<Sort>, InvalidSort> = text.split(',').map(Sort::from_str).collect();
        Self::new(sorts?)
    }
}

impl TryFrom<String> for SortOrder {
    type Error = InvalidSort;

    fn try_from(text: String) -> Result<Self, InvalidSort> {
        text.parse()
    }
}

impl From<SortOrder> for String {
    fn from(order: SortOrder) -> Self {
        order.to_string()
    }
}

/// The form on the wire: the fields with their directions, separated by commas.
impl fmt::Display for SortOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, sort) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            write!(f, "{comma}{sort}")?;
        }
        Ok(())
    }
}

/// Why a text is no order of a list. It never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSort {
    /// There is no field.
    #[error("must have a field: name, status, timeCreated or timeModified")]
    Empty,
    /// A field is unknown, or missing between two commas.
    #[error(
        "must be name, status, timeCreated or timeModified, or several of them separated by commas, each optionally followed by :asc or :desc"
    )]
    Field,
    /// The direction of a field is unknown or missing.
    #[error("the direction of {0} must be asc or desc")]
    Direction(SortField),
    /// A field occurs twice.
    #[error("must not contain {0} twice")]
    Twice(SortField),
}

/// One field of an order. On the wire: the field, a space, and the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sort {
    /// The field to sort by.
    pub field: SortField,
    /// Whether the largest value comes first.
    pub descending: bool,
}

impl FromStr for Sort {
    type Err = InvalidSort;

    fn from_str(text: &str) -> Result<Self, InvalidSort> {
        let text = text.trim();
        let colon = text.split_once(':');
        let (field, direction) = match colon.or_else(|| text.split_once(char::is_whitespace)) {
            Some((field, direction)) => (field.trim_end(), Some(direction.trim_start())),
            None => (text, None),
        };
        let mut fields = SortField::ALL.into_iter();
        let field = fields
            .find(|known| known.as_str().eq_ignore_ascii_case(field))
            .ok_or(InvalidSort::Field)?;
        match direction {
            None => Ok(field.ascending()),
            Some(word) if word.eq_ignore_ascii_case("asc") => Ok(field.ascending()),
            Some(word) if word.eq_ignore_ascii_case("desc") => Ok(field.descending()),
            Some(_) => Err(InvalidSort::Direction(field)),
        }
    }
}

/// The form on the wire.
impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { "desc" } else { "asc" };
        write!(f, "{} {direction}", self.field)
    }
}

/// The fields by which a list can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SortField {
    /// The run's name.
    Name,
    /// The run's status.
    Status,
    /// When it was created.
    TimeCreated,
    /// When it was last changed.
    TimeModified,
}

impl SortField {
    /// All fields of the contract.
    pub const ALL: [Self; 4] = [
        Self::Name,
        Self::Status,
        Self::TimeCreated,
        Self::TimeModified,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Status => "status",
            Self::TimeCreated => "timeCreated",
            Self::TimeModified => "timeModified",
        }
    }

    /// Sorts by this field, smallest value first.
    #[must_use]
    pub fn ascending(self) -> Sort {
        Sort {
            field: self,
            descending: false,
        }
    }

    /// Sorts by this field, largest value first.
    #[must_use]
    pub fn descending(self) -> Sort {
        Sort {
            field: self,
            descending: true,
        }
    }
}

/// The name on the wire.
impl fmt::Display for SortField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn orders() -> impl Strategy<Value = SortOrder> {
        let fields = Just(SortField::ALL.to_vec()).prop_shuffle();
        (fields, 1..=4_usize, any::<[bool; 4]>()).prop_map(|(fields, count, descending)| {
            let sorts = fields.into_iter().zip(descending).take(count);
            SortOrder::new(sorts.map(|(field, descending)| Sort { field, descending }))
                .expect("each field once")
        })
    }

    fn read(text: &str) -> Result<String, InvalidSort> {
        text.parse::<SortOrder>().map(|order| order.to_string())
    }

    #[test]
    fn both_forms_are_read_in_any_case() {
        for (text, expected) in [
            ("name", "name asc"),
            ("NAME DESC", "name desc"),
            ("Name:Desc", "name desc"),
            ("timecreated:ASC", "timeCreated asc"),
            (" timeModified \t desc ", "timeModified desc"),
            ("status : desc", "status desc"),
            ("status:desc,timeCreated", "status desc,timeCreated asc"),
            (
                "status desc , name:asc,TIMEMODIFIED,timeCreated desc",
                "status desc,name asc,timeModified asc,timeCreated desc",
            ),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        use InvalidSort::{Direction, Empty, Field, Twice};
        for (text, expected) in [
            ("", Empty),
            (" ", Empty),
            (",", Field),
            ("name,", Field),
            (",name", Field),
            ("hunter2", Field),
            ("id desc", Field),
            (":desc", Field),
            ("desc", Field),
            ("name;desc", Field),
            ("name up", Direction(SortField::Name)),
            ("name:", Direction(SortField::Name)),
            ("name asc desc", Direction(SortField::Name)),
            ("name desc:asc", Field),
            ("status:desc:asc", Direction(SortField::Status)),
            ("name,NAME desc", Twice(SortField::Name)),
        ] {
            assert_eq!(read(text), Err(expected), "{text:?}");
        }
        assert_eq!(
            Direction(SortField::TimeCreated).to_string(),
            "the direction of timeCreated must be asc or desc"
        );
        for field in SortField::ALL {
            for error in [Empty, Field] {
                assert!(error.to_string().contains(field.as_str()), "{error}");
            }
        }
        let name = SortField::Name.ascending();
        assert_eq!(SortOrder::new([]), Err(Empty));
        assert_eq!(
            SortOrder::new(std::iter::repeat(name)),
            Err(Twice(SortField::Name))
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(order in orders()) {
            let shown = order.to_string();
            prop_assert_eq!(shown.parse::<SortOrder>(), Ok(order.clone()));
            prop_assert_eq!(shown.replace(' ', ":").parse::<SortOrder>(), Ok(order.clone()));
            prop_assert_eq!(shown.to_uppercase().parse::<SortOrder>(), Ok(order.clone()));
            let json = serde_json::to_string(&order).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<SortOrder>(&json).expect("an order"), order);
        }

        #[test]
        fn any_text_is_read_or_refused_without_being_repeated(text in "[a-zA-Z:, ]{0,40}|\\PC{0,40}") {
            match text.parse::<SortOrder>() {
                Ok(order) => prop_assert_eq!(order.to_string().parse(), Ok(order)),
                Err(error) => {
                    let told = error.to_string();
                    prop_assert!(told.contains("name") || told.contains("asc or desc") || told.contains("twice"));
                }
            }
        }
    }
}
