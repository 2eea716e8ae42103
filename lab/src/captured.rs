//! Pods as a real API server showed them, and variations of them, for the tests of what is made of a pod.
//! A variation changes one member, so that all around it stays real.

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

/// A pod of a capture in `tests/captures`, whose README.md tells of them.
#[derive(Clone, Debug)]
pub struct Captured {
    pod: Value,
    own_container: &'static str,
}

impl Captured {
    /// The pod as it was first seen, bound to no node and without a status of any container.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::find(name, |pods| pods.first().copied())
    }

    /// The pod when it first showed a container in a state, such as `terminated`.
    #[must_use]
    pub fn when(name: &str, container: &str, state: &str) -> Self {
        Self::nth_time(1, name, container, state)
    }

    /// The same the second time, and so on; what another container did meanwhile doesn't count.
    #[must_use]
    pub fn nth_time(nth: usize, name: &str, container: &str, state: &str) -> Self {
        Self::find(name, |pods| {
            let mut times = 0;
            let mut before = false;
            pods.iter().copied().find(|pod| {
                let is_so = status(pod, container).is_some_and(|status| status["state"].get(state).is_some());
                times += usize::from(is_so && !before);
                before = is_so;
                is_so && times == nth
            })
        })
    }

    /// The pod as it was last seen.
    #[must_use]
    pub fn last(name: &str) -> Self {
        Self::find(name, |pods| pods.last().copied())
    }

    fn find(name: &str, pick: impl for<'pod> FnOnce(&[&'pod Value]) -> Option<&'pod Value>) -> Self {
        let capture = Capture::named(name).expect("a capture");
        let pods: Vec<&Value> = capture.pods().collect();
        let pod = pick(&pods).unwrap_or_else(|| panic!("{name} never shows that"));
        Self {
            pod: pod.clone(),
            own_container: capture.sidecar(),
        }
    }

    /// The same pod with this member in place of its own, at a JSON pointer. What is around it must be there; `-` is the
    /// place behind a list's last.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
        match self.pod.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                members.insert(member.replace("~1", "/"), value);
            }
            Some(Value::Array(items)) if member == "-" => items.push(value),
            Some(Value::Array(items)) => items[member.parse::<usize>().expect("an index")] = value,
            _ => panic!("nothing real is around {pointer}"),
        }
        self
    }

    /// The same pod without this member, which it must have.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
        let members = self.pod.pointer_mut(parent).and_then(Value::as_object_mut);
        let removed = members.and_then(|members| members.remove(member));
        assert!(removed.is_some(), "there is no {pointer}");
        self
    }

    /// What the pod's JSON has at a pointer.
    #[must_use]
    pub fn said(&self, pointer: &str) -> &Value {
        self.pod
            .pointer(pointer)
            .unwrap_or_else(|| panic!("there is no {pointer}"))
    }

    /// What is parsed of it.
    ///
    /// # Panics
    /// Real pods can be parsed.
    #[must_use]
    pub fn pod<T: DeserializeOwned>(&self) -> T {
        T::deserialize(&self.pod).expect("a pod")
    }

    /// The name of the container that has podbeat's place.
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
