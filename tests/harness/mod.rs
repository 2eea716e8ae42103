//! What tests share: podbeat as a process, waiting for what the stand-ins hear, servers of a few lines, terminals, the repository's files.
//! Never here: what one test alone needs.

pub(crate) mod binary;
pub(crate) mod heard;
pub(crate) mod listener;
pub(crate) mod proxy;
pub(crate) mod repository;
pub(crate) mod server;
pub(crate) mod terminal;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use podbeat::config::{Environment, ProcessEnvironment};
use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::kube_api;
use podbeat_lab::service::{Options, Service};
use podbeat_lab::world::World;
use proptest::test_runner::{Config, FileFailurePersistence};
use tokio::net::TcpSocket;

/// How long a state may take to come. Longer than anything here takes, even on a machine that is busy with other tests; and by far longer
/// than the grace of 30 s that some captured pods have, all of which podbeat may wait for fresher states.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// When `main` started.
pub(crate) const STARTED: &str = "2026-01-01T00:00:01Z";

/// The settings of an agent in this world's pod `p`, with these on top.
pub(crate) fn settings(world: &World, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut settings = world.settings("p", "u1");
    for (variable, value) in more {
        settings.insert((*variable).to_owned(), (*value).to_owned());
    }
    settings
}

/// The same, of services that are not on loopback, and so may be reached by a proxy.
pub(crate) fn settings_away(world: &World, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut settings = settings(world, more);
    settings.insert("KUBERNETES_SERVICE_HOST".to_owned(), listener::AWAY.to_owned());
    let url = world.service.url().replace("localhost", listener::AWAY);
    settings.insert("PODBEAT_SERVICE_URL".to_owned(), url);
    settings
}

/// A path as the value of a setting.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("text").to_owned()
}

/// A world whose service is another than the usual one.
pub(crate) async fn world_with(service: Options) -> World {
    World::with(kube_api::Options::default(), service)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A service that knows these runs and no others.
pub(crate) fn knowing<'id>(runs: impl IntoIterator<Item = &'id str>) -> Options {
    Options {
        runs: Some(runs.into_iter().map(str::to_owned).collect()),
        ..Options::default()
    }
}

/// A service without TLS.
pub(crate) async fn plain_service(options: Options) -> Service {
    let contract = Contract::load().expect("the contract");
    Service::start_plain(([127, 0, 0, 1], 0).into(), contract, Faults::default(), options)
        .await
        .expect("started")
}

/// A port of this machine on which nobody listens, and the socket that keeps it from all others.
pub(crate) fn unused_port() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    (socket.local_addr().expect("its address").port(), socket)
}

/// A JSON Web Token with these claims, which is found by `hunter2` where it shouldn't be.
pub(crate) fn jwt(claims: &str) -> String {
    format!("e30.{}.hunter2", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

/// Whether this is the process that a test has to itself. If not, makes one, in which nothing but the test of this name runs, and has it
/// pass there: for tests that look at what one thread of a process takes from the others, such as the descriptors that a process
/// inherits. A pty has a moment in which whatever another thread starts inherits it.
pub(crate) fn is_alone(test: &str) -> bool {
    const ALONE: &str = "PODBEAT_TEST_ALONE";
    if ProcessEnvironment.get(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", test])
        .env(ALONE, "1")
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    // A name that matches no test would pass, too.
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

/// So many cases of each property. What failed once is tried first from then on, and kept in this file under tests/proptest-regressions:
/// proptest itself would look for a place beside `main.rs` or `lib.rs`, and finds none.
pub(crate) fn cases(cases: u32, file: &'static str) -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..Config::with_cases(cases)
    }
}
