//! The processes of a fleet, from the side of whoever starts them: what they are told, and what they tell.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::agents::{Count, Order, Plan};
use super::process::{Usage, usage};
use crate::{Error, io};

/// How long a process may take to answer. A machine that starts thousands of connections is a busy one.
const ANSWER: Duration = Duration::from_secs(120);

/// One process that takes orders on standard input and answers on standard output, in lines. Dropped, it is killed; and it
/// ends by itself when whoever started it is gone.
#[derive(Debug)]
pub struct Hand {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    what: String,
}

impl Hand {
    /// Starts it, with nothing in its environment but `environment`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let what = format!("{} {}", program.display(), arguments.join(" "));
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C reaches us, and we end it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io(format!("starting {what}")))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io(format!("reaching {what}"))(
                std::io::ErrorKind::BrokenPipe.into(),
            ));
        };
        Ok(Self {
            child,
            orders,
            answers: BufReader::new(answers).lines(),
            what,
        })
    }

    /// Tells it a line.
    ///
    /// # Errors
    /// It is gone.
    pub async fn tell(&mut self, line: &str) -> Result<(), Error> {
        let told = async {
            self.orders.write_all(line.as_bytes()).await?;
            self.orders.write_all(b"\n").await?;
            self.orders.flush().await
        };
        match tokio::time::timeout(ANSWER, told).await {
            Ok(told) => told.map_err(io(format!("telling {} what to do", self.what))),
            Err(_) => Err(self.silent()),
        }
    }

    /// Waits for its next line.
    ///
    /// # Errors
    /// It is gone, takes too long, or tells something else.
    pub async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.answer_of(Duration::ZERO).await
    }

    /// The same for what it is to do in this time.
    ///
    /// # Errors
    /// As above.
    pub async fn answer_of<T: DeserializeOwned>(&mut self, work: Duration) -> Result<T, Error> {
        let line = match tokio::time::timeout(ANSWER + work, self.answers.next_line()).await {
            Ok(line) => line.map_err(io(format!("listening to {}", self.what)))?,
            Err(_) => return Err(self.silent()),
        };
        let line =
            line.ok_or_else(|| io(format!("{} ended", self.what))(std::io::ErrorKind::UnexpectedEof.into()))?;
        serde_json::from_str(&line)
            .map_err(|error| io(format!("understanding {}: {line}", self.what))(error.into()))
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage, Error> {
        usage(self.child.id().unwrap_or(0))
    }

    fn silent(&self) -> Error {
        io(format!("waiting for {}", self.what))(std::io::ErrorKind::TimedOut.into())
    }
}

/// The agents of a fleet, in some processes.
#[derive(Debug)]
pub struct Crew {
    hands: Vec<Hand>,
}

impl Crew {
    /// Starts processes of `program`, `podbeat-lab`, and deals the plan's agents out to them.
    ///
    /// # Errors
    /// A process can't be started.
    pub async fn start(program: &Path, plan: &Plan, processes: usize) -> Result<Self, Error> {
        // Of the system's roots an agent finds only the one that it needs: thousands of copies of all would tell of nothing
        // but memory, and a pod's image has its own.
        let roots = plan.settings.get("PODBEAT_CA_FILE").cloned().unwrap_or_default();
        let environment = BTreeMap::from([("SSL_CERT_FILE".to_owned(), roots)]);
        let mut hands = Vec::new();
        let processes = processes.max(1);
        for nth in 0..processes {
            // By turns, so that each process starts agents all the time.
            let own = Plan {
                agents: plan.agents.iter().skip(nth).step_by(processes).cloned().collect(),
                ..plan.clone()
            };
            let mut hand = Hand::start(program, &["fleet-agents"], &environment)?;
            hand.tell(&serde_json::to_string(&own).unwrap_or_default())
                .await?;
            hands.push(hand);
        }
        Ok(Self { hands })
    }

    /// What they have seen, together. The times are those since the last count.
    ///
    /// # Errors
    /// A process is gone.
    pub async fn count(&mut self) -> Result<Count, Error> {
        let mut all = Count::default();
        for hand in &mut self.hands {
            hand.tell(Order::Count.word()).await?;
            all = all.and(hand.answer().await?);
        }
        Ok(all)
    }

    /// SIGTERM to all agents.
    ///
    /// # Errors
    /// A process is gone.
    pub async fn terminate(&mut self) -> Result<(), Error> {
        for hand in &mut self.hands {
            hand.tell(Order::Terminate.word()).await?;
        }
        Ok(())
    }

    /// What the processes have used, together.
    ///
    /// # Errors
    /// A process is gone.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut all = Usage::default();
        for hand in &self.hands {
            let one = hand.usage()?;
            all.rss_kib += one.rss_kib;
            all.cpu_seconds += one.cpu_seconds;
            all.files += one.files;
        }
        Ok(all)
    }
}
