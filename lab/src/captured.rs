//! Pods that a real API server showed, and variations of them. They are fixtures for code that
//! reads pods. A variation changes one member, so everything else remains real.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "fixtures of tests, which fail where a capture doesn't show what they ask for"
)]

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::capture::Capture;

/// A pod of a capture in `tests/captures`, whose README.md describes the captures.
#[derive(Clone, Debug)]
pub struct Captured {
    pod: Value,
    own_container: &'static str,
}

impl Captured {
    /// The pod when it was first seen: not bound to a node, and without container statuses.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::find(name, |pods| pods.first().copied())
    }

    /// The pod when it first showed a container in this state, such as `terminated`.
    #[must_use]
    pub fn when(name: &str, container: &str, state: &str) -> Self {
        Self::nth_time(1, name, container, state)
    }

    /// The pod when it showed a container in this state for the nth time. Changes of other
    /// containers don't count.
    #[must_use]
    pub fn nth_time(nth: usize, name: &str, container: &str, state: &str) -> Self {
        Self::find(name, |pods| {
            let mut times = 0;
            let mut before = false;
            pods.iter().copied().find(|pod| {
                let is_so = status(pod, container)
                    .is_some_and(|status| status["state"].get(state).is_some());
                times += usize::from(is_so && !before);
                before = is_so;
                is_so && times == nth
            })
        })
    }

    /// The pod when it was last seen.
    #[must_use]
    pub fn last(name: &str) -> Self {
        Self::find(name, |pods| pods.last().copied())
    }

    fn find(
        name: &str,
        pick: impl for<'pod> FnOnce(&[&'pod Value]) -> Option<&'pod Value>,
    ) -> Self {
        let capture = Capture::named(name).expect("a capture");
        let pods: Vec<&Value> = capture.pods().collect();
        let pod = pick(&pods).unwrap_or_else(|| panic!("{name} does not show that"));
        Self {
            pod: pod.clone(),
            own_container: capture.sidecar(),
        }
    }

    /// Sets the member at a JSON pointer to this value. Its parent must exist. `-` appends to a
    /// list.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
        match self.pod.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                members.insert(member.replace("~1", "/"), value);
            }
            Some(Value::Array(items)) if member == "-" => items.push(value),
            Some(Value::Array(items)) => items[member.parse::<usize>().expect("an index")] = value,
            _ => panic!("no recorded value is around {pointer}"),
        }
        self
    }

    /// Removes this member, which must exist.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
        let members = self.pod.pointer_mut(parent).and_then(Value::as_object_mut);
        let removed = members.and_then(|members| members.remove(member));
        assert!(removed.is_some(), "there is no {pointer}");
        self
    }

    /// The value at a JSON pointer of the pod.
    #[must_use]
    pub fn said(&self, pointer: &str) -> &Value {
        self.pod
            .pointer(pointer)
            .unwrap_or_else(|| panic!("there is no {pointer}"))
    }

    /// The pod, parsed.
    ///
    /// # Panics
    /// If the pod can't be parsed. Real pods can.
    #[must_use]
    pub fn pod<T: DeserializeOwned>(&self) -> T {
        T::deserialize(&self.pod).expect("a pod")
    }

    /// The name of podbeat's container.
    #[must_use]
    pub fn own_container(&self) -> &'static str {
        self.own_container
    }
}

fn status<'pod>(pod: &'pod Value, container: &str) -> Option<&'pod Value> {
    ["initContainerStatuses", "containerStatuses"]
        .iter()
        .filter_map(|list| pod["status"].get(list)?.as_array())
        .flatten()
        .find(|status| status["name"] == container)
}
