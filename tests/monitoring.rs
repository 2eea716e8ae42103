//! The files for Prometheus and Grafana in deploy/monitoring use only metrics and labels that
//! exist, fit together, and are explained.
//!
//! promtool checks the rules themselves: deploy/monitoring/check.sh.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::repository::{is_up_to_date, read};

/// The metrics of kube-state-metrics that we use, from its docs/metrics/workload/pod-metrics.md.
const KUBE_STATE_METRICS: &[&str] = &[
    "kube_pod_annotations",
    "kube_pod_container_status_last_terminated_exitcode",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_status_running",
    "kube_pod_container_status_terminated_reason",
    "kube_pod_info",
    "kube_pod_init_container_status_restarts_total",
    "kube_pod_init_container_status_running",
    "kube_pod_init_container_status_terminated_reason",
    "kube_pod_restart_policy",
    "kube_pod_status_phase",
];

/// Words of PromQL that are not metrics, even without a parenthesis after them.
const WORDS: &[&str] = &["and", "bool", "offset", "or", "unless"];

/// Words whose parentheses contain labels.
const LABEL_LISTS: &[&str] = &[
    "by",
    "group_left",
    "group_right",
    "ignoring",
    "on",
    "without",
];

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// A file of rules, and the page that explains its alerts.
#[derive(Clone, Copy)]
struct Rules {
    /// The name in deploy/monitoring, without `.yaml`.
    name: &'static str,
    /// The same rules for the Prometheus operator.
    operator: &'static str,
    /// The name of the operator's object.
    object: &'static str,
    /// The page in docs/, which has a heading for each alert.
    page: &'static str,
}

const OF_PODS: Rules = Rules {
    name: "alerts",
    operator: "prometheusrule",
    object: "podbeat",
    page: "operations.md",
};

const OF_SERVER: Rules = Rules {
    name: "server-alerts",
    operator: "server-prometheusrule",
    object: "podbeat-server",
    page: "server.md",
};

fn rules(of: Rules) -> Vec<Value> {
    let file = yaml(&format!("deploy/monitoring/{}.yaml", of.name));
    let groups = items(&file["groups"]);
    groups
        .iter()
        .flat_map(|group| items(&group["rules"]).to_vec())
        .collect()
}

fn alerts(of: Rules) -> BTreeSet<String> {
    let names = rules(of);
    names
        .iter()
        .filter_map(|rule| rule["alert"].as_str().map(str::to_owned))
        .collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/monitoring/dashboard.json")).expect("JSON")
}

/// The dashboard about podbeat-server.
fn servers_dashboard() -> Value {
    serde_json::from_str(&read("deploy/monitoring/server-dashboard.json")).expect("JSON")
}

/// The panels that show something, without the rows, which are only headings.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    items(&dashboard["panels"])
        .iter()
        .filter(|panel| panel["type"] != "row")
}

/// Every expression of the dashboard, with the title of its place.
fn dashboard_expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in panels(dashboard) {
        for target in items(&panel["targets"]) {
            all.push((
                text(&panel["title"]).to_owned(),
                text(&target["expr"]).to_owned(),
            ));
        }
    }
    for note in items(&dashboard["annotations"]["list"]) {
        if let Some(expression) = note["expr"].as_str() {
            all.push((text(&note["name"]).to_owned(), expression.to_owned()));
        }
    }
    for variable in items(&dashboard["templating"]["list"]) {
        if variable["type"] == "query" {
            let asked = text(&variable["definition"]);
            assert_eq!(asked, text(&variable["query"]["query"]));
            let (selector, _) = asked
                .strip_prefix("label_values(")
                .and_then(|rest| rest.rsplit_once(','))
                .expect("label_values(selector, label)");
            all.push((text(&variable["name"]).to_owned(), selector.to_owned()));
        }
    }
    all
}

/// A word of an expression, or one character between words.
#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Mark(char),
}

