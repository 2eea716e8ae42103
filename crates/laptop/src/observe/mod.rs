//! `podbeat observe`: shows live, from a laptop, what the agent of a pod would send. This module
//! has the loop around the agent's own watch and machine (`watch`, `heartbeat::machine`), the
//! output, and the record.
//!
//! It does not decide what is sent and when, sends no request to the task-run service, and contains
//! no flags (`cli`) and no part of the agent.

pub mod command;
pub mod config;
mod diagnosis;
mod event;
mod record;
mod screen;
mod state;
mod view;

use std::collections::VecDeque;
use std::fs::File;
use std::future::pending;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use podbeat_heartbeat::Now;
use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Action, Cause, Event, Machine, Note, Settings};
use podbeat_interface::clock::{present, until};
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_kubernetes::tasks::Tasks;
use podbeat_kubernetes::watch::{PodEvent, PodWatch, Step};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use self::command::{Format, Invocation};
use self::config::ObserveConfig;
use self::diagnosis::{Diagnosis, Kind};
use self::event::End;
use self::record::Record;
use self::screen::{Key, Screen};
use self::state::State;

/// How many steps of the watch can wait to be shown. The watch pauses between its steps.
const STEPS: usize = 16;

/// How widely reconnects are spread. The spread is short, because there is only one copy, and a
/// person waits for it.
const RECONNECTS: Duration = Duration::from_secs(2);

/// How often the view is drawn while nothing happens. It shows times in whole seconds.
const TICK: Duration = Duration::from_secs(1);

/// Where to show the events.
pub enum Stage<'stage> {
    /// On a terminal, as a view.
    Terminal(File),
    /// In a pipe or a file, line by line.
    Lines(&'stage mut dyn Write),
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The run ended, a key was pressed, or an error occurred.
    With(Ending),
    /// A signal arrived. The caller must still run its default action.
    BySignal(i32),
}

/// The numbers of the signals that this command handles. They are the same on all Linux machines
/// that podbeat supports.
pub mod signals {
    /// The terminal was closed.
    pub const HUP: i32 = 1;
    /// Ctrl-C.
    pub const INT: i32 = 2;
    /// Ctrl-\.
    pub const QUIT: i32 = 3;
    /// kill.
    pub const TERM: i32 = 15;
    /// Continue after a stop.
    pub const CONT: i32 = 18;
    /// Ctrl-Z.
    pub const TSTP: i32 = 20;
    /// The window's size changed.
    pub const WINCH: i32 = 28;
    /// The signals that end the command.
    pub const ENDING: [i32; 4] = [HUP, INT, QUIT, TERM];
    /// The signals that only a view handles.
    pub const OF_A_VIEW: [i32; 3] = [CONT, TSTP, WINCH];
}

/// Why podbeat cannot observe the pod.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}\n{}", .0.what, .0.remedy)]
    Kubernetes(Diagnosis),
    #[error(
        "Error from server (NotFound): pods {name:?} not found\ncheck the namespace {namespace} (-n) and the cluster (--context)"
    )]
    NoSuchPod { namespace: String, name: String },
    #[error("cannot create the record {}: {}", path.display(), match source.kind() {
        io::ErrorKind::AlreadyExists => "it already exists; use --force to overwrite it",
        _ => "check that its directory exists and is writable",
    })]
    Record {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl Error {
    fn ending(&self) -> Ending {
        match self {
            Self::Kubernetes(diagnosis) => match diagnosis.kind {
                Kind::Setup => Ending::Usage,
                Kind::Denied => Ending::Denied,
                Kind::Refused => Ending::Refused,
                Kind::Unreachable | Kind::Busy => Ending::Unavailable,
            },
            Self::NoSuchPod { .. } => Ending::NoSuchPod,
            Self::Record { .. } | Self::Write(_) => Ending::Unwritten,
        }
    }
}

/// Observes a pod until its run is over.
///
/// `notes` receives errors and a missing Role. `signals` yields numbers from [`signals`]. `suspend`
/// stops the process, and returns when the process continues. `seed` determines jitter.
pub async fn run(
    config: &ObserveConfig,
    invocation: &Invocation,
    stage: Stage<'_>,
    notes: &mut dyn Write,
    signals: impl Stream<Item = i32> + Unpin,
    suspend: impl Fn(i32),
    seed: u64,
) -> Ended {
    let mut note = |text: &str| {
        for line in text.lines() {
            let _ = writeln!(notes, "podbeat: {line}");
        }
    };
    let (observed, left) = match observe(config, invocation, stage, signals, suspend, seed).await {
        Ok((ended, left)) => (Ok(ended), left),
        Err(error) => (Err(error), Left::default()),
    };
    let mut role = left.role;
    let mut ended = match observed {
        Ok(ended) => ended,
        // The reader, such as `head`, has read enough.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ended::With(Ending::Done)
        }
        Err(error) => {
            note(&with_causes(&error));
            if let Error::Kubernetes(diagnosis) = &error {
                role.clone_from(&diagnosis.role);
            }
            Ended::With(error.ending())
        }
    };
    if let Some(problem) = left.unrecorded {
        note(&format!("the record is incomplete: {problem}"));
        if ended == Ended::With(Ending::Done) {
            ended = Ended::With(Ending::Unwritten);
        }
    }
    if let Some(role) = role {
        note("an administrator of the cluster can apply this with `kubectl apply -f -`:");
        let _ = notes.write_all(role.as_bytes());
    }
    ended
}

