//! What tests share: podbeat as a process, waiting for what the stand-ins receive, small servers,
//! terminals, and the repository's files. Code that only one test needs is not here.

pub(crate) mod binary;
pub(crate) mod listener;
pub(crate) mod proxy;
pub(crate) mod received;
pub(crate) mod reference;
pub(crate) mod repository;
pub(crate) mod server;
pub(crate) mod terminal;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use podbeat_interface::environment::{Environment, ProcessEnvironment};
use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::kube_api;
use podbeat_lab::service::{Options, Service};
use podbeat_lab::world::World;
use proptest::test_runner::{Config, FileFailurePersistence};
use tokio::net::TcpSocket;

/// How long a test waits for a state. This is longer than anything here takes, even on a machine
/// that is busy with other tests. It is also much longer than the grace period of 30 s of some
/// captured pods: podbeat may wait for newer states during all of it.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The time when `main` started.
pub(crate) const STARTED: &str = "2026-01-01T00:00:01Z";

/// The settings of an agent in this world's pod `p`, with these added.
pub(crate) fn settings(world: &World, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut settings = world.settings("p", "u1");
    for (variable, value) in more {
        settings.insert((*variable).to_owned(), (*value).to_owned());
    }
    settings
}

/// The same, but the services are not on loopback, so a proxy can reach them.
pub(crate) fn settings_away(world: &World, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut settings = settings(world, more);
    settings.insert(
        "KUBERNETES_SERVICE_HOST".to_owned(),
        listener::AWAY.to_owned(),
    );
    let url = world.service.url().replace("localhost", listener::AWAY);
    settings.insert("PODBEAT_SERVICE_URL".to_owned(), url);
    settings
}

/// A path as the value of a setting.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("text").to_owned()
}

/// A world with these options for the service.
pub(crate) async fn world_with(service: Options) -> World {
    World::with(kube_api::Options::default(), service)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A service that knows exactly these runs.
pub(crate) fn knowing<'id>(runs: impl IntoIterator<Item = &'id str>) -> Options {
    Options {
        runs: Some(runs.into_iter().map(str::to_owned).collect()),
        ..Options::default()
    }
}

/// A service without TLS.
pub(crate) async fn plain_service(options: Options) -> Service {
    let contract = Contract::load().expect("the contract");
    Service::start_plain(
        ([127, 0, 0, 1], 0).into(),
        contract,
        Faults::default(),
        options,
    )
    .await
    .expect("started")
}

/// A port of this machine on which nothing listens, and the socket that reserves it.
pub(crate) fn unused_port() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    (socket.local_addr().expect("its address").port(), socket)
}

/// A JSON Web Token with these claims. Tests search for its `hunter2`.
pub(crate) fn jwt(claims: &str) -> String {
    format!("e30.{}.hunter2", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

/// Whether this process runs one test alone. If not, starts a process that runs only the test with
/// this name, and checks that it passes there. This is for tests that break if another thread of
/// the process interferes, for example with inherited descriptors: for a moment, a process that
/// another thread starts can inherit a new pty.
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
    // A name that matches no test would also pass.
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
    false
}

/// The number of cases per property. proptest tries earlier failures first, and stores them in this
/// file under tests/proptest-regressions. By default it would look for a place beside `main.rs` or
/// `lib.rs`, and find none.
pub(crate) fn cases(cases: u32, file: &'static str) -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..Config::with_cases(cases)
    }
}
