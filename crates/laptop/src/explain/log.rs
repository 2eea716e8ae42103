//! Explains podbeat's log, in the JSON or the text form.

mod known;
mod line;
mod verdict;

use self::known::Known;
pub(super) use self::line::Line;
use super::story::{Event, Story};

/// The stories of the pods in these lines. Each story includes all processes of its pod.
pub(super) fn stories(lines: Vec<Line>) -> Vec<Story> {
    let mut pods: Vec<(String, Vec<Line>)> = Vec::new();
    for line in lines {
        match pods.iter_mut().find(|(prefix, _)| *prefix == line.prefix) {
            Some((_, lines)) => lines.push(line),
            None => pods.push((line.prefix.clone(), vec![line])),
        }
    }
    pods.into_iter().map(|(_, lines)| story(&lines)).collect()
}

fn story(lines: &[Line]) -> Story {
    let mut known = Known::default();
    let mut events = Vec::new();
    for line in lines {
        known.last = line.at.or(known.last);
        if let Some(text) = known.take_in(line) {
            events.push(Event::new(line.at, text));
        }
    }
    let verdict = known.verdict();
    Story {
        source: "log",
        task_run: known.task_run,
        pod: known.pod,
        events,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use podbeat_interface::messages::{FIELDS, Message};
    use podbeat_lab::hostile;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::super::story::{Outcome, Verdict};
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        text.lines().filter_map(Line::read).collect()
    }

    fn line(second: u32, message: &str, fields: &str) -> String {
        let fields = if fields.is_empty() {
            String::new()
        } else {
            format!(",{fields}")
        };
        format!(
            r#"{{"timestamp":"2026-11-24T01:00:{second:02}.000Z","level":"INFO","message":"{message}"{fields},"target":"podbeat::agent"}}"#
        )
    }

    #[test]
    fn lines_of_several_pods_are_several_stories() {
        let of = |pod: &str, run: &str| {
            format!(
                "[pod/{pod}/podbeat] {}\n",
                line(1, "podbeat started", &format!(r#""task_run_id":"{run}""#))
            )
        };
        let text = format!("{}{}{}", of("a", "r1"), of("b", "r2"), of("a", "r1"));
        let stories = stories(lines(&text));
        let runs: Vec<_> = stories
            .iter()
            .map(|story| story.task_run.as_deref())
            .collect();
        assert_eq!(runs, [Some("r1"), Some("r2")]);
        assert_eq!(
            stories[0].events[1].text,
            "podbeat ? started again: the process before it was killed"
        );
    }

    proptest! {
        /// A log can be cut, edited or from another version. Whatever values the fields have, there
        /// is a story.
        #[test]
        fn whatever_the_lines_hold_there_is_a_story(
            told in prop::collection::vec(
                (
                    prop::sample::select(Message::ALL),
                    prop::collection::btree_map(
                        prop::sample::select(FIELDS).prop_map(|field| field.name),
                        prop_oneof![
                            any::<i64>().prop_map(Value::from),
                            any::<f64>().prop_map(Value::from),
                            any::<bool>().prop_map(Value::from),
                            hostile::TEXT.prop_map(Value::from),
                            Just(Value::Null),
                        ],
                        0..6,
                    ),
                    prop_oneof!["[0-9:TZ-]{0,24}|2026-11-24T01:00:00Z", hostile::TEXT],
                ),
                1..20,
            ),
        ) {
            let text: Vec<String> = told
                .into_iter()
                .map(|(message, fields, at)| {
                    let mut line: Map<String, Value> =
                        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                    let own = [("message", message.text), ("level", "INFO"), ("timestamp", &at), ("target", "podbeat")];
                    line.extend(own.map(|(name, value)| (name.to_owned(), value.into())));
                    Value::Object(line).to_string()
                })
                .collect();
            let stories = stories(lines(&text.join("\n")));
            prop_assert_eq!(stories.len(), 1);
            let shown = stories[0].text();
            prop_assert!(!shown.chars().any(|c| podbeat_interface::terminal::acts(c) && c != '\n'), "{:?}", shown);
        }
    }

    fn verdict(text: &[String]) -> Verdict {
        stories(lines(&text.join("\n"))).swap_remove(0).verdict
    }

    #[test]
    fn a_last_heartbeat_that_was_taken_back_is_no_end() {
        let before = [
            line(0, "podbeat started", r#""task_run_id":"trn.1""#),
            line(1, "the last heartbeat is due", r#""cause":"a signal""#),
            line(
                2,
                "the last heartbeat was accepted",
                r#""told":"main running""#,
            ),
            line(3, "podbeat is exiting", r#""exit_code":0"#),
            line(4, "podbeat started", ""),
        ];
        assert_eq!(verdict(&before).outcome, Outcome::Delivered);
        let reopened = "only podbeat's container was stopped and the task continues; resuming heartbeats after a last heartbeat";
        let mut lines = before.to_vec();
        lines.push(line(5, reopened, r#""last_heartbeat":"accepted""#));
        assert_eq!(verdict(&lines).outcome, Outcome::Open);
        lines.push(line(
            6,
            "the pod is being deleted",
            r#""until":"2026-11-24T02:00:00Z""#,
        ));
        let told = verdict(&lines);
        assert_eq!(told.cause.as_deref(), Some("The pod was deleted."));
    }

    #[test]
    fn a_log_of_a_task_that_ended_beside_a_proxy_names_the_proxy() {
        let changed = |second, name: &str, to: &str| {
            let fields =
                format!(r#""container":"{name}","to":"{to}","exit_code":0,"restart_count":0"#);
            line(second, "container state changed", &fields)
        };
        let mut lines = vec![
            line(
                0,
                "podbeat started",
                r#""task_run_id":"trn.1","report":"task""#,
            ),
            changed(1, "main", "running"),
            changed(2, "linkerd-proxy", "running"),
            changed(3, "main", "terminated"),
        ];
        let named = |told: &Verdict| {
            let cause = told.cause.as_deref().unwrap_or_default();
            cause.starts_with("Container main has ended, but linkerd-proxy still runs.")
                && cause.contains("PODBEAT_IGNORED_CONTAINERS")
        };
        let told = verdict(&lines);
        assert!(told.outcome == Outcome::Open && named(&told), "{told:?}");
        // If all containers are reported, the proxy may be a native sidecar. The last heartbeat
        // does not wait for one.
        let all = lines[0].replace(r#""report":"task""#, r#""report":"all""#);
        assert!(!named(&verdict(&[vec![all], lines[1..].to_vec()].concat())));
        // In the end, a signal caused the last heartbeat.
        lines.push(line(
            4,
            "received SIGTERM or SIGINT; waiting for final container states",
            "",
        ));
        lines.push(line(
            5,
            "the last heartbeat is due",
            r#""cause":"a signal""#,
        ));
        lines.push(line(
            6,
            "the last heartbeat was accepted",
            r#""told":"main terminated 0""#,
        ));
        let told = verdict(&lines);
        assert!(
            told.outcome == Outcome::Delivered && named(&told),
            "{told:?}"
        );
    }

    #[test]
    fn a_run_that_hangs_is_told_what_it_waits_for() {
        let begins = line(
            0,
            "podbeat started",
            r#""version":"1","task_run_id":"trn.1""#,
        );
        let heard = line(
            1,
            "the service accepted the first heartbeat of this process",
            "",
        );
        let waits = line(
            2,
            "container state changed",
            r#""container":"main","to":"waiting","reason":"ImagePullBackOff","restart_count":0"#,
        );
        let told = verdict(&[begins.clone(), heard.clone(), waits]);
        assert_eq!(told.outcome, Outcome::Open);
        assert!(
            told.text.ends_with(
                "podbeat still runs, or was killed. main is waiting, ImagePullBackOff since 2026-11-24T01:00:02Z."
            ),
            "{}",
            told.text
        );
        let refused = line(
            5,
            "a heartbeat was not accepted",
            r#""since":"2026-11-24T01:00:04Z","repeats":8,"error":"the task-run service answered 403""#,
        );
        let due = line(
            6,
            "the last heartbeat is due",
            r#""cause":"the task's containers are finished""#,
        );
        let told = verdict(&[begins.clone(), heard, refused.clone(), due.clone()]);
        assert_eq!(told.outcome, Outcome::Due);
        assert!(
            told.text.contains("The service has not accepted a heartbeat since 2026-11-24T01:00:04Z: the task-run service answered 403."),
            "{}",
            told.text
        );
        let over = line(
            7,
            "could not deliver the last heartbeat in time; the service does not know how this run ended",
            r#""request":"{}""#,
        );
        let told = verdict(&[begins, refused, due, over]);
        assert_eq!(told.outcome, Outcome::Undelivered);
        assert!(
            told.text
                .contains("answered 403. As long as the pod exists, podbeat reap can send it."),
            "{}",
            told.text
        );
    }
}