/// Splits PromQL, without its string literals, label matchers, ranges and numbers.
fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(at) = rest.next() {
        match at {
            '"' => while rest.next().is_some_and(|next| next != '"') {},
            '{' => {
                let mut quoted = false;
                for next in rest.by_ref() {
                    match next {
                        '"' => quoted = !quoted,
                        '}' if !quoted => break,
                        _ => {}
                    }
                }
            }
            '[' => while rest.next().is_some_and(|next| next != ']') {},
            _ if at.is_ascii_alphanumeric() || at == '_' || at == ':' || at == '$' => {
                let mut word = at.to_string();
                while let Some(next) = rest
                    .next_if(|next| next.is_ascii_alphanumeric() || *next == '_' || *next == ':')
                {
                    word.push(next);
                }
                if !at.is_ascii_digit() {
                    tokens.push(Token::Word(word));
                }
            }
            _ if at.is_whitespace() => {}
            _ => tokens.push(Token::Mark(at)),
        }
    }
    tokens
}

/// The metrics that an expression uses: words that are not functions, operators or labels.
fn metrics(expression: &str) -> BTreeSet<String> {
    let tokens = tokens(expression);
    let mut named = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        // `sum(x)`, and `sum by (label) (x)`.
        let called = match tokens.get(at + 1) {
            Some(Token::Mark(mark)) => *mark == '(',
            Some(Token::Word(word)) => word == "by" || word == "without",
            None => false,
        };
        match &tokens[at] {
            Token::Word(word) if called && LABEL_LISTS.contains(&word.as_str()) => {
                while tokens[at] != Token::Mark(')') {
                    at += 1;
                }
            }
            Token::Word(word) if !called && !WORDS.contains(&word.as_str()) => {
                named.insert(word.clone());
            }
            // `offset 1h` is a word and a number. The parentheses of a function or operator contain
            // an expression.
            Token::Word(_) | Token::Mark(_) => {}
        }
        at += 1;
    }
    named
}

/// The label matchers of an expression that select certain values, as (label, value).
fn asked(expression: &str, labels: &[&str]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for label in labels {
        for (place, _) in expression.match_indices(label) {
            let before = expression.get(..place).expect("a boundary");
            if !before.ends_with(['{', ' ', ',']) {
                continue;
            }
            let after = expression.get(place + label.len()..).expect("a boundary");
            let Some((operator, values)) = after.split_once('"') else {
                continue;
            };
            if !["=", "!=", "=~", "!~"].contains(&operator) {
                continue;
            }
            let (values, _) = values.split_once('"').expect("the literal ends");
            all.extend(
                values
                    .split('|')
                    .map(|value| ((*label).to_owned(), value.to_owned())),
            );
        }
    }
    all
}

/// The metrics of a document: the first cell of each row of its table, and the whole row.
fn documented(document: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in read(document).lines() {
        let Some(name) = line
            .split('|')
            .nth(1)
            .map(|cell| cell.trim().trim_matches('`'))
        else {
            continue;
        };
        if name.starts_with("podbeat_") || name.starts_with("process_") {
            all.insert(name.to_owned(), line.to_owned());
        }
    }
    assert!(
        all.len() > 10,
        "{document} has no table of metrics: {:?}",
        all.keys()
    );
    all
}

