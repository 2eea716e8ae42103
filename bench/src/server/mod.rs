//! What podbeat-server can do on one CPU, with a load generator on another.
//! Contains the data, the load and the measurements.
//! Never here: a figure without the machine on which it was measured.

pub mod client;
pub mod data;
pub mod figures;
pub mod lists;
pub mod load;
pub mod started;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use self::client::{Call, call};
use self::data::{ADMIN, Content, DataFile, USER};
use self::figures::{Figure, Limit};
use self::load::{Connections, Due};
use self::started::{Program, Started};
use crate::Error;
use crate::peers::results::{percentile, spread};

/// The path of all runs.
const RUNS: &str = "/v1/tasks/runs";

/// Of so many heartbeats, one is a run's first and one is a run's last. Runs of an hour would need
/// 60 times as many.
const TRANSITION_EVERY: u64 = 50;

/// The limit for the 99th percentile of a heartbeat, in milliseconds.
const HEARTBEAT_MS: f64 = 10.0;

/// The number of clients that create runs at the same time, and that open connections.
const CLIENTS: usize = 64;

/// A group of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Heartbeats a second.
    Heartbeats,
    /// Durable creates a second.
    Creates,
    /// TLS handshakes a second.
    Handshakes,
    /// The time of a page.
    Lists,
    /// Start-up and memory.
    Start,
}

impl Group {
    /// All groups, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Heartbeats,
        Self::Creates,
        Self::Handshakes,
        Self::Lists,
        Self::Start,
    ];

    /// The name for the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Heartbeats => "heartbeats",
            Self::Creates => "creates",
            Self::Handshakes => "handshakes",
            Self::Lists => "lists",
            Self::Start => "start",
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of rounds.
    pub rounds: usize,
    /// The heartbeats a second that are tried, lowest first. The first is the target.
    pub rates: &'static [u32],
    /// How long each load lasts.
    pub length: Duration,
    /// The running runs that send heartbeats.
    pub live: u64,
    /// Their agents' connections.
    pub connections: usize,
    /// All runs, for lists, creates, start-up and memory.
    pub runs: u64,
    /// The running runs among them.
    pub running: u64,
    /// The number of requests for each kind of page in a round.
    pub pages: usize,
    /// The number of starts.
    pub starts: usize,
    /// The heartbeats of each running run before memory is measured. The server keeps the newest
    /// ones for its page, within bounds that the full form reaches.
    pub beats: usize,
}

impl Plan {
    /// The published form.
    pub const FULL: Self = Self {
        rounds: 3,
        rates: &[3_000, 4_000, 5_000, 6_000, 8_000, 10_000, 12_000, 14_000],
        length: Duration::from_secs(11),
        live: 90_000,
        connections: 9_000,
        runs: 1_000_000,
        running: 10_000,
        pages: 300,
        starts: 5,
        beats: 15,
    };

    /// A shorter form for development.
    pub const QUICK: Self = Self {
        rounds: 1,
        rates: &[3_000],
        length: Duration::from_secs(3),
        live: 9_000,
        connections: 900,
        runs: 30_000,
        running: 10_000,
        pages: 100,
        starts: 1,
        beats: 1,
    };
}

/// Measures these groups. The data files are kept in `directory`.
///
/// # Errors
/// The server or the load fails.
pub async fn measure(
    program: &Program,
    plan: &Plan,
    groups: &[Group],
    directory: &Path,
    say: impl Fn(&str) + Copy,
) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for group in groups {
        say(&format!("measuring {}", group.name()));
        let measured = match group {
            Group::Heartbeats => heartbeats(program, plan, directory, say).await?,
            Group::Creates => {
                let data = listed(plan, directory, say).await?;
                creates(program, plan, &data).await?
            }
            Group::Handshakes => {
                let data = listed(plan, directory, say).await?;
                handshakes(program, plan, &data).await?
            }
            Group::Lists => {
                let data = listed(plan, directory, say).await?;
                lists::measure(program, plan, &data).await?
            }
            Group::Start => {
                let data = listed(plan, directory, say).await?;
                start(program, plan, &data).await?
            }
        };
        figures.extend(measured);
    }
    Ok(figures)
}

fn listed_content(plan: &Plan) -> Content {
    Content {
        ended: plan.runs - plan.running,
        running: plan.running,
        pending: 0,
    }
}

async fn listed(plan: &Plan, directory: &Path, say: impl Fn(&str)) -> Result<DataFile, Error> {
    listed_content(plan).file(directory, say).await
}

/// The prepared heartbeats of a run's agent.
struct Agent {
    path: String,
    authorization: HeaderValue,
    trace: HeaderValue,
    body: Bytes,
}

impl Agent {
    fn new(data: &DataFile, number: u64) -> Result<Self, Error> {
        Ok(Self {
            path: format!("{RUNS}/{}:heartbeat", data::id(number)),
            authorization: data.agent(number)?,
            trace: data::trace_parent(number),
            body: data::json(&data::running(number)),
        })
    }