/// What remains to be shown after the end.
#[derive(Default)]
struct Left {
    /// The Role that was still missing.
    role: Option<String>,
    /// Why the record is incomplete.
    unrecorded: Option<String>,
}

async fn observe(
    config: &ObserveConfig,
    invocation: &Invocation,
    stage: Stage<'_>,
    mut signals: impl Stream<Item = i32> + Unpin,
    suspend: impl Fn(i32),
    seed: u64,
) -> Result<(Ended, Left), Error> {
    let watch = PodWatch::new(
        &config.kubernetes,
        config.namespace.as_deref(),
        &invocation.pod,
    )
    .await
    .map_err(|error| Error::Kubernetes(Diagnosis::of(&error)))?
    .with_spread(RECONNECTS);
    let record = match &invocation.record {
        Some(wanted) => Some(Record::create(wanted).map_err(|source| Error::Record {
            path: wanted.path.clone(),
            source,
        })?),
        None => None,
    };
    let namespace = watch.namespace().to_owned();
    let mut rng = fastrand::Rng::with_seed(seed);
    let reporting = &config.reporting;
    let tasks = reporting.tasks();
    let mut observer = Observer {
        settings: reporting.settings(&invocation.pod),
        seed: rng.u64(..),
        machine: None,
        own_container: reporting.container_name.to_string(),
        state: State::new(
            &namespace,
            &invocation.pod,
            &reporting.container_name,
            &tasks,
            reporting.report,
        ),
        tasks,
        show: Show::open(stage, invocation.format, config.terminal.colours)?,
        record,
        unrecorded: None,
        start: Instant::now(),
        watched: false,
        wake: None,
        cause: None,
        over: false,
    };
    let (sender, mut pod_events) = mpsc::channel(1);
    let (took, mut steps) = mpsc::channel(STEPS);
    let on_step = |step: Step<'_>| match step {
        // If the channel is full, it already contains similar failures.
        Step::Failed(error) => drop(took.try_send(Some(Diagnosis::of(error)))),
        Step::Opened => drop(took.try_send(None)),
        Step::Listed | Step::Restarted => {}
    };
    let mut watching = pin!(watch.run(None, sender, rng, on_step));
    let mut watched = false;
    loop {
        observer.draw()?;
        let tick = Instant::now() + TICK;
        // Signals come first. Every branch is cancel-safe: the watch keeps its position if another
        // branch wins, and a channel, a stream or a terminal loses nothing if its wait is dropped.
        tokio::select! {
            biased;
            Some(signal) = signals.next() => match signal {
                signals::WINCH => observer.show.clear()?,
                signals::CONT => observer.show.enter()?,
                signals::TSTP => {
                    observer.show.leave();
                    suspend(signal);
                    observer.show.enter()?;
                }
                _ => return Ok((Ended::BySignal(signal), observer.close()?)),
            },
            () = &mut watching, if !watched => watched = true,
            Some(step) = steps.recv() => match step {
                Some(diagnosis) => observer.failed(diagnosis)?,
                None => observer.opened()?,
            },
            Some(pod_event) = pod_events.recv() => observer.sighted(&pod_event)?,
            () = until(observer.start, observer.wake) => observer.feed(Event::Woke)?,
            key = observer.show.key_until(tick) => match key {
                Some(Key::Quit) => return Ok((Ended::With(Ending::Done), observer.close()?)),
                Some(Key::Redraw) => observer.show.clear()?,
                None => {}
            },
        }
        if observer.over {
            observer.end()?;
            return Ok((Ended::With(Ending::Done), observer.close()?));
        }
    }
}

