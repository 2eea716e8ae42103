//! The query of a list, and page tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podbeat_task_runs::model::{PageSize, QueryParameter, SortOrder};
use serde::{Deserialize, Serialize};

use super::head::parameters;
use super::response::Failure;
use crate::store::{Cursor, Filter, Place, Query, Viewer};
use podbeat_runs::Status;

/// The maximum number of values of a filter.
const VALUES: usize = 100;

/// The maximum length of the page token of a new list, in bytes. So later ones, which also have the
/// name of a run, fit into the head of a request.
const LONGEST_TOKEN: usize = 32 << 10;

/// A list as the client asks for it. A page token contains it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    sort: Option<SortOrder>,
    filter: Filter,
    size: u16,
    place: Place,
}

impl Asked {
    /// The first page of a list in the order of creation.
    pub(crate) fn new(filter: Filter, size: PageSize) -> Self {
        Self {
            sort: None,
            filter,
            size: size.get(),
            place: Place::First,
        }
    }

    /// Another page of the same list.
    pub(crate) fn at(&self, place: Place) -> Self {
        Self {
            place,
            ..self.clone()
        }
    }

    /// Whether it is a page of the same list.
    pub(crate) fn is_of_the_same_list(&self, other: &Self) -> bool {
        *other == self.at(other.place.clone())
    }

    pub(crate) fn query(&self, viewer: Viewer) -> Query {
        let sort = self.sort.as_ref().map(SortOrder::fields);
        Query {
            viewer,
            filter: self.filter.clone(),
            sort: sort.unwrap_or_default().to_vec(),
            place: self.place.clone(),
            size: usize::from(self.size().get()),
        }
    }

    pub(super) fn size(&self) -> PageSize {
        PageSize::new(self.size).unwrap_or(PageSize::DEFAULT)
    }

    /// The token of another page of the same list.
    pub(crate) fn token(&self, place: Place) -> String {
        let asked = self.at(place);
        // Every value in it can be written as JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&asked).unwrap_or_default())
    }

    /// Parses a token. `None` if it isn't one of ours.
    pub(crate) fn of_token(token: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(token).ok()?;
        let asked: Self = serde_json::from_slice(&json).ok()?;
        let fields = asked.sort.as_ref().map_or(0, |sort| sort.fields().len());
        let keys = match &asked.place {
            Place::First | Place::Last => fields,
            Place::After(cursor) | Place::Before(cursor) => cursor.keys.len(),
        };
        let filter = &asked.filter;
        let values = [filter.names.len(), filter.acls.len()];
        let is_ours = keys == fields
            && PageSize::new(asked.size).is_some()
            && filter.statuses.is_sorted_by(|one, next| one < next)
            && values.iter().all(|values| *values <= VALUES + 1);
        is_ours.then_some(asked)
    }
}

/// The page after a run. After none, the list begins again.
pub(super) fn after(cursor: Option<Cursor>) -> Place {
    cursor.map_or(Place::First, Place::After)
}

/// The page before a run. Before none, the list ends.
pub(super) fn before(cursor: Option<Cursor>) -> Place {
    cursor.map_or(Place::Last, Place::Before)
}

/// Parses a list's query string.
pub(super) fn parse(query: &str) -> Result<Asked, Failure> {
    let mut filter = Filter::default();
    let (mut has_statuses, mut has_versions) = (false, false);
    let (mut sort, mut size, mut token) = (None, None, None);
    let once = |parameter: QueryParameter, is_new: bool| match is_new {
        true => Ok(()),
        false => Err(Failure::bad_request(format!(
            "the parameter {parameter} is given twice"
        ))),
    };
    let parameters =
        parameters(query).map_err(|_| Failure::bad_request("the query is not UTF-8"))?;
    for (name, value) in parameters {
        let values = || {
            value
                .split(',')
                .map(str::trim)
                .filter(|value| !value.is_empty())
        };
        let parameter = QueryParameter::ALL
            .into_iter()
            .find(|known| known.as_str() == name);
        let parameter = parameter.ok_or_else(|| {
            let known = QueryParameter::ALL.map(QueryParameter::as_str).join(", ");
            Failure::bad_request(format!("unknown parameter; known parameters: {known}"))
        })?;
        match parameter {
            QueryParameter::Names => {
                filter.names.extend(values().map(str::to_owned));
                // The name itself can contain a comma.
                if value.contains(',') {
                    filter.names.push(value);
                }
            }
            QueryParameter::Status => {
                has_statuses |= values().next().is_some();
                filter.statuses.extend(values().filter_map(status));
            }
            QueryParameter::Versions => has_versions |= values().next().is_some(),
            QueryParameter::Acls => filter.acls.extend(values().map(str::to_owned)),
            QueryParameter::Sort => {
                once(parameter, sort.is_none())?;
                let order: SortOrder = value
                    .parse()
                    .map_err(|error| Failure::bad_request(format!("{parameter} {error}")))?;
                sort = Some(order);
            }
            QueryParameter::PageSize => {
                once(parameter, size.is_none())?;
                size = Some(page_size(&value)?);
            }
            QueryParameter::PageToken => {
                once(parameter, token.is_none())?;
                token = Some(value);
            }
        }
    }
    if filter.names.len() > VALUES || filter.acls.len() > VALUES {
        return Err(Failure::bad_request(format!(
            "names and acls have at most {VALUES} values"
        )));
    }
    // No run has a version or an unknown status.
    let is_unknown = has_statuses && filter.statuses.is_empty();
    filter.none = has_versions || is_unknown;
    filter.statuses.sort_unstable();
    filter.statuses.dedup();
    let asked = Asked {
        sort,
        ..Asked::new(filter, size.unwrap_or(PageSize::DEFAULT))
    };
    let of_token =
        |problem| Failure::bad_request(format!("{} {problem}", QueryParameter::PageToken));
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return match asked.token(Place::First).len() <= LONGEST_TOKEN {
            true => Ok(asked),
            false => Err(Failure::bad_request("names and acls are too long together")),
        };
    };
    let listed =
        Asked::of_token(&token).ok_or_else(|| of_token("does not come from this service"))?;
    let is_other_sort = asked.sort.is_some() && asked.sort != listed.sort;
    let is_other_filter = asked.filter != Filter::default() && asked.filter != listed.filter;
    if is_other_sort || is_other_filter {
        return Err(of_token(
            "belongs to a list with another sort or filter; omit sort and filters, or repeat the earlier ones",
        ));
    }
    Ok(Asked {
        size: size.map_or(listed.size, PageSize::get),
        ..listed
    })
}

fn status(word: &str) -> Option<Status> {
    let wanted = |known: &Status| known.name().eq_ignore_ascii_case(word);
    Status::ALL.into_iter().find(wanted)
}

fn page_size(text: &str) -> Result<PageSize, Failure> {
    let size = text.parse().ok().and_then(PageSize::new);
    size.ok_or_else(|| {
        Failure::bad_request(format!(
            "{} must be a number from {} to {}",
            QueryParameter::PageSize,
            PageSize::LEAST,
            PageSize::MOST
        ))
    })
}
