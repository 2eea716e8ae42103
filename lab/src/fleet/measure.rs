//! `podbeat-lab fleet`: a fleet with podbeat-server and a stand-in Kubernetes API. Each of them is a
//! process, and the agents are in further ones. This process records the heartbeats.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::agents::Plan;
use super::figures::{Figures, Limit};
use super::kubernetes::{Order, State, order};
use super::process::{Usage, own_usage, raise_file_limit};
use super::scenario::LAST;
use super::service::{FleetService, write_ca};
use super::spread::{Spread, percentile};
use super::workers::{Worker, Workers};
use crate::pki::Authority;
use crate::{Error, io};

/// The fleet's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// podbeat-server.
    pub server: PathBuf,
    /// The number of agents.
    pub agents: usize,
    /// The time between two heartbeats of an agent.
    pub interval: Duration,
    /// The time over which the agents are started one after the other.
    pub start_over: Duration,
    /// The length of the service's outage.
    pub outage: Duration,
    /// The number of processes that the agents share.
    pub processes: usize,
    /// Instead of everything else, observe for this many intervals how agents that start together
    /// drift apart.
    pub drift: Option<usize>,
}

/// How long a step may take, in addition to its planned waits.
const LIMIT: Duration = Duration::from_secs(120);

/// At these steps podbeat-server is killed, while the pods change and heartbeats are under way. The
/// last heartbeats come at the last step.
const KILLED_AT: [usize; 2] = [5, LAST];

/// How long podbeat-server stays down after it was killed.
const DOWN: Duration = Duration::from_secs(5);

/// The largest number of heartbeats in a second, divided by the average: at rest, and after an
/// outage. After an outage most agents wait for the Retry-After, and some draw longer waits.
const FULLEST: f64 = 1.25;
const FULLEST_AFTER_OUTAGE: f64 = 2.5;

/// Chi-square by degrees of freedom of heartbeats at rest. Independent arrivals exceed 2 once in
/// 1,000 measurements (29 degrees). The limit leaves room for a machine that stops for a moment.
/// Bursts have values in the hundreds.
const DISPERSION: f64 = 3.0;

/// The limit for the busiest second, in averages: `times`, plus four standard deviations, because
/// few arrivals vary by chance.
fn allowed(times: f64, spread: &Spread) -> Limit {
    Limit::AtMost(times + 4.0 / spread.mean().max(f64::MIN_POSITIVE).sqrt())
}