/// The machine and the output of its events.
struct Observer<'stage> {
    settings: Settings,
    seed: u64,
    /// Created when the pod is first seen. Before that, podbeat shows no heartbeat, because it does
    /// not know the pod's UID, which the agent does.
    machine: Option<Machine>,
    own_container: String,
    tasks: Tasks,
    state: State,
    show: Show<'stage>,
    record: Option<Record>,
    /// Why the record stopped.
    unrecorded: Option<String>,
    start: Instant,
    /// Whether a watch was ever open. Before that, a right may be missing.
    watched: bool,
    wake: Option<Duration>,
    cause: Option<Cause>,
    over: bool,
}

impl Observer<'_> {
    fn now(&self) -> Now {
        present(self.start)
    }

    fn sighted(&mut self, pod_event: &PodEvent) -> Result<(), Error> {
        let now = self.now();
        let news = match pod_event {
            PodEvent::Seen(pod) => self.state.saw(pod, false, now),
            PodEvent::Confirmed => self.state.confirmed(now),
            PodEvent::Gone(_) if self.machine.is_none() => {
                let title = self.state.title();
                let (namespace, name) = title.split_once('/').unwrap_or_default();
                return Err(Error::NoSuchPod {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                });
            }
            PodEvent::Gone(Some(pod)) => self.state.saw(pod, true, now),
            PodEvent::Gone(None) => self.state.vanished(now),
        };
        self.keep(pod_event, now.wall);
        self.show.tell(&news)?;
        if let (None, PodEvent::Seen(pod)) = (&self.machine, pod_event) {
            let mut settings = self.settings.clone();
            settings.identity.pod_uid.clone_from(&pod.metadata.uid);
            self.machine = Some(Machine::new(settings, self.seed));
            self.feed(Event::Started)?;
        }
        self.feed(pod_event.event(&self.own_container, &self.tasks))
    }

    /// Writes the record. If the disk is full, observing continues without a record.
    fn keep(&mut self, pod_event: &PodEvent, at: Timestamp) {
        let Some(record) = &mut self.record else {
            return;
        };
        if let Err(error) = record.pod_event(pod_event, at) {
            self.unrecorded = Some(error.to_string());
            self.record = None;
        }
    }

    /// A watch is open, so earlier problems are over.
    fn opened(&mut self) -> Result<(), Error> {
        self.watched = true;
        let news = self.state.answered(self.now());
        self.show.tell(news.as_slice())
    }

    /// Reports a failure. Until the pod was seen, a permanent failure ends the command, as in
    /// kubectl. Until a watch was open, a denied request does, too.
    fn failed(&mut self, diagnosis: Diagnosis) -> Result<(), Error> {
        let begins = self.machine.is_none() || (!self.watched && diagnosis.kind == Kind::Denied);
        if begins && diagnosis.kind != Kind::Busy {
            return Err(Error::Kubernetes(diagnosis));
        }
        let now = self.now();
        let news = self.state.failed(diagnosis, now);
        self.show.tell(news.as_slice())
    }

    /// Passes an event to the machine and executes its actions. Each request counts as accepted at
    /// once.
    fn feed(&mut self, event: Event) -> Result<(), Error> {
        let (start, mut events) = (self.start, VecDeque::from([event]));
        let Some(machine) = &mut self.machine else {
            return Ok(());
        };
        while let Some(event) = events.pop_front() {
            let now = present(start);
            for action in machine.on(event, now) {
                match action {
                    Action::Send(attempt) => {
                        events.push_back(Event::Answered {
                            attempt: attempt.number,
                            answer: Answer::Accepted,
                        });
                        let news = self.state.sent(attempt, now);
                        self.show.tell(&[news])?;
                    }
                    Action::WakeAt(at) => self.wake = at,
                    // The last heartbeat is accepted. A native sidecar would only wait for its
                    // SIGTERM now.
                    Action::StopWatching | Action::End(_) => self.over = true,
                    Action::Note(Note::Final(cause)) => self.cause = Some(cause),
                    // The state shows the others, or they concern signals, markers and journals,
                    // which do not occur here.
                    Action::Note(_)
                    | Action::Abort
                    | Action::LookAtPod(_)
                    | Action::HurryWatch
                    | Action::CountRetries(_)
                    | Action::ReadMarkers
                    | Action::Persist(_) => {}
                }
            }
            self.state.turned(machine.snapshot(now.elapsed), self.wake);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let now = self.now();
        let end = self.cause.map_or(End::Finished, End::of);
        let news = self.state.ended(end, now);
        self.show.tell(&[news])
    }

    fn draw(&mut self) -> Result<(), Error> {
        let now = self.now();
        self.show.draw(&self.state, now)
    }

    fn close(mut self) -> Result<Left, Error> {
        let now = self.now();
        self.show.close(&self.state, now)?;
        Ok(Left {
            role: self
                .state
                .diagnosis
                .and_then(|failing| failing.diagnosis.role),
            unrecorded: self.unrecorded,
        })
    }
}

