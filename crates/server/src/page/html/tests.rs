use std::sync::Arc;
use std::time::Duration;

use podbeat_task_runs::model::ContainerStatus;
use serde_json::json;

use super::super::json::readable;
use super::super::view::{
    Heartbeat as Shown, Log as ShownLog, Overview, Pages, Run as View, Wanted,
};
use super::*;
use crate::service::{Beat, Caller, Detail, Log};
use crate::store::{Entry, Facts, Listed, Page, Role, StoredRun};
use podbeat_runs::{Event, Heartbeat, Moment, Pod, Rules, Run};

/// Texts that try to become markup, to leave an attribute, or to change the text direction.
const HOSTILE: [&str; 5] = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "&lt;b&gt; &#60;i&#62;",
    "\u{202e}txt.exe\u{2066}",
    "../?id=x#y%00",
];

const RULES: Rules = Rules {
    heartbeat_timeout: Duration::from_secs(600),
    evidence_wait: Duration::from_secs(60),
    retry_wait: Duration::from_secs(900),
    ..Rules::DEFAULT
};

fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00.123456Z".parse().expect("a time");
    start + Duration::from_secs(seconds)
}

fn caller(text: &str, role: Role) -> Caller {
    Caller::User {
        tenant: text.to_owned(),
        user: text.to_owned(),
        role,
    }
}

fn reader(text: &str) -> Reader {
    Reader::of(&caller(text, Role::User), "form-token".to_owned()).expect("a user")
}

fn containers(text: &str) -> Vec<ContainerStatus> {
    let status = json!([
        {"name": text, "state": {"terminated": {"reason": text, "exitCode": 3, "message": text,
            "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:01:05.5Z"}}},
        {"name": "helper", "state": {"waiting": {"reason": text}}},
    ]);
    serde_json::from_value(status).expect("containers")
}

/// A run that was reported, and ended if `ends`.
fn stored(text: &str, ends: bool) -> StoredRun {
    let mut run = Run::new(0);
    let heartbeat = |last| {
        Event::Heartbeat(Box::new(Heartbeat {
            nonce: Some("hunter2".to_owned()),
            retry_count: Some(1),
            last,
            pod: Pod {
                name: Some(text.to_owned()),
                uid: Some(text.to_owned()),
                hardware: Some(text.to_owned()),
            },
            containers: containers(text),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            ..Heartbeat::default()
        }))
    };
    for (last, seconds) in [(false, 2), (true, 65)]
        .into_iter()
        .take(1 + usize::from(ends))
    {
        let now = Moment {
            wall: at(seconds),
            elapsed: Duration::from_secs(seconds),
        };
        run.apply(&heartbeat(last), now, &RULES).expect("accepted");
    }
    StoredRun {
        number: 1,
        version: 2,
        facts: Facts {
            id: text.to_owned(),
            tenant: text.to_owned(),
            created_by: text.to_owned(),
            name: Some(text.to_owned()),
            description: Some(format!("what {text} is for")),
            acl: Some(vec![text.to_owned(), "tid:b".to_owned()]),
            resource_type: Some(text.to_owned()),
            resource_size: Some("large".to_owned()),
            resource_tier: None,
            created: at(1),
        },
        modified_by: text.to_owned(),
        modified: at(65),
        seen: Some(at(65)),
        run,
    }
}

fn beat(body: &str, accepted: bool) -> Arc<Beat> {
    Arc::new(Beat {
        at: at(65),
        body: body.as_bytes().into(),
        size: body.len(),
        accepted,
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
    })
}

fn viewed(text: &str, ends: bool) -> View {
    let body = json!({"nonce": "hunter2", "jobRetryCount": 1, "lastHeartbeat": true, "containerStatus": containers(text)});
    let detail = Detail {
        run: stored(text, ends),
        timeline: vec![Entry {
            at: at(2),
            text: format!("pod {text} reports, UID {text}"),
        }],
        heartbeats: vec![(8, beat("{}", false)), (7, beat(&body.to_string(), true))],
        may_change: Ok(()),
    };
    View::of(&detail, Duration::from_secs(600))
}

fn listed(run: &StoredRun, number: u64) -> Listed {
    Listed {
        number,
        facts: run.facts.clone(),
        status: run.run.status(),
        details: run.run.details().map(str::to_owned),
        modified_by: run.modified_by.clone(),
        modified: run.modified,
        seen: run.seen,
    }
}

fn overview(text: &str) -> Overview {
    let mut new = listed(&stored(text, false), 2);
    new.facts.name = None;
    new.facts.id = "trn.2".to_owned();
    new.seen = None;
    let page = Page {
        runs: vec![listed(&stored(text, true), 1), new],
        total: 52,
        has_previous: true,
        has_next: true,
    };
    let wanted = Wanted {
        search: text.to_owned(),
        statuses: vec![Status::Running, Status::Failed],
    };
    let pages = Pages {
        newer: None,
        older: Some("t-older".to_owned()),
        oldest: Some("t-oldest".to_owned()),
        has_newest: false,
    };
    let counts = Status::ALL.into_iter().zip(10..).collect();
    Overview::of(wanted, pages, Some(counts), &page)
}