/// Runs the fleet. `program` is podbeat-lab itself, and `dir` is for files.
///
/// # Errors
/// Something can't be started, or an expected state is not reached.
pub async fn run(
    program: &Path,
    dir: &Path,
    options: &Options,
    say: impl Fn(&str),
) -> Result<Figures, Error> {
    let Options {
        agents, interval, ..
    } = *options;
    let files = raise_file_limit()?;
    let mut figures = Figures::default();
    figures.attach(
        "options",
        json!({"agents": agents, "interval": interval.as_secs_f64(), "startOver": options.start_over.as_secs_f64(),
               "outage": options.outage.as_secs_f64(), "processes": options.processes}),
    );
    say(&format!(
        "{agents} agents in {} processes; one heartbeat every {}; limit of {files} open files per process",
        options.processes,
        humantime::format_duration(interval)
    ));
    let authority = Authority::new()?;
    let mut service =
        FleetService::start(&authority, agents, &options.server, &dir.join("server")).await?;
    say("podbeat-server has the runs");
    let ca_file = write_ca(&authority, dir)?;
    let service_account_dir = dir.join("serviceaccount");
    let mut kubernetes = Worker::start(program, &["fleet-kubernetes"], &BTreeMap::new())?;
    let begin = Order::Begin {
        service_account_dir: service_account_dir.clone(),
        pods: agents,
    };
    let port = order(&mut kubernetes, &begin).await?.port;
    let mut settings = service.settings(&ca_file, interval);
    settings.extend(
        [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", port.to_string()),
            (
                "PODBEAT_SERVICE_ACCOUNT_DIR",
                service_account_dir.display().to_string(),
            ),
            ("POD_NAMESPACE", "lab".to_owned()),
        ]
        .map(|(variable, value)| (variable.to_owned(), value)),
    );
    let plan = Plan {
        settings,
        agents: (0..agents)
            .map(|nth| service.settings_of(nth, None))
            .collect(),
        start_over_ms: u64::try_from(options.start_over.as_millis()).unwrap_or(u64::MAX),
    };
    let begun = Instant::now();
    let mut workers = Workers::start(program, &plan, options.processes).await?;
    if let Some(intervals) = options.drift {
        drift(&mut service, options, intervals, &mut figures, &say).await;
        return Ok(figures);
    }
    service
        .listen_for_step(0, agents, LIMIT + options.start_over * 4)
        .await?;
    let mut state = order(&mut kubernetes, &Order::Tell).await?;
    while state.watches < agents && begun.elapsed() < LIMIT + options.start_over * 4 {
        service
            .listen_until(service.elapsed() + Duration::from_millis(500))
            .await;
        state = order(&mut kubernetes, &Order::Tell).await?;
    }
    figures.exactly("open watches", state.watches, agents);
    figures.add(
        "time until all agents watch",
        begun.elapsed().as_secs_f64(),
        "s",
        Limit::None,
    );
    say(&format!(
        "after {:.0} s, all agents watch their pods and have sent a heartbeat",
        begun.elapsed().as_secs_f64()
    ));

    step(&mut kubernetes, 1, interval).await?;
    service.listen_for_step(1, agents, LIMIT).await?;
    rest(
        &mut service,
        &mut kubernetes,
        &mut workers,
        options,
        &mut figures,
    )
    .await?;
    say("measured the fleet at rest");

    let from = service.elapsed();
    let back = service
        .go_away(options.outage)
        .map_err(|error| misread(&error))?;
    say(&format!(
        "the service is unavailable for {}; meanwhile, every pod changes three times",
        humantime::format_duration(options.outage)
    ));
    for nth in 2..=4 {
        step(&mut kubernetes, nth, options.outage / 5).await?;
        service.look();
    }
    service.listen_until(back).await;
    service.listen_for_step(4, agents, LIMIT).await?;
    let last = service.ledger.first_accepted_since(back);
    let returned = Spread::of(last.iter().copied(), back, 30);
    after_outage(&service, &returned, &mut figures);
    figures.add(
        "refused while the service was unavailable",
        service.ledger.refused() as f64,
        "",
        Limit::None,
    );
    figures.attach(
        "outage",
        json!({"from": from.as_secs_f64(), "back": back.as_secs_f64()}),
    );
    say("the service is back and has received every change");

    for nth in 5..=LAST {
        let over = interval / 2;
        if KILLED_AT.contains(&nth) {
            let killed = service.kill(over / 2, DOWN);
            tokio::try_join!(step(&mut kubernetes, nth, over), killed)?;
            say("podbeat-server was killed and started again, while every pod changed");
        } else {
            step(&mut kubernetes, nth, over).await?;
        }
        service.listen_for_step(nth, agents, LIMIT).await?;
    }
    end(&mut service, &mut workers, agents, &mut figures).await?;
    say("every run has ended");
    Ok(figures)
}

async fn step(kubernetes: &mut Worker, step: usize, over: Duration) -> Result<State, Error> {
    let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
    order(kubernetes, &Order::Step { step, over_ms }).await
}

fn misread(error: &crate::fault::Misread) -> Error {
    io(format!("scripting the outage: {error}"))(std::io::ErrorKind::InvalidInput.into())
}

/// Measures two intervals at rest.
async fn rest(
    service: &mut FleetService,
    kubernetes: &mut Worker,
    workers: &mut Workers,
    options: &Options,
    figures: &mut Figures,
) -> Result<(), Error> {
    // Wait one interval, so that heartbeats caused by a change are not counted.
    service
        .listen_until(service.elapsed() + options.interval)
        .await;
    let window = options.interval * 2;
    let seconds = usize::try_from(window.as_secs()).unwrap_or(60).max(1);
    workers.count().await?;
    let asked = order(kubernetes, &Order::Tell).await?;
    let (used, own, server) = (workers.usage()?, own_usage()?, service.server_usage()?);
    let from = service.elapsed();
    service.listen_until(from + window).await;
    let took = service.elapsed() - from;
    let mut count = workers.count().await?;
    let (used_now, own_now, server_now) = (workers.usage()?, own_usage()?, service.server_usage()?);
    let asked_now = order(kubernetes, &Order::Tell).await?;
    let arrivals = service
        .ledger
        .arrivals()
        .iter()
        .map(|arrival| arrival.at)
        .filter(|at| *at < from + window);
    let spread = Spread::of(arrivals, from, seconds);
    let agents = options.agents as f64;
    let mut add = |name, value, unit, limit| figures.add(name, value, unit, limit);
    add(
        "heartbeats per second at rest",
        spread.mean(),
        "/s",
        Limit::None,
    );
    add(
        "busiest second to the average",
        spread.most_to_mean(),
        "",
        allowed(FULLEST, &spread),
    );
    add(
        "chi-square per degree of freedom",
        spread.dispersion(),
        "",
        Limit::AtMost(DISPERSION),
    );
    for (name, of_hundred) in [
        ("time of a heartbeat, p50", 50),
        ("time of a heartbeat, p99", 99),
        ("time of a heartbeat, longest", 100),
    ] {
        let micros = f64::from(percentile(&mut count.took, of_hundred));
        add(name, micros / 1000.0, "ms", Limit::None);
    }
    add(
        "memory per agent, in shared processes",
        used_now.rss_kib as f64 / agents,
        "KiB",
        Limit::None,
    );
    let busy = |now: Usage, before: Usage| {
        (now.cpu_seconds - before.cpu_seconds) / took.as_secs_f64() * 100.0
    };
    add(
        "all agents' CPU",
        busy(used_now, used),
        "% of 1",
        Limit::None,
    );
    add(
        "podbeat-server's CPU",
        busy(server_now, server),
        "% of 1",
        Limit::None,
    );
    add(
        "the recording layer's CPU",
        busy(own_now, own),
        "% of 1",
        Limit::None,
    );
    add(
        "podbeat-server's memory at rest (RSS)",
        server_now.rss_kib as f64 / 1024.0,
        "MiB",
        Limit::None,
    );
    add(
        "connections per agent",
        used_now.files as f64 / agents,
        "",
        Limit::None,
    );
    let requests = |state: &State| state.requests.values().sum::<usize>() as f64;
    let minutes = took.as_secs_f64() / 60.0;
    add(
        "requests to Kubernetes per minute and agent",
        (requests(&asked_now) - requests(&asked)) / minutes / agents,
        "/min",
        Limit::None,
    );
    figures.attach("rest", spread.json());
    Ok(())
}