#[test]
fn the_names_in_an_expression_are_found() {
    let found = |expression| metrics(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found(
            r#"sum by (le, kind) (rate(a_total{b="c", d=~"}e"}[5m])) / on (f) group_left (g) h:i > 1e3"#
        ),
        ["a_total", "h:i"]
    );
    assert_eq!(
        found(
            r#"x offset 1h unless ignoring (y) last_over_time(z[1h] offset 5m) or "words" == bool 2"#
        ),
        ["x", "z"]
    );
    assert_eq!(
        asked(
            r#"a{kind="final", outcome=~"x|y"} + b{unkind="c", kind!="d"}"#,
            &["kind", "outcome"]
        ),
        [
            ("kind", "final"),
            ("kind", "d"),
            ("outcome", "x"),
            ("outcome", "y")
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
    );
}

#[test]
fn every_used_metric_exists() {
    let mut documented = documented("docs/metrics.md");
    documented.extend(of_server());
    let rules = [rules(OF_PODS), rules(OF_SERVER)].concat();
    let recorded: BTreeSet<&str> = rules
        .iter()
        .filter_map(|rule| rule["record"].as_str())
        .collect();
    let mut expressions: Vec<(String, String)> = rules
        .iter()
        .map(|rule| {
            let name = rule["alert"].as_str().or(rule["record"].as_str());
            (
                name.expect("a name").to_owned(),
                text(&rule["expr"]).to_owned(),
            )
        })
        .collect();
    expressions.extend(dashboard_expressions(&dashboard()));
    expressions.extend(dashboard_expressions(&servers_dashboard()));

    let mut used = BTreeSet::new();
    for (place, expression) in &expressions {
        let named = metrics(expression);
        assert!(!named.is_empty(), "{place} names no metric: {expression}");
        for metric in named {
            let of_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| metric.strip_suffix(suffix))
                .filter(|base| {
                    documented
                        .get(*base)
                        .is_some_and(|row| row.contains("histogram"))
                });
            let known = documented.contains_key(&metric)
                || of_histogram.is_some()
                || recorded.contains(metric.as_str())
                || KUBE_STATE_METRICS.contains(&metric.as_str())
                || metric == "ALERTS";
            assert!(known, "{place}: unknown metric {metric}");
            used.insert(metric);
        }
        // A misspelled value would make a rule silent, not wrong.
        for (label, value) in asked(expression, &["kind", "outcome", "status", "state", "deed"]) {
            let told = documented.values().any(|row| {
                row.contains(&label)
                    && row
                        .split(|at: char| !at.is_ascii_alphanumeric() && at != '_')
                        .any(|word| word == value)
            });
            assert!(told, "{place}: no metric has {label}=\"{value}\"");
        }
    }
    let in_vain: Vec<_> = recorded
        .iter()
        .filter(|name| !used.contains(**name))
        .collect();
    assert!(in_vain.is_empty(), "recorded but not used: {in_vain:?}");
    let in_vain: Vec<_> = KUBE_STATE_METRICS
        .iter()
        .filter(|name| !used.contains(**name))
        .collect();
    assert!(in_vain.is_empty(), "listed here but not used: {in_vain:?}");
}

/// A rule of the server uses only the server's metrics, not those of the pods with the same name.
#[test]
fn the_servers_rules_use_its_metrics() {
    let documented = of_server();
    for rule in rules(OF_SERVER) {
        for metric in metrics(text(&rule["expr"])) {
            assert!(documented.contains_key(&metric), "{metric}");
        }
    }
}

/// The dashboard of the server shows only its own metrics. Those of its process have names that
/// other processes use, too, so an expression with one is about an instance of the server.
#[test]
fn the_servers_dashboard_uses_its_metrics() {
    let documented = of_server();
    let mut shown = BTreeSet::new();
    for (place, expression) in dashboard_expressions(&servers_dashboard()) {
        let named = metrics(&expression);
        for metric in &named {
            let of_histogram = metric.strip_suffix("_bucket").unwrap_or(metric);
            assert!(
                documented.contains_key(of_histogram) || metric == "ALERTS",
                "{place}: {metric}"
            );
            shown.insert(of_histogram.to_owned());
        }
        if named.iter().any(|metric| metric.starts_with("process_")) {
            let only_servers = "and on (instance) podbeat_server_build_info";
            assert!(expression.contains(only_servers), "{place}: {expression}");
        }
    }
    let unseen: Vec<_> = documented
        .keys()
        .filter(|name| !shown.contains(*name))
        .collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
}

/// Helm reads only files of the chart, so the chart has copies.
#[test]
fn the_chart_has_the_servers_rules_and_dashboard() {
    for (copy, original) in [
        ("alerts.yaml", "server-alerts.yaml"),
        ("dashboard.json", "server-dashboard.json"),
    ] {
        is_up_to_date(
            &format!("deploy/helm/podbeat-server/files/{copy}"),
            &read(&format!("deploy/monitoring/{original}")),
        );
    }
}

