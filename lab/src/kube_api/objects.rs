//! The objects of the stand-in, and the history of their changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Options, Seen};

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A pod.
    Pod,
    /// A Job.
    Job,
    /// A Secret.
    Secret,
    /// An event of the core API.
    Event,
}

impl Kind {
    /// All kinds.
    pub(super) const ALL: [Self; 4] = [Self::Pod, Self::Job, Self::Secret, Self::Event];

    /// The name of the kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Job => "Job",
            Self::Secret => "Secret",
            Self::Event => "Event",
        }
    }

    /// The name of the resource in paths.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Job => "jobs",
            Self::Secret => "secrets",
            Self::Event => "events",
        }
    }

    /// The API group. Empty for the core API.
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Job => "batch",
            Self::Pod | Self::Secret | Self::Event => "",
        }
    }

    /// The resource and its group, as in the API server's messages.
    pub(super) fn qualified(self) -> String {
        match self.group() {
            "" => self.resource().to_owned(),
            group => format!("{}.{group}", self.resource()),
        }
    }

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::Job => "batch/v1",
            Self::Pod | Self::Secret | Self::Event => "v1",
        }
    }

    /// The kind of an object. Captured pods have none.
    fn of(object: &Value) -> Self {
        let name = object.get("kind").and_then(Value::as_str);
        let kind = Self::ALL.into_iter().find(|kind| name == Some(kind.name()));
        kind.unwrap_or(Self::Pod)
    }
}

/// The name of an object, which is unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn of(object: &Value) -> Self {
        Self::new(
            Kind::of(object),
            metadata(object, "namespace").unwrap_or("lab"),
            metadata(object, "name").unwrap_or_default(),
        )
    }
}

/// A text in the metadata of an object.
pub(super) fn metadata<'object>(object: &'object Value, name: &str) -> Option<&'object str> {
    object.get("metadata")?.get(name)?.as_str()
}

