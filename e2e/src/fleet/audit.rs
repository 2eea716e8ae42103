//! The API server's audit log: each agent's requests and their times.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use crate::{Error, io};

/// The verb of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Other,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Other => "other",
        }
    }
}

/// One request of an agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// When the API server received it.
    pub(super) at: Timestamp,
    pub(super) verb: Verb,
    /// The pod's name.
    pub(super) pod: String,
    /// For watches: the timeout that the agent requested.
    pub(super) timeout_seconds: Option<f64>,
}

/// Reads the whole log in the order of time. A watch is logged when it begins and when it ends, but
/// counts once.
pub(super) fn read(path: &Path) -> Result<Vec<Asked>, Error> {
    let text = std::fs::read_to_string(path).map_err(io(format!("reading {}", path.display())))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Asked> {
    let mut asked = BTreeMap::new();
    // The last line may be incomplete.
    for event in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        if let Some((id, one)) = one(&event) {
            asked.entry(id).or_insert(one);
        }
    }
    let mut asked: Vec<Asked> = asked.into_values().collect();
    asked.sort_by_key(|one| one.at);
    asked
}

fn one(event: &Value) -> Option<(String, Asked)> {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str);
    if text("/objectRef/resource") != Some("pods") {
        return None;
    }
    let agent = text("/userAgent")?;
    if !agent.starts_with("podbeat/") {
        return None;
    }
    let uri = text("/requestURI")?;
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let parameter = |name: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    };
    let selected = parameter("fieldSelector")
        .and_then(|selector| selector.rsplit(['=', 'D']).next().map(str::to_owned));
    let named = path
        .rsplit('/')
        .next()
        .filter(|name| *name != "pods")
        .map(str::to_owned);
    let asked = Asked {
        at: text("/requestReceivedTimestamp")?.parse().ok()?,
        verb: match text("/verb")? {
            "get" => Verb::Get,
            "list" => Verb::List,
            "watch" => Verb::Watch,
            _ => Verb::Other,
        },
        pod: named.or(selected)?,
        timeout_seconds: parameter("timeoutSeconds").and_then(|seconds| seconds.parse().ok()),
    };
    Some((text("/auditID")?.to_owned(), asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_counted_once_and_other_requests_are_not() {
        let line = |id: &str, verb: &str, uri: &str, agent: &str, stage: &str| {
            format!(
                r#"{{"auditID":"{id}","stage":"{stage}","verb":"{verb}","requestURI":"{uri}","userAgent":"{agent}","objectRef":{{"resource":"pods"}},"requestReceivedTimestamp":"2026-01-01T00:00:0{id}.000000Z"}}"#
            )
        };
        let pods = "/api/v1/namespaces/fleet/pods";
        let watch = format!(
            "{pods}?watch=true&timeoutSeconds=250&fieldSelector=metadata.name%3Dfleet-00001"
        );
        let text = [
            line("2", "watch", &watch, "podbeat/1", "ResponseStarted"),
            line(
                "1",
                "list",
                &format!("{pods}?fieldSelector=metadata.name=fleet-00001"),
                "podbeat/1",
                "ResponseComplete",
            ),
            line("2", "watch", &watch, "podbeat/1", "ResponseComplete"),
            line(
                "3",
                "get",
                &format!("{pods}/fleet-00002"),
                "podbeat/1",
                "ResponseComplete",
            ),
            line(
                "4",
                "get",
                &format!("{pods}/fleet-00002"),
                "kubectl",
                "ResponseComplete",
            ),
            "{\"auditID\":\"5\"".to_owned(),
        ]
        .join("\n");
        let all = parse(&text);
        let told: Vec<(&str, &str)> = all
            .iter()
            .map(|one| (one.verb.name(), one.pod.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("list", "fleet-00001"),
                ("watch", "fleet-00001"),
                ("get", "fleet-00002")
            ]
        );
        assert_eq!(all.get(1).and_then(|one| one.timeout_seconds), Some(250.0));
    }
}
