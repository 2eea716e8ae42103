//! Requests for objects, as the API server reads them.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::objects::{Key, Kind};
use crate::fault::Place;

/// A parsed request.
pub(super) struct Asked {
    pub(super) verb: Verb,
    pub(super) kind: Kind,
    /// `None` for all namespaces.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    /// Whether the answer has only the metadata of the objects.
    pub(super) only_metadata: bool,
    query: BTreeMap<String, String>,
    pub(super) raw_query: String,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Delete,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }

    pub(super) fn place(self) -> Place {
        match self {
            Self::Get => Place::Get,
            Self::List => Place::List,
            Self::Watch => Place::Watch,
            Self::Create => Place::Create,
            Self::Delete => Place::Delete,
        }
    }

    pub(super) fn changes(self) -> bool {
        matches!(self, Self::Create | Self::Delete)
    }
}

impl Asked {
    /// Reads a request. `None` if the stand-in has no such resource.
    pub(super) fn read(method: &Method, uri: &http::Uri, headers: &HeaderMap) -> Option<Self> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (group, rest) = match uri.path().strip_prefix("/api/v1/") {
            Some(rest) => ("", rest),
            None => ("batch", uri.path().strip_prefix("/apis/batch/v1/")?),
        };
        let mut parts = rest.splitn(4, '/');
        let (namespace, resource) = match parts.next()? {
            "namespaces" => (Some(decode(parts.next()?)), parts.next()?),
            resource => (None, resource),
        };
        let name = parts.next().map(decode);
        let is_asked = |kind: &Kind| kind.resource() == resource && kind.group() == group;
        let kind = Kind::ALL.into_iter().find(is_asked)?;
        let raw_query = uri.query().unwrap_or_default().to_owned();
        // A parameter without a value has an empty value, as in Go's queries.
        let pairs = raw_query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs
            .map(|(name, value)| (decode(name), decode(&value.replace('+', " "))))
            .collect();
        let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
        let mut asked = Self {
            verb: Verb::Get,
            kind,
            namespace,
            name,
            only_metadata: accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata")),
            query,
            raw_query,
        };
        asked.verb = match (method, &asked.name) {
            (&Method::POST, None) => Verb::Create,
            (&Method::DELETE, Some(_)) => Verb::Delete,
            (&Method::GET, Some(_)) => Verb::Get,
            (&Method::GET, None) if asked.is_true("watch") => Verb::Watch,
            (&Method::GET, None) => Verb::List,
            _ => return None,
        };
        Some(asked)
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Parses a boolean as apimachinery does (pkg/runtime/conversion.go,
    /// `Convert_Slice_string_To_bool`): only an absent value, `0`, and `false` in any case are
    /// false. `True` and an empty value are true.
    pub(super) fn is_true(&self, name: &str) -> bool {
        let value = self.query.get(name);
        value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// The object, if the request names exactly one: as a resource, or by a field selector.
    pub(super) fn one(&self) -> Option<Key> {
        let selected = || {
            let fields = self.get("fieldSelector");
            let name = fields
                .strip_prefix("metadata.name=")?
                .trim_start_matches('=');
            (!name.contains(',')).then_some(name)
        };
        let name = self.name.as_deref().or_else(selected)?;
        Some(Key::new(self.kind, self.namespace.as_deref()?, name))
    }

    /// The object with this name, in the namespace of the request.
    pub(super) fn key(&self, name: &str) -> Key {
        Key::new(
            self.kind,
            self.namespace.as_deref().unwrap_or_default(),
            name,
        )
    }

    /// A filter for the namespace, the field selector and the label selector (only by equality).
    pub(super) fn selector(&self) -> Result<impl Fn(&Value) -> bool + Send + use<>, String> {
        let mut wanted: Vec<(&str, String)> = Vec::new();
        wanted.extend(
            self.namespace
                .clone()
                .map(|name| ("/metadata/namespace", name)),
        );
        let labels = self.labels()?;
        for term in self
            .get("fieldSelector")
            .split(',')
            .filter(|term| !term.is_empty())
        {
            let (field, value) = term
                .split_once("==")
                .or_else(|| term.split_once('='))
                .unwrap_or((term, ""));
            let path = match (self.kind, field) {
                (_, "metadata.name") => "/metadata/name",
                (_, "metadata.namespace") => "/metadata/namespace",
                (Kind::Pod, "spec.nodeName") => "/spec/nodeName",
                (Kind::Event, "involvedObject.uid") => "/involvedObject/uid",
                (Kind::Event, "type") => "/type",
                _ => return Err(format!("field label not supported: {field}")),
            };
            wanted.push((path, value.to_owned()));
        }
        Ok(move |object: &Value| {
            let label = |name: &str| object.pointer("/metadata/labels")?.get(name)?.as_str();
            wanted
                .iter()
                .all(|(path, value)| object.pointer(path).and_then(Value::as_str) == Some(value))
                && labels
                    .iter()
                    .all(|(name, value, is_wanted)| (label(name) == Some(value)) == *is_wanted)
        })
    }

    /// Labels that objects must have, or must not have.
    fn labels(&self) -> Result<Vec<(String, String, bool)>, String> {
        let terms = self
            .get("labelSelector")
            .split(',')
            .filter(|term| !term.is_empty());
        terms
            .map(|term| {
                let (name, value, is_wanted) = if let Some((name, value)) = term.split_once("!=") {
                    (name, value, false)
                } else if let Some((name, value)) = term.split_once('=') {
                    (name, value.trim_start_matches('='), true)
                } else {
                    return Err(format!("unable to parse requirement: {term:?}"));
                };
                Ok((name.trim().to_owned(), value.trim().to_owned(), is_wanted))
            })
            .collect()
    }
}