fn of_server() -> BTreeMap<String, String> {
    documented("docs/server-reference.md")
}

#[test]
fn the_prometheus_rules_are_made_from_the_rules() {
    for of in [OF_PODS, OF_SERVER] {
        the_prometheus_rule_is_made_from_the_rules(of);
    }
}

fn the_prometheus_rule_is_made_from_the_rules(of: Rules) {
    let file = &format!("deploy/monitoring/{}.yaml", of.operator);
    let source = format!("deploy/monitoring/{}.yaml", of.name);
    let plain = read(&source);
    let (_, groups) = plain.split_once("\ngroups:\n").expect("groups");
    let object = of.object;
    let mut made = format!(
        "# Made from {}.yaml by `just docs`; a test compares. The Prometheus operator's ruleSelector may ask for more labels.\n\
         apiVersion: monitoring.coreos.com/v1\n\
         kind: PrometheusRule\n\
         metadata:\n\
         \x20 name: {object}\n\
         \x20 labels:\n\
         \x20   app.kubernetes.io/name: {object}\n\
         spec:\n\
         \x20 groups:\n",
        of.name
    );
    for line in groups.lines() {
        if !line.is_empty() {
            made.push_str("  ");
        }
        made.push_str(line);
        made.push('\n');
    }
    is_up_to_date(file, &made);
    assert_eq!(yaml(file)["spec"]["groups"], yaml(&source)["groups"]);
}

