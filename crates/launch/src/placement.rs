//! What `type`, `size`, `tier` and `hardware` of a run mean in the operator's cluster.

use std::collections::BTreeMap;

use podbeat_task_runs::model::{Number, Resources};
use serde::Deserialize;
use serde_json::Value;

/// The operator's table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Table {
    /// For runs that name none of the others, and below all of them.
    pub default: Entry,
    /// By `type`.
    pub types: BTreeMap<String, Entry>,
    /// By `size`. An entry `TYPE/SIZE` is for that type only, and has precedence.
    pub sizes: BTreeMap<String, Entry>,
    /// By `tier`.
    pub tiers: BTreeMap<String, Entry>,
    /// By each entry of `hardware`.
    pub hardware: BTreeMap<String, Entry>,
}

/// What a name means.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Entry {
    /// Quantities of resources, such as `cpu`, `memory` or `nvidia.com/gpu`. Each is request and
    /// limit.
    pub resources: BTreeMap<String, String>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pod tolerates, as in a pod.
    pub tolerations: Vec<Value>,
    /// The runtime class.
    pub runtime_class_name: Option<String>,
    /// The priority class.
    pub priority_class_name: Option<String>,
}

/// Where a pod runs, and with what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement(Entry);

impl Placement {
    /// Everything that was asked for.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.0
    }

    /// Adds an entry. What it says has precedence.
    fn add(&mut self, entry: &Entry) {
        let own = &mut self.0;
        own.resources.extend(entry.resources.clone());
        own.node_selector.extend(entry.node_selector.clone());
        for toleration in &entry.tolerations {
            if !own.tolerations.contains(toleration) {
                own.tolerations.push(toleration.clone());
            }
        }
        if entry.runtime_class_name.is_some() {
            own.runtime_class_name.clone_from(&entry.runtime_class_name);
        }
        if entry.priority_class_name.is_some() {
            own.priority_class_name
                .clone_from(&entry.priority_class_name);
        }
    }
}

impl Table {
    /// What a run asks for: the default, then type, size, tier and hardware, then its own numbers.
    ///
    /// # Errors
    /// Each name that is not in the table, with those that are, and each number that no node has.
    pub fn placement(&self, wanted: &Resources) -> Result<Placement, Vec<String>> {
        let mut placement = Placement::default();
        let mut problems = Vec::new();
        placement.add(&self.default);
        let mut look = |member: &str, names: &[&str], of: &BTreeMap<String, Entry>| match names
            .iter()
            .find_map(|name| of.get(*name))
        {
            Some(entry) => placement.add(entry),
            None => problems.push(unknown(member, of)),
        };
        if let Some(kind) = &wanted.r#type {
            look("type", &[kind], &self.types);
        }
        if let Some(size) = &wanted.size {
            let kind = wanted.r#type.as_deref().unwrap_or_default();
            look("size", &[&format!("{kind}/{size}"), size], &self.sizes);
        }
        if let Some(tier) = &wanted.tier {
            look("tier", &[tier], &self.tiers);
        }
        for name in wanted.hardware.iter().flatten() {
            look("hardware", &[name], &self.hardware);
        }
        let mut number = |member: &str, amount: Option<f64>, resource: &str, unit: Unit| {
            let Some(amount) = amount.filter(|amount| *amount > 0.0) else {
                return;
            };
            match unit.quantity(amount) {
                Some(quantity) => {
                    placement.0.resources.insert(resource.to_owned(), quantity);
                }
                None => problems.push(format!("{RESOURCES}.{member}: no node has so much")),
            }
        };
        let amount = |number: &Option<Number>| number.as_ref().and_then(Number::as_f64);
        number(
            "cpuCores",
            amount(&wanted.cpu_cores),
            "cpu",
            Unit::Millicores,
        );
        number(
            "memoryGb",
            amount(&wanted.memory_gb),
            "memory",
            Unit::Megabytes,
        );
        match problems.is_empty() {
            true => Ok(placement),
            false => Err(problems),
        }
    }
}

/// The smallest part of a resource that is asked for. A part of it counts as a whole one.
#[derive(Clone, Copy)]
enum Unit {
    Millicores,
    Megabytes,
}

