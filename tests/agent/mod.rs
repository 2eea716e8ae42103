//! The agent in this process, against the stand-ins: real TLS, real HTTP, no sleeps. Each test
//! waits for states.

mod captures;
mod kubernetes;
mod life;
mod markers;
mod service;

use std::collections::BTreeMap;

use futures_util::stream;
use podbeat::agent;
use podbeat::config::Config;
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::Ending;
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::harness::LIMIT;

/// A running agent.
struct Agent {
    task: JoinHandle<Ending>,
    signals: mpsc::Sender<()>,
}

impl Agent {
    fn start(settings: &BTreeMap<String, String>) -> Self {
        let config = Config::load(&Flags::default(), settings).expect("right settings");
        let (signals, mut receiver) = mpsc::channel(4);
        let signals_in = stream::poll_fn(move |context| receiver.poll_recv(context));
        let task =
            tokio::spawn(async move { agent::run(&config, signals_in, ()).await.expect("begun") });
        Self { task, signals }
    }

    async fn terminate(&self) {
        self.signals.send(()).await.expect("the agent runs");
    }

    async fn end(mut self) -> Ending {
        tokio::time::timeout(LIMIT, &mut self.task)
            .await
            .expect("the agent ends")
            .expect("the agent doesn't panic")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The states of a container over all accepted heartbeats, without repetitions.
fn states(heartbeats: &[Heartbeat], container: &str) -> Vec<String> {
    let mut states: Vec<String> = heartbeats
        .iter()
        .filter(|heartbeat| heartbeat.accepted)
        .filter_map(|heartbeat| heartbeat.state(container).map(|(name, _)| name.to_owned()))
        .collect();
    states.dedup();
    states
}

/// Checks what must be true after every life.
fn check(world: &World) {
    assert_eq!(world.service.violations(), Vec::<String>::new());
    let accepted = world.service.accepted();
    let finals: Vec<&Heartbeat> = accepted
        .iter()
        .filter(|heartbeat| heartbeat.is_final())
        .collect();
    assert!(
        finals
            .windows(2)
            .all(|pair| pair[0].nonce() == pair[1].nonce()),
        "one final: {finals:#?}"
    );
    if let Some(first) = accepted.iter().position(Heartbeat::is_final) {
        assert!(
            accepted[first..].iter().all(Heartbeat::is_final),
            "nothing after the final: {accepted:#?}"
        );
    }
}