    fn call(&self, authorization: HeaderValue, body: Bytes) -> Call {
        const TRACE: HeaderName = HeaderName::from_static("traceparent");
        let mut call = call(Method::POST, &self.path, authorization, body);
        call.headers_mut().insert(TRACE, self.trace.clone());
        call
    }

    fn periodic(&self) -> Call {
        self.call(self.authorization.clone(), self.body.clone())
    }
}

/// The heartbeats of many runs: mostly periodic ones, in turn.
struct Heartbeats<'data> {
    data: &'data DataFile,
    agents: Vec<Agent>,
    sent: u64,
    beginning: Range<u64>,
    ending: Range<u64>,
}

impl<'data> Heartbeats<'data> {
    /// The first half of the runs sends periodic heartbeats, the other half ends.
    fn new(data: &'data DataFile, content: Content) -> Result<Self, Error> {
        let running = content.running();
        let ending = running.end - content.pending..running.end;
        let agents = running.start..ending.start;
        Ok(Self {
            data,
            agents: agents
                .map(|number| Agent::new(data, number))
                .collect::<Result<_, _>>()?,
            sent: 0,
            beginning: content.pending(),
            ending,
        })
    }

    /// The next one, for [`Connections::at_rate`].
    fn next(&mut self) -> Due {
        self.sent += 1;
        let place = usize::try_from(self.sent).unwrap_or(0);
        let transition = match self.sent % TRANSITION_EVERY {
            0 => self.beginning.next().and_then(|number| {
                let agent = Agent::new(self.data, number).ok()?;
                let body = data::json(&data::first(number));
                Some(agent.call(ADMIN.authorization(), body))
            }),
            1 => self.ending.next().and_then(|number| {
                let agent = Agent::new(self.data, number).ok()?;
                let body = data::json(&data::ended(number, 0));
                Some(agent.call(agent.authorization.clone(), body))
            }),
            _ => None,
        };
        let agents = self.agents.len().max(1);
        let periodic = || self.agents.get(place % agents).map(Agent::periodic);
        Due {
            connection: place,
            is_durable: transition.is_some(),
            call: transition.or_else(periodic).unwrap_or_default(),
        }
    }
}