/// The memory limit that the dashboard names and draws is that of the container in the manifests.
/// The chart replaces it with its own.
#[test]
fn the_dashboards_memory_limit_is_the_containers() {
    let job = yaml("deploy/manifests/job-native-sidecar.yaml");
    let podbeat = &job["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(podbeat["name"], "podbeat");
    let limit = text(&podbeat["resources"]["limits"]["memory"]);
    let mebibytes: u64 = limit
        .strip_suffix("Mi")
        .and_then(|mebibytes| mebibytes.parse().ok())
        .expect("Mi");
    let values = yaml("deploy/helm/podbeat/values.yaml");
    assert_eq!(values["sidecar"]["resources"]["limits"]["memory"], limit);
    let dashboard = dashboard();
    let mut found = 0;
    for panel in panels(&dashboard) {
        let of_memory =
            |target: &Value| text(&target["expr"]).contains("process_resident_memory_bytes");
        if items(&panel["targets"]).iter().any(of_memory) {
            let told = format!("the container's limit is {limit}.");
            assert!(
                text(&panel["description"]).ends_with(&told),
                "{}",
                panel["title"]
            );
            let steps = items(&panel["fieldConfig"]["defaults"]["thresholds"]["steps"]);
            assert_eq!(steps.last().expect("a step")["value"], mebibytes << 20);
            found += 1;
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn every_alert_is_explained_at_its_link() {
    for of in [OF_PODS, OF_SERVER] {
        every_alert_of_a_file_is_explained_at_its_link(of);
    }
}

fn every_alert_of_a_file_is_explained_at_its_link(of: Rules) {
    let page = read(&format!("docs/{}", of.page));
    let (_, section) = page
        .split_once("\n## Alerts\n")
        .expect("a section of alerts");
    let section = section.split("\n## ").next().expect("its text");
    let headed: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("### Podbeat"))
        .map(|name| format!("Podbeat{name}"))
        .collect();
    assert_eq!(
        headed,
        alerts(of),
        "the headings of docs/{}, and the alerts",
        of.page
    );
    let tests = read(&format!("deploy/monitoring/{}_test.yaml", of.name));

    for rule in rules(of) {
        let Some(name) = rule["alert"].as_str() else {
            continue;
        };
        let notes = &rule["annotations"];
        // The anchor of a heading is its text in lower case. A pager has no checkout, so a relative
        // path would not work.
        let url = format!(
            "https://podbeat.example.com/docs/{}#{}",
            of.page,
            name.to_lowercase()
        );
        assert_eq!(notes["runbook_url"], url.as_str(), "{name}");
        let severity = text(&rule["labels"]["severity"]);
        assert!(
            ["warning", "critical"].contains(&severity),
            "{name}: {severity}"
        );
        assert!(text(&notes["summary"]).ends_with('.'), "{name}");
        // An alert about the fleet is not about one pod.
        let told: &[&str] = match (name, rule["labels"]["scope"].as_str()) {
            ("PodbeatServerDown", _) => &[],
            _ if of.page == OF_SERVER.page => &["instance"],
            (_, Some("cluster")) => &["cluster"],
            (_, Some(_)) | ("PodbeatAbsent", _) => &["namespace"],
            _ => &["namespace", "pod", "task_run_id"],
        };
        for label in told {
            let shown = format!("$labels.{label} ");
            assert!(
                text(&notes["description"]).contains(&shown),
                "{name} names no {label}"
            );
        }
        assert!(
            tests.contains(&format!("alertname: {name}\n")),
            "{name} is untested"
        );
    }
}

/// Alertmanager's rules in docs/operations.md. amtool is not available, so the test compares their
/// form with Alertmanager's documentation, and their names with the alerts.
#[test]
fn the_inhibit_rules_use_existing_alerts_and_labels() {
    let operations = read("docs/operations.md");
    let (_, block) = operations
        .split_once("```yaml\n# alertmanager.yaml")
        .expect("the fragment of Alertmanager's configuration");
    let (block, _) = block.split_once("\n```").expect("its end");
    let fragment: Value = serde_saphyr::from_str(&format!("#{block}")).expect("YAML");
    let alerts = alerts(OF_PODS);
    let inhibit_rules = items(&fragment["inhibit_rules"]);
    assert!(!inhibit_rules.is_empty());
    for rule in inhibit_rules {
        let keys: Vec<_> = rule.as_object().expect("a rule").keys().collect();
        assert_eq!(
            keys,
            ["equal", "source_matchers", "target_matchers"],
            "{rule}"
        );
        for side in ["source_matchers", "target_matchers"] {
            for matcher in items(&rule[side]) {
                let mut parts = text(matcher).splitn(3, ' ');
                let (label, operator, value) = (parts.next(), parts.next(), parts.next());
                let value = value.expect("a value").trim_matches('"');
                match (label, operator) {
                    (Some("alertname"), Some("=" | "=~")) => {
                        for name in value.split('|') {
                            assert!(alerts.contains(name), "no alert is called {name}");
                        }
                    }
                    (Some("scope"), Some("=")) => {
                        assert!(["cluster", "namespace"].contains(&value), "{matcher}");
                    }
                    _ => panic!("cannot parse {matcher}"),
                }
            }
        }
        for label in items(&rule["equal"]) {
            assert!(
                ["cluster", "namespace", "pod"].contains(&text(label)),
                "{label}"
            );
        }
        assert_ne!(rule["source_matchers"], rule["target_matchers"]);
    }
}

#[test]
fn the_dashboard_is_complete() {
    let dashboard = dashboard();
    is_complete(
        &dashboard,
        "podbeat",
        &["datasource", "namespace", "run", "pod"],
    );
    for panel in panels(&dashboard) {
        for target in items(&panel["targets"]) {
            // Ten thousand pods must not produce ten thousand lines.
            let expression = text(&target["expr"]);
            let title = text(&panel["title"]);
            assert!(expression.contains("$namespace"), "{title}: {expression}");
            assert!(
                expression.contains("pod=\"$pod\"") || expression.contains("namespace:") || {
                    let outermost = expression.split('(').next().expect("a word").trim();
                    let outermost = outermost.split(' ').next().expect("a word");
                    ["bottomk", "count", "max", "quantile", "sum", "topk"].contains(&outermost)
                },
                "{title} selects all pods without aggregation: {expression}"
            );
        }
    }
}

#[test]
fn the_servers_dashboard_is_complete() {
    let dashboard = servers_dashboard();
    is_complete(&dashboard, "podbeat-server", &["datasource", "instance"]);
    for panel in panels(&dashboard) {
        for target in items(&panel["targets"]) {
            // An alert about all servers has no instance.
            let expression = text(&target["expr"]);
            assert!(
                expression.contains("instance=~\"$instance\"") || expression.contains("ALERTS{"),
                "{}: {expression}",
                panel["title"]
            );
        }
    }
}

/// A dashboard's panels have titles, texts and places of their own, and know their data source.
fn is_complete(dashboard: &Value, uid: &str, expected_variables: &[&str]) {
    assert_eq!(dashboard["uid"], uid);
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
    let variables: Vec<_> = items(&dashboard["templating"]["list"])
        .iter()
        .map(|variable| text(&variable["name"]))
        .collect();
    assert_eq!(variables, expected_variables);

    let mut ids = BTreeSet::new();
    let mut cells = BTreeMap::new();
    for panel in items(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64()), "{title}: duplicate id");
        let place = |side: &str| {
            panel["gridPos"][side]
                .as_u64()
                .unwrap_or_else(|| panic!("{title}: no {side}"))
        };
        assert!(
            place("w") > 0 && place("h") > 0 && place("x") + place("w") <= 24,
            "{title}"
        );
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                if let Some(other) = cells.insert((x, y), title) {
                    panic!("{title} overlaps {other}");
                }
            }
        }
    }

    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let asking = items(&dashboard["annotations"]["list"])
        .iter()
        .filter(|note| note["expr"].is_string())
        .chain(
            items(&dashboard["templating"]["list"])
                .iter()
                .filter(|variable| variable["type"] == "query"),
        );
    for asks in asking {
        assert_eq!(asks["datasource"], source, "{}", asks["name"]);
    }
    let mut titles = BTreeSet::new();
    for panel in panels(dashboard) {
        let title = text(&panel["title"]);
        assert!(titles.insert(title), "two panels are called {title}");
        let defaults = &panel["fieldConfig"]["defaults"];
        let unit = defaults["unit"].as_str();
        assert!(
            ["short", "s", "ops", "bytes", "percentunit"]
                .map(Some)
                .contains(&unit),
            "{title}: {unit:?}"
        );
        // One sentence says what is normal.
        assert!(
            text(&panel["description"]).contains("ormal"),
            "{title} does not describe the normal state"
        );
        assert!(text(&panel["description"]).ends_with('.'), "{title}");
        assert_eq!(panel["datasource"], source, "{title}");
        let targets = items(&panel["targets"]);
        assert!(!targets.is_empty(), "{title} has no query");
        let references: BTreeSet<_> = targets
            .iter()
            .map(|target| text(&target["refId"]))
            .collect();
        assert_eq!(references.len(), targets.len(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"], source, "{title}");
            if panel["type"] == "timeseries" {
                assert!(
                    !text(&target["legendFormat"]).is_empty(),
                    "{title}: a legend of all labels"
                );
            }
        }
    }
}