/// Reports how a fleet came back after an outage. Used by every fleet.
pub fn after_outage(service: &FleetService, returned: &Spread, figures: &mut Figures) {
    figures.add(
        "after the outage: busiest second to the average of 30 s",
        returned.most_to_mean(),
        "",
        allowed(FULLEST_AFTER_OUTAGE, returned),
    );
    figures.exactly(
        "heartbeats before Retry-After had passed",
        service.ledger.too_early(),
        0,
    );
    figures.attach("return", returned.json());
}

/// Checks the end of every fleet: no transition is lost, no state is invented, and each run has one
/// last heartbeat. podbeat-server knows the same, and is stopped.
///
/// # Errors
/// The last heartbeats, or the agents' ends, don't come, or podbeat-server can't be asked.
pub async fn end(
    service: &mut FleetService,
    workers: &mut Workers,
    agents: usize,
    figures: &mut Figures,
) -> Result<(), Error> {
    service
        .listen_for(
            "every run's last heartbeat",
            LIMIT,
            |ledger| ledger.ended() == agents,
            |ledger| format!("{} of {agents}", ledger.ended()),
        )
        .await?;
    workers.terminate().await?;
    let begun = Instant::now();
    let mut count = workers.count().await?;
    while count.ended_well + count.ended_ill < agents && begun.elapsed() < LIMIT {
        service
            .listen_until(service.elapsed() + Duration::from_millis(200))
            .await;
        count = workers.count().await?;
    }
    service.look();
    let ledger = &service.ledger;
    for violation in ledger.violations() {
        figures.attach("violation", json!(violation));
    }
    figures.add("changes of each pod", LAST as f64, "", Limit::None);
    figures.exactly("transitions lost", ledger.lost(LAST), 0);
    figures.exactly(
        "states without a change of the pod",
        ledger.invented(LAST),
        0,
    );
    figures.exactly(
        "runs without exactly one last heartbeat",
        ledger.without_one_final(),
        0,
    );
    figures.add(
        "last heartbeats sent again after a request without an answer",
        ledger.repeated() as f64,
        "",
        Limit::None,
    );
    figures.exactly("heartbeats given up", count.dropped, 0);
    figures.exactly("heartbeats from unknown agents", ledger.strangers(), 0);
    figures.exactly(
        "heartbeats that violate the contract",
        ledger.violations().len(),
        0,
    );
    figures.exactly("agents with exit code 0", count.ended_well, agents);
    service.verify(figures).await
}

/// Measures how agents that start together drift apart: the busiest thirtieth of each interval.
async fn drift(
    service: &mut FleetService,
    options: &Options,
    intervals: usize,
    figures: &mut Figures,
    say: &impl Fn(&str),
) {
    let slice = options.interval / 30;
    let from = service.elapsed();
    let mut told = Vec::new();
    for nth in 0..intervals {
        let begins = from + options.interval * u32::try_from(nth).unwrap_or(u32::MAX);
        service.listen_until(begins + options.interval).await;
        let arrivals = service.ledger.arrivals().iter().map(|arrival| arrival.at);
        let spread = Spread::in_slices(arrivals, begins, slice, 30);
        let line = format!(
            "interval {nth}: {} heartbeats, busiest thirtieth {:.1} times the average, chi-square {:.1}",
            spread.total(),
            spread.most_to_mean(),
            spread.dispersion()
        );
        say(&line);
        told.push(json!({"interval": nth, "mostToMean": spread.most_to_mean(), "chiSquareByDegrees": spread.dispersion()}));
    }
    figures.attach("drift", json!(told));
}