async fn heartbeats(
    program: &Program,
    plan: &Plan,
    directory: &Path,
    say: impl Fn(&str) + Copy,
) -> Result<Vec<Figure>, Error> {
    // As many runs begin and end as heartbeats of these kinds are sent.
    let seconds = plan.length.as_secs() * u64::try_from(plan.rounds).unwrap_or(1);
    let sent: u64 = plan
        .rates
        .iter()
        .map(|rate| u64::from(*rate) * seconds)
        .sum();
    let transitions = sent / TRANSITION_EVERY + 1;
    let content = Content {
        ended: 0,
        running: plan.live + transitions,
        pending: transitions,
    };
    let data = content.file(directory, say).await?;
    let copy = data.copy()?;
    let server = program.start(&copy, &data).await?;
    let connections = Connections::open(&server.target, plan.connections).await?;
    let mut heartbeats = Heartbeats::new(&data, content)?;
    let (mut best, mut at_target) = (0.0, Vec::new());
    let (mut median, mut durable, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for (place, rate) in plan.rates.iter().copied().map(f64::from).enumerate() {
        let mut slowest = Vec::new();
        for _ in 0..plan.rounds {
            let before = server.sample()?.cpu;
            let next = || heartbeats.next();
            let outcome = connections.at_rate(rate, plan.length, next).await;
            let used = server.sample()?.cpu.saturating_sub(before);
            let of_transitions = percentile(&outcome.durable, 50);
            let times = outcome.times("heartbeats")?;
            let p99 = percentile(&times, 99).unwrap_or(f64::INFINITY);
            say(&format!("{rate} heartbeats a second: p99 {p99:.2} ms"));
            slowest.push(p99);
            if place == 0 {
                median.extend(percentile(&times, 50));
                durable.extend(of_transitions);
                cpu.push(used.as_secs_f64() * 1e6 / times.len().max(1) as f64);
            }
        }
        let p99 = spread(&slowest).map_or(f64::INFINITY, |spread| spread.median);
        if place == 0 {
            at_target = slowest;
        }
        if p99 >= HEARTBEAT_MS {
            break;
        }
        best = rate;
    }
    drop(connections);
    server.stop().await?;
    data::remove(&copy)?;
    let target = plan.rates.first().copied().unwrap_or_default();
    let of_target = |what: &str| format!("{what} at {target} heartbeats a second");
    Ok(vec![
        Figure::new("heartbeats a second with p99 < 10 ms", "/s", vec![best])
            .with(Limit::AtLeast(f64::from(target))),
        Figure::new(of_target("p99"), "ms", at_target).with(Limit::Below(HEARTBEAT_MS)),
        Figure::new(of_target("p50"), "ms", median),
        Figure::new(of_target("p50 of first and last heartbeats"), "ms", durable),
        Figure::new("CPU of a heartbeat", "µs", cpu),
    ])
}

async fn creates(program: &Program, plan: &Plan, data: &DataFile) -> Result<Vec<Figure>, Error> {
    let copy = data.copy()?;
    let server = program.start(&copy, data).await?;
    let (mut rates, mut p99, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let next = |number: u64| {
            const KEY: HeaderName = HeaderName::from_static("idempotency-key");
            let mut call = call(
                Method::POST,
                RUNS,
                USER.authorization(),
                Bytes::from_static(data::CREATE.as_bytes()),
            );
            if number.is_multiple_of(2) {
                let key = HeaderValue::from_str(&format!("{round}-{number}"));
                call.headers_mut()
                    .insert(KEY, key.unwrap_or(HeaderValue::from_static("")));
            }
            call
        };
        let before = server.sample()?.cpu;
        let (rate, times) = load::as_many_as_possible(
            &server.target,
            CLIENTS,
            plan.length,
            "creates",
            StatusCode::CREATED,
            next,
        )
        .await?;
        let used = server.sample()?.cpu.saturating_sub(before);
        rates.push(rate);
        cpu.push(used.as_secs_f64() * 1e6 / times.len().max(1) as f64);
        p99.extend(percentile(&times, 99));
    }
    server.stop().await?;
    data::remove(&copy)?;
    Ok(vec![
        Figure::new("durable creates a second", "/s", rates).with(Limit::AtLeast(500.0)),
        Figure::new(format!("p99 of a create, {CLIENTS} clients"), "ms", p99),
        Figure::new("CPU of a create", "µs", cpu),
    ])
}

async fn handshakes(program: &Program, plan: &Plan, data: &DataFile) -> Result<Vec<Figure>, Error> {
    let server = program.start(&data.path, data).await?;
    let (mut rates, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let before = server.sample()?.cpu;
        let rate = load::handshakes(&server.target, CLIENTS, plan.length).await?;
        let used = server.sample()?.cpu.saturating_sub(before);
        cpu.push(used.as_secs_f64() * 1e6 / (rate * plan.length.as_secs_f64()).max(1.0));
        rates.push(rate);
    }
    server.stop().await?;
    Ok(vec![
        Figure::new("TLS handshakes a second", "/s", rates).with(Limit::AtLeast(1000.0)),
        Figure::new("CPU of a TLS handshake", "µs", cpu),
    ])
}

async fn start(program: &Program, plan: &Plan, data: &DataFile) -> Result<Vec<Figure>, Error> {
    let copy = data.copy()?;
    let mut starts = Vec::new();
    for _ in 1..plan.starts {
        let server = program.start(&copy, data).await?;
        starts.push(server.took.as_secs_f64() * 1000.0);
        server.stop().await?;
    }
    let server = program.start(&copy, data).await?;
    starts.push(server.took.as_secs_f64() * 1000.0);
    let content = listed_content(plan);
    let running = usize::try_from(content.running).unwrap_or(usize::MAX);
    let few = beat(&server, data, content, 100, plan.beats).await?;
    let many = beat(&server, data, content, running, 1).await?;
    server.stop().await?;
    data::remove(&copy)?;
    let live = format!("{running} live runs");
    Ok(vec![
        Figure::new(format!("start with {live}"), "ms", starts).with(Limit::Below(1000.0)),
        Figure::new(
            format!("RSS with {live}, 100 connections"),
            "MiB",
            vec![few],
        )
        .with(Limit::Below(100.0)),
        Figure::new(
            format!("RSS with {live}, {running} TLS connections"),
            "MiB",
            vec![many],
        ),
    ])
}

/// Each running run sends so many heartbeats, over so many connections. Returns the server's memory
/// then, in MiB.
async fn beat(
    server: &Started,
    data: &DataFile,
    content: Content,
    connections: usize,
    beats: usize,
) -> Result<f64, Error> {
    /// Below what the server can do.
    const RATE: f64 = 3_000.0;
    let connections = Connections::open(&server.target, connections).await?;
    let agents: Vec<Agent> = content
        .running()
        .map(|number| Agent::new(data, number))
        .collect::<Result<_, _>>()?;
    let length = Duration::from_secs_f64((beats * agents.len()) as f64 / RATE);
    let mut places = (0..agents.len()).cycle();
    let next = || {
        let place = places.next().unwrap_or_default();
        Due {
            connection: place,
            call: agents.get(place).map(Agent::periodic).unwrap_or_default(),
            is_durable: false,
        }
    };
    let outcome = connections.at_rate(RATE, length, next).await;
    outcome.times("heartbeats")?;
    Ok(server.sample()?.rss as f64 / f64::from(1 << 20))
}