/// A limit in a panel is the limit of its alert. Each row has the alert, part of its rule, the
/// panel, part of the panel's expression, and the threshold step.
#[test]
fn the_dashboards_limits_are_the_alerts() {
    let limits = [
        (
            "PodbeatManyWithoutHeartbeats",
            ">= 0.1\n",
            "Pods behind",
            "",
            Some(0.1),
        ),
        (
            "PodbeatManyWithoutHeartbeats",
            ">= 0.2\n",
            "Pods behind by namespace",
            "",
            Some(0.2),
        ),
        (
            "PodbeatNoHeartbeatAccepted",
            "- 2 * podbeat_interval_seconds > 120",
            "Age of the last accepted heartbeat",
            "2 * podbeat_interval_seconds{namespace=~\"$namespace\", pod=\"$pod\"} + 120",
            None,
        ),
        (
            "PodbeatNoHeartbeatAccepted",
            "- 2 * podbeat_interval_seconds > 120",
            "Longest without an accepted heartbeat",
            "/ (2 * podbeat_interval_seconds{namespace=~\"$namespace\"} + 120)",
            Some(1.0),
        ),
        (
            "PodbeatWatchStale",
            "(podbeat_watch_age_seconds > 120)",
            "Age of the pod's states",
            "clamp_min(podbeat_max_status_age_seconds{namespace=~\"$namespace\", pod=\"$pod\"}, 120)",
            None,
        ),
        (
            "PodbeatTokenExpiresSoon",
            "< 600 ",
            "Tokens that expire next",
            "",
            Some(600.0),
        ),
        (
            "PodbeatTokenExpiresSoon",
            "< 600 ",
            "Token's time left",
            "",
            Some(600.0),
        ),
        (
            "PodbeatRestarting",
            ">= 2\n",
            "Restarts of podbeat",
            "",
            Some(2.0),
        ),
        (
            "PodbeatFinalPending",
            "podbeat_final_pending == 1",
            "Last heartbeat pending",
            "",
            Some(1.0),
        ),
        (
            "PodbeatOrphanedRun",
            "podbeat_orphaned == 1",
            "Orphaned",
            "",
            Some(1.0),
        ),
    ];
    are_those_of_the_alerts(&limits, OF_PODS, &dashboard());
}