impl Unit {
    /// A thousandfold of the amount, as Kubernetes writes it. `None` if it is out of range.
    fn quantity(self, amount: f64) -> Option<String> {
        /// A million cores, or a petabyte.
        const MOST: f64 = 1e9;
        let parts = (amount * 1000.0).ceil();
        let suffix = match self {
            Self::Millicores => "m",
            Self::Megabytes => "M",
        };
        (parts <= MOST).then(|| format!("{parts:.0}{suffix}"))
    }
}

/// The path of the members.
const RESOURCES: &str = "execution.environment.resources";

/// The text does not contain the name, because it can be a misplaced secret.
fn unknown(member: &str, of: &BTreeMap<String, Entry>) -> String {
    /// Enough to find a mistake.
    const SHOWN: usize = 20;
    let mut known: Vec<&str> = of.keys().map(String::as_str).take(SHOWN).collect();
    if known.is_empty() {
        known.push("none");
    } else if of.len() > SHOWN {
        known.push("…");
    }
    format!(
        "{RESOURCES}.{member}: this service does not know it; it knows: {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        serde_json::from_value(json!({
            "default": {"resources": {"cpu": "1", "memory": "1G"}},
            "types": {"gpu": {"nodeSelector": {"pool": "gpu"}, "runtimeClassName": "nvidia",
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}},
            "sizes": {"small": {"resources": {"cpu": "2"}}, "gpu/small": {"resources": {"cpu": "8", "nvidia.com/gpu": "1"}}},
            "tiers": {"economy": {"nodeSelector": {"spot": "true"}, "priorityClassName": "low"}},
            "hardware": {"a100": {"resources": {"nvidia.com/gpu": "4"}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}}
        }))
        .expect("a table")
    }

    fn wanted(json: &Value) -> Resources {
        serde_json::from_value(json.clone()).expect("resources")
    }

    #[test]
    fn later_names_have_precedence_and_numbers_come_last() {
        let placed = |json: Value| {
            let placement = table().placement(&wanted(&json)).expect("known");
            json!(placement.entry().resources)
        };
        assert_eq!(placed(json!({})), json!({"cpu": "1", "memory": "1G"}));
        assert_eq!(
            placed(json!({"size": "small"})),
            json!({"cpu": "2", "memory": "1G"})
        );
        assert_eq!(
            placed(
                json!({"type": "gpu", "size": "small", "hardware": ["a100"], "cpuCores": 0.0005, "memoryGb": 1.5})
            ),
            json!({"cpu": "1m", "memory": "1500M", "nvidia.com/gpu": "4"})
        );
        assert_eq!(
            placed(json!({"cpuCores": 0, "memoryGb": 16})),
            json!({"cpu": "1", "memory": "16000M"})
        );
        let all = wanted(&json!({"type": "gpu", "tier": "economy", "hardware": ["a100"]}));
        let placement = table().placement(&all).expect("known");
        let entry = placement.entry();
        assert_eq!(
            json!(entry.node_selector),
            json!({"pool": "gpu", "spot": "true"})
        );
        assert_eq!(entry.tolerations.len(), 1);
        assert_eq!(entry.runtime_class_name.as_deref(), Some("nvidia"));
        assert_eq!(entry.priority_class_name.as_deref(), Some("low"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let all = wanted(
            &json!({"type": "gpu", "size": "huge", "tier": "x\ny", "hardware": ["a100", "tpu"], "cpuCores": 1e300}),
        );
        let problems = table().placement(&all).expect_err("unknown");
        assert_eq!(
            problems,
            [
                "execution.environment.resources.size: this service does not know it; it knows: gpu/small, small",
                "execution.environment.resources.tier: this service does not know it; it knows: economy",
                "execution.environment.resources.hardware: this service does not know it; it knows: a100",
                "execution.environment.resources.cpuCores: no node has so much",
            ]
        );
        let none = Table::default().placement(&wanted(&json!({"tier": "a"})));
        assert!(none.expect_err("unknown")[0].ends_with("knows: none"));
    }
}
