// Drives a machine through a short life. Part of the targets that use it.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::Now;
use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Action, Event, Machine, Settings};
use podbeat_heartbeat::report::{Identity, Report};

pub fn settings() -> Settings {
    Settings {
        identity: Identity {
            pod_name: "p".to_owned(),
            ..Identity::default()
        },
        nonce: None,
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        report: Report::All,
        max_status_age: Duration::from_secs(300),
        journaled: true,
        markers: true,
    }
}

pub fn at(seconds: u64) -> Now {
    Now {
        elapsed: Duration::from_secs(seconds),
        wall: Timestamp::from_second(1_800_000_000).expect("in range"),
    }
}

/// Feeds the machine with events, then SIGTERM, then a day of time. Nothing may panic.
pub fn to_the_end(machine: &mut Machine, events: Vec<Event>) {
    let mut second = 0;
    let mut feed = |event, second| {
        let mut answers = vec![event];
        while let Some(event) = answers.pop() {
            for action in machine.on(event, at(second)) {
                match action {
                    Action::Send(attempt) if second % 3 == 0 => answers.push(Event::Answered {
                        attempt: attempt.number,
                        answer: Answer::Accepted,
                    }),
                    Action::Persist(saved) => {
                        serde_json::to_vec(&saved).expect("what is saved can be written down");
                    }
                    _ => {}
                }
            }
        }
    };
    feed(Event::Started, 0);
    for event in events {
        second += 1;
        feed(event, second);
    }
    feed(Event::Signal, second);
    // A pod's grace period has no upper limit. A day is enough to show that the machine handles the
    // passing of time.
    for later in 1..1000 {
        feed(Event::Woke, second + later * 90);
    }
}