#[test]
fn the_limits_of_the_servers_dashboard_are_the_alerts() {
    let limits = [
        (
            "PodbeatServerNotReady",
            "podbeat_server_ready == 0",
            "Ready",
            "podbeat_server_ready",
            Some(1.0),
        ),
        (
            "PodbeatServerHeartbeatLag",
            "> 0.5 * podbeat_server_heartbeat_timeout_seconds",
            "Longest silence",
            "/ podbeat_server_heartbeat_timeout_seconds",
            Some(0.5),
        ),
        (
            "PodbeatServerErrors",
            "> 0.05\n",
            "Errors",
            "status=~\"500|503\"",
            Some(0.05),
        ),
        (
            "PodbeatServerDiskFull",
            "< 1 * 1024 * 1024 * 1024",
            "Free disk",
            "",
            Some(1_073_741_824.0),
        ),
        (
            "PodbeatServerQueueLong",
            "[5m]) > 100",
            "Queue of the store",
            "",
            Some(100.0),
        ),
        (
            "PodbeatServerStoreFails",
            "podbeat_server_store_failures_total[5m]) > 0",
            "Failures of the store",
            "podbeat_server_store_failures_total",
            None,
        ),
    ];
    are_those_of_the_alerts(&limits, OF_SERVER, &servers_dashboard());
}

/// An alert, part of its rule, the panel, part of the panel's expression, and the threshold step.
type Limit = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Option<f64>,
);

fn are_those_of_the_alerts(limits: &[Limit], of: Rules, dashboard: &Value) {
    let rules = rules(of);
    for &(alert, in_rule, title, in_panel, step) in limits {
        assert!(
            rules
                .iter()
                .any(|rule| rule["alert"] == alert && text(&rule["expr"]).contains(in_rule)),
            "{alert} has no {in_rule}"
        );
        let panel = panels(dashboard)
            .find(|panel| panel["title"] == title)
            .unwrap_or_else(|| panic!("no panel {title}"));
        assert!(
            items(&panel["targets"])
                .iter()
                .any(|target| text(&target["expr"]).contains(in_panel)),
            "{title} has no {in_panel}"
        );
        assert!(
            text(&panel["description"]).contains(alert),
            "{title} names no {alert}"
        );
        if let Some(step) = step {
            let steps = &panel["fieldConfig"]["defaults"]["thresholds"]["steps"];
            assert!(
                items(steps)
                    .iter()
                    .any(|each| each["value"].as_f64() == Some(step)),
                "{title}: {steps}"
            );
        }
    }
}