/// The output.
enum Show<'stage> {
    Lines(&'stage mut dyn Write),
    Json(&'stage mut dyn Write),
    View {
        screen: Screen,
        after: File,
        colours: bool,
    },
}

impl<'stage> Show<'stage> {
    fn open(stage: Stage<'stage>, format: Option<Format>, colours: bool) -> Result<Self, Error> {
        Ok(match (stage, format) {
            (Stage::Lines(out), Some(Format::Json)) => Self::Json(out),
            (Stage::Lines(out), None) => Self::Lines(out),
            (Stage::Terminal(terminal), _) => {
                let after = terminal.try_clone().map_err(Error::Write)?;
                Self::View {
                    screen: Screen::take(terminal, colours).map_err(Error::Write)?,
                    after,
                    colours,
                }
            }
        })
    }

    fn tell(&mut self, news: &[event::Event]) -> Result<(), Error> {
        for event in news {
            let written = match self {
                Self::Lines(out) => writeln!(out, "{}", event.line()).and_then(|()| out.flush()),
                Self::Json(out) => event
                    .json()
                    .map_err(io::Error::from)
                    .and_then(|json| writeln!(out, "{json}"))
                    .and_then(|()| out.flush()),
                // The next frame shows it.
                Self::View { .. } => Ok(()),
            };
            written.map_err(Error::Write)?;
        }
        Ok(())
    }

    fn draw(&mut self, state: &State, now: Now) -> Result<(), Error> {
        match self {
            Self::Lines(_) | Self::Json(_) => Ok(()),
            Self::View { screen, .. } => {
                let lines = view::lines(state, now, screen.size());
                screen.draw(&lines).map_err(Error::Write)
            }
        }
    }

    fn clear(&mut self) -> Result<(), Error> {
        self.on_screen(Screen::clear)
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.on_screen(Screen::enter)
    }

    fn on_screen(&mut self, act: impl FnOnce(&mut Screen) -> io::Result<()>) -> Result<(), Error> {
        match self {
            Self::Lines(_) | Self::Json(_) => Ok(()),
            Self::View { screen, .. } => act(screen).map_err(Error::Write),
        }
    }

    fn leave(&mut self) {
        if let Self::View { screen, .. } = self {
            screen.leave();
        }
    }

    /// The next key. `None` when it is time to draw again. Without a view, it never returns.
    async fn key_until(&mut self, tick: Instant) -> Option<Key> {
        match self {
            Self::Lines(_) | Self::Json(_) => pending().await,
            Self::View { screen, .. } => timeout_at(tick, screen.key()).await.ok(),
        }
    }

    /// Restores the terminal, and prints the last view on it in full.
    fn close(&mut self, state: &State, now: Now) -> Result<(), Error> {
        let Self::View {
            screen,
            after,
            colours,
        } = self
        else {
            return Ok(());
        };
        let columns = screen.size().columns;
        screen.leave();
        let mut text = String::new();
        for line in view::lines(
            state,
            now,
            view::Size {
                columns,
                rows: None,
            },
        ) {
            screen::paint(&line, *colours, &mut text);
            text.push('\n');
        }
        after.write_all(text.as_bytes()).map_err(Error::Write)
    }
}