/// A change of an object.
#[derive(Clone, Debug)]
pub struct Event {
    /// The version of the store after it.
    pub version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub change: &'static str,
    /// The kind of the object.
    pub kind: Kind,
    /// The object after the change.
    pub object: Value,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) denied: bool,
    /// Verbs that no Role allows.
    pub(super) denied_verbs: BTreeSet<String>,
    pub(super) clock_ahead: i64,
    pub(super) version: u64,
    objects: BTreeMap<Key, Value>,
    pub(super) history: VecDeque<Arc<Event>>,
    /// The history by object, for watches of one pod. Thousands of them must not each search the
    /// whole history.
    pub(super) of_objects: HashMap<Key, VecDeque<Arc<Event>>>,
    /// `trimmed` by object.
    pub(super) trimmed_of: HashMap<Key, u64>,
    /// Wakes the watches of one object.
    pub(super) wakes: HashMap<Key, watch::Sender<u64>>,
    /// The oldest version from which a watch can start.
    pub(super) forgotten: u64,
    /// The newest event that was removed from the history. An open watch that hasn't sent it yet
    /// has a gap.
    pub(super) trimmed: u64,
    pub(super) seen: Vec<Seen>,
    pub(super) open_watches: usize,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            denied: false,
            denied_verbs: BTreeSet::new(),
            clock_ahead: 0,
            version: 100,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            of_objects: HashMap::new(),
            trimmed_of: HashMap::new(),
            wakes: HashMap::new(),
            forgotten: 100,
            trimmed: 0,
            seen: Vec::new(),
            open_watches: 0,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// All objects of a kind.
    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = &Value> {
        let first = Key::new(kind, "", "");
        let from = self.objects.range(first..);
        from.take_while(move |(key, _)| key.kind == kind)
            .map(|(_, object)| object)
    }

    pub(super) fn count(&self) -> usize {
        self.objects.len()
    }

    /// Discards the history.
    pub(super) fn compact(&mut self) {
        // As if something else changed in the cluster, so that no client knows the newest version.
        self.version += 10;
        if let Some(newest) = self.history.back().map(|event| event.version) {
            self.trimmed = newest;
        }
        self.history.clear();
        for (key, events) in std::mem::take(&mut self.of_objects) {
            if let Some(newest) = events.back() {
                self.trimmed_of.insert(key, newest.version);
            }
        }
        self.forgotten = self.version;
    }

    /// Creates or changes an object.
    pub(super) fn apply(&mut self, object: Value) {
        let change = match self.objects.contains_key(&Key::of(&object)) {
            true => "MODIFIED",
            false => "ADDED",
        };
        self.record(change, object);
    }

    /// Removes an object, and deletes those that it owns.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(object) = self.objects.get(key).cloned() else {
            return;
        };
        let uid = metadata(&object, "uid").unwrap_or_default().to_owned();
        self.record("DELETED", object);
        let is_owned = |object: &Value| {
            let owners = object.pointer("/metadata/ownerReferences");
            let owners = owners.and_then(Value::as_array).into_iter().flatten();
            let mut uids = owners.filter_map(|owner| owner.get("uid")?.as_str());
            uids.any(|owner| owner == uid)
        };
        let owned: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, object)| is_owned(object))
            .map(|(key, _)| key.clone())
            .collect();
        for key in owned {
            self.delete(&key);
        }
    }

    /// Deletes an object, as a request does. A pod that has a node and has not ended is only marked,
    /// because the kubelet removes it.
    pub(super) fn delete(&mut self, key: &Key) {
        let Some(mut object) = self.objects.get(key).cloned() else {
            return;
        };
        let has_node = object.pointer("/spec/nodeName").is_some();
        let phase = object.pointer("/status/phase").and_then(Value::as_str);
        let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
        if key.kind != Kind::Pod || !has_node || has_ended {
            return self.remove(key);
        }
        let grace = object
            .pointer("/spec/terminationGracePeriodSeconds")
            .cloned()
            .unwrap_or(json!(30));
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
            && !metadata.contains_key("deletionTimestamp")
        {
            metadata.insert("deletionTimestamp".to_owned(), json!(now()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), grace);
            self.record("MODIFIED", object);
        }
    }

    pub(super) fn record(&mut self, change: &'static str, mut object: Value) {
        self.version += 1;
        let version = self.version;
        let key = Key::of(&object);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(version.to_string()));
            metadata.entry("namespace").or_insert(json!(key.namespace));
            metadata
                .entry("uid")
                .or_insert_with(|| json!(format!("uid-{version}")));
            metadata
                .entry("creationTimestamp")
                .or_insert(json!("2026-01-01T00:00:00Z"));
        }
        if change == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        let event = Arc::new(Event {
            version,
            change,
            kind: key.kind,
            object,
        });
        if let Some(wake) = self.wakes.get(&key) {
            wake.send_modify(|count| *count += 1);
        }
        self.of_objects
            .entry(key)
            .or_default()
            .push_back(Arc::clone(&event));
        self.history.push_back(event);
        if self.history.len() > self.options.history
            && let Some(old) = self.history.pop_front()
        {
            self.forget(&old);
        }
    }

    /// An event leaves the history.
    fn forget(&mut self, old: &Event) {
        self.forgotten = old.version;
        self.trimmed = old.version;
        // It is the oldest event of its object.
        let key = Key::of(&old.object);
        let mut is_last = true;
        if let Some(of_object) = self.of_objects.get_mut(&key) {
            of_object.pop_front();
            is_last = of_object.is_empty();
        }
        let is_watched = |wake: &watch::Sender<u64>| wake.receiver_count() > 0;
        if is_last
            && !self.objects.contains_key(&key)
            && !self.wakes.get(&key).is_some_and(is_watched)
        {
            // Objects come and go, so nothing of them may stay.
            self.of_objects.remove(&key);
            self.trimmed_of.remove(&key);
            self.wakes.remove(&key);
        } else {
            self.trimmed_of.insert(key, old.version);
        }
    }
}

/// Now, in whole seconds, as the API server writes it.
pub(crate) fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}
