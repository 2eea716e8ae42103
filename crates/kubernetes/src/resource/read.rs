//! How members of a pod are read: within limits, and with as little code as possible.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use crate::hardware::{is_device, is_label};
use crate::retries::{COMPLETION_INDEX, CONTROLLER_UID};
use crate::status::JOB_INDEX_FAILURE_COUNT;
use crate::tasks::{IGNORED_CONTAINERS, TASK_CONTAINERS};

/// Limit for the entries of a map, for the claims of a pod, and for the devices of a container.
const ENTRIES: usize = 64;

/// Null means the same as absent.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(optional(deserializer)?.unwrap_or_default())
}

/// `None` for null.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Value<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Value<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }

        fn visit_none<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Option<T>, D::Error> {
            T::deserialize(Objects(value)).map(Some)
        }
    }

    deserializer.deserialize_option(Value(PhantomData))
}

/// Reads an object only from a JSON object. Derived code also reads one from a list of its members,
/// which no API server writes. Without that, the image is 15 KB smaller.
struct Objects<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A list of at most `MOST` items. Null means the same as absent.
pub(crate) fn at_most<'de, const MOST: usize, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<const MOST: usize, T>(PhantomData<T>);

    impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for List<MOST, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element_seed(Item(PhantomData))? {
                if items.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    struct Item<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Item<T> {
        type Value = T;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
            T::deserialize(Objects(deserializer))
        }
    }

    deserializer.deserialize_any(List::<MOST, T>(PhantomData))
}

pub(crate) fn node_labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    only(deserializer, &is_label)
}

pub(crate) fn labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    only(deserializer, &|name| {
        is_label(name) || name == CONTROLLER_UID
    })
}

pub(crate) fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let read = [
        JOB_INDEX_FAILURE_COUNT,
        COMPLETION_INDEX,
        TASK_CONTAINERS,
        IGNORED_CONTAINERS,
    ];
    only(deserializer, &|name| read.contains(&name))
}

pub(crate) fn devices<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    only(deserializer, &is_device)
}

/// The labels about hardware for which the required node affinity accepts only one value. Several
/// terms are alternatives, so none of them has to be true of the node.
pub(crate) fn required_labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let is_wanted = |name: &str| {
        matches!(
            name,
            "nodeAffinity"
                | "requiredDuringSchedulingIgnoredDuringExecution"
                | "nodeSelectorTerms"
                | "matchExpressions"
                | "key"
                | "operator"
                | "values"
        )
    };
    let mut labels = BTreeMap::new();
    let (mut key, mut value, mut is_in, mut values, mut terms) = (None, None, false, 0, 0);
    walk(
        deserializer,
        &is_wanted,
        &mut |name, text| match (name, text) {
            ("key", text) => key = text,
            ("operator", text) => is_in = text.as_deref() == Some("In"),
            ("values", text) => (value, values) = (text, values + 1),
            ("nodeSelectorTerms", None) => terms += 1,
            // The end of an expression.
            (_, _) => {
                if let (Some(key), Some(value)) = (key.take(), value.take())
                    && is_in
                    && values == 1
                    && is_label(&key)
                {
                    labels.insert(key, value);
                }
                (is_in, values) = (false, 0);
            }
        },
    )?;
    Ok(if terms == 1 { labels } else { BTreeMap::new() })
}

/// Claims by name, or devices by ID with their health. The kubelet writes devices in another order
/// each time. Some device plugins have a device for each MiB of memory; of so many, none is kept.
pub(crate) fn hardware<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let mut all = BTreeMap::new();
    let (mut id, mut health, mut count) = (None, None, 0);
    walk(
        deserializer,
        &|name| {
            matches!(
                name,
                "resourceClaimName" | "resources" | "resourceID" | "health"
            )
        },
        &mut |name, text| match (name, text) {
            ("health", text) => health = text,
            (_, Some(text)) => id = Some(text),
            (_, None) => {
                if let Some(id) = id.take() {
                    count += 1;
                    if count <= ENTRIES {
                        all.insert(id, health.take().unwrap_or_default());
                    }
                }
            }
        },
    )?;
    Ok(if count <= ENTRIES {
        all
    } else {
        BTreeMap::new()
    })
}

/// Keeps the wanted entries of a map with texts or numbers, up to a limit. Null means the same as
/// absent.
pub(crate) fn only<'de, D: Deserializer<'de>>(
    deserializer: D,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, D::Error> {
    let mut entries = BTreeMap::new();
    walk(deserializer, is_wanted, &mut |name, text| {
        if entries.len() < ENTRIES && is_wanted(name) {
            entries.extend(text.map(|text| (name.to_owned(), text)));
        }
    })?;
    Ok(entries)
}

/// Walks through any JSON, but in objects only into members with a wanted name. Passes each text
/// and each number to `found`, with the name of the nearest member around it, and `None` at the end
/// of each object. One such function takes less space in the image than a type for each object.
fn walk<'de, D: Deserializer<'de>>(
    deserializer: D,
    is_wanted: &dyn Fn(&str) -> bool,
    found: &mut dyn FnMut(&str, Option<String>),
) -> Result<(), D::Error> {
    Walk {
        name: "",
        is_wanted,
        found,
    }
    .deserialize(deserializer)
}

struct Walk<'a> {
    name: &'a str,
    is_wanted: &'a dyn Fn(&str) -> bool,
    found: &'a mut dyn FnMut(&str, Option<String>),
}

impl Walk<'_> {
    fn found<E>(self, text: String) -> Result<(), E> {
        (self.found)(self.name, Some(text));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.found(text.to_owned())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.found(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.found(number.to_string())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.found(number.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list
            .next_element_seed(Walk {
                found: &mut *self.found,
                ..self
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if (self.is_wanted)(&name) {
                map.next_value_seed(Walk {
                    name: &name,
                    is_wanted: self.is_wanted,
                    found: &mut *self.found,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        (self.found)(self.name, None);
        Ok(())
    }
}

/// Ignores an unreadable time instead of rejecting the whole pod.
pub(crate) fn readable_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}