/// Every page, and every update of one.
fn everything(text: &str) -> Vec<(&'static str, String)> {
    let (overview, ended, running) = (overview(text), viewed(text, true), viewed(text, false));
    let reader = reader(text);
    let told = |picture: Picture| {
        let regions = picture.regions.into_iter().map(|(_, html)| html);
        let rows = picture.rows.into_iter().map(|(_, html)| html);
        regions.chain(rows).collect::<String>()
    };
    let safe = readable(text.as_bytes());
    let shown = Shown::of(7, &beat("{}", true));
    let of_pod = |lines: Option<String>| {
        ShownLog::of(&Log {
            namespace: text.to_owned(),
            pod: Some(text.to_owned()),
            text: lines,
        })
    };
    let lines = of_pod(Some(format!("{text}\n\tindented {text}\n")));
    vec![
        ("list", runs(&overview, None, &reader, at(70))),
        ("later", runs(&overview, Some("t-own"), &reader, at(70))),
        ("run", run(&ended, Some(&safe), &reader, at(4_000))),
        ("running", run(&running, None, &reader, at(70))),
        ("abort", abort(&running, &reader)),
        ("abort-ended", abort(&ended, &reader)),
        ("heartbeat", heartbeat(text, &shown, &safe, &reader)),
        ("log", log(text, Some(&lines), &reader)),
        (
            "log-empty",
            log(text, Some(&of_pod(Some(String::new()))), &reader),
        ),
        ("log-gone", log(text, Some(&of_pod(None)), &reader)),
        ("log-elsewhere", log(text, None, &reader)),
        ("sign-in", sign_in(text, Some(&safe))),
        ("refusal", refusal(&safe, &safe, Some(&reader), "")),
        ("elsewhere", elsewhere(text, "../")),
        ("list-update", told(runs_picture(&overview))),
        ("run-update", told(run_picture(Some(&running)))),
    ]
}

#[test]
fn the_pages_match_their_snapshots() {
    for (name, page) in everything("align") {
        if ["list", "run", "abort", "heartbeat", "log", "sign-in"].contains(&name) {
            insta::assert_snapshot!(name, page.replace("><", ">\n<"));
        }
    }
}

#[test]
fn text_from_outside_never_becomes_markup() {
    for hostile in HOSTILE {
        let address = encoded(hostile).to_string();
        for (name, html) in everything(hostile) {
            assert!(!html.contains("<img") && !html.contains("<b>"), "{html}");
            assert!(!html.contains("onerror=alert(2)>"), "{html}");
            // Only a field of a form returns a text unchanged.
            let fields = match name {
                "list" | "later" | "abort" | "sign-in" => 1,
                "elsewhere" => 2,
                _ => 0,
            };
            for odd in ['\u{202e}', '\u{2066}'] {
                assert!(html.matches(odd).count() <= fields, "{name}: {html}");
            }
            // There are only the page's own tags, and every attribute ends where it should.
            let stripped = html.replace("<script src=\"page.js\" defer></script>", "");
            assert!(!stripped.contains("script>"), "{html}");
            assert_eq!(
                html.matches('<').count(),
                html.matches('>').count(),
                "{html}"
            );
            match name {
                "list" => {
                    assert!(html.contains(&format!("href=\"run?id={address}\"")));
                    assert!(html.contains(&format!(
                        "data-live=\"live?search={address}&amp;status=Running&amp;status=Failed\""
                    )));
                }
                "run" => assert!(html.contains(&format!("data-live=\"run/live?id={address}\""))),
                "running" => assert!(html.contains(&format!("href=\"run/abort?id={address}\""))),
                _ => {}
            }
        }
    }
}

#[test]
fn no_page_shows_a_nonce() {
    for (name, html) in everything("align") {
        assert!(!html.contains("hunter2"), "{name}");
    }
}

#[test]
fn an_open_page_gets_updates_only_for_visible_changes() {
    let before = viewed("align", false);
    assert_eq!(run_picture(Some(&before)), run_picture(Some(&before)));
    let mut after = before.clone();
    after.heartbeats.remove(1);
    let (one, other) = (run_picture(Some(&before)), run_picture(Some(&after)));
    assert_eq!(one.regions, other.regions);
    assert_eq!((one.rows.len(), other.rows.len()), (2, 1));
    assert!(run_picture(None).rows.is_empty());
}

#[test]
fn the_list_says_how_many_runs_there_are() {
    let with = |search: &str, total| {
        let overview = Overview {
            wanted: Wanted {
                search: search.to_owned(),
                statuses: Vec::new(),
            },
            total,
            ..overview("align")
        };
        let picture = runs_picture(&overview);
        let note = picture
            .regions
            .into_iter()
            .find(|(name, _)| *name == "note");
        note.expect("a note").1
    };
    assert!(with("", 0).contains("No run yet."));
    assert_eq!(with("x", 0), "No run matches.");
    assert_eq!(with("", 1), "1 run.");
    assert_eq!(with("", 20_000), "20000 runs.");
    assert_eq!(with("x", 10_000), "At least 10000 runs.");
}
