//! The parent's side of a fleet's processes: the orders to them, and their answers.

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

/// How long a process may take to answer. Opening thousands of connections keeps the machine busy.
const ANSWER: Duration = Duration::from_secs(120);

/// A process that takes orders on standard input and answers on standard output, in lines. It is
/// killed when this value is dropped, and ends by itself when its parent ends.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    what: String,
}

impl Worker {
    /// Starts the process with only this `environment`.
    ///
    /// # Errors
    /// The process can't be started.
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
            // A separate process group: Ctrl-C reaches only us, and we end the process cleanly.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io(format!("starting {what}")))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io(format!("connecting to {what}"))(
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

    /// Sends a line to the process.
    ///
    /// # Errors
    /// The process ended or takes too long.
    pub async fn tell(&mut self, line: &str) -> Result<(), Error> {
        let told = async {
            self.orders.write_all(line.as_bytes()).await?;
            self.orders.write_all(b"\n").await?;
            self.orders.flush().await
        };
        match tokio::time::timeout(ANSWER, told).await {
            Ok(told) => told.map_err(io(format!("sending an order to {}", self.what))),
            Err(_) => Err(self.silent()),
        }
    }

    /// Waits for the process's next line.
    ///
    /// # Errors
    /// The process ended, takes too long, or writes something else.
    pub async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.answer_of(Duration::ZERO).await
    }

    /// Waits for the process's next line, and allows this additional time for its work.
    ///
    /// # Errors
    /// The same as for [`Self::answer`].
    pub async fn answer_of<T: DeserializeOwned>(&mut self, work: Duration) -> Result<T, Error> {
        let line = match tokio::time::timeout(ANSWER + work, self.answers.next_line()).await {
            Ok(line) => line.map_err(io(format!("reading from {}", self.what)))?,
            Err(_) => return Err(self.silent()),
        };
        let line = line.ok_or_else(|| {
            io(format!("{} ended", self.what))(std::io::ErrorKind::UnexpectedEof.into())
        })?;
        serde_json::from_str(&line)
            .map_err(|error| io(format!("parsing a line from {}: {line}", self.what))(error.into()))
    }

    /// The resources that the process used so far.
    ///
    /// # Errors
    /// The process ended.
    pub fn usage(&self) -> Result<Usage, Error> {
        usage(self.child.id().unwrap_or(0))
    }

    fn silent(&self) -> Error {
        io(format!("waiting for {}", self.what))(std::io::ErrorKind::TimedOut.into())
    }
}

/// A fleet's agents, in a few processes.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

impl Workers {
    /// Starts processes of `program` (`podbeat-lab`), and distributes the plan's agents among them.
    ///
    /// # Errors
    /// A process can't be started.
    pub async fn start(program: &Path, plan: &Plan, processes: usize) -> Result<Self, Error> {
        // The agents get the one root certificate that they need instead of the system's roots.
        // Thousands of copies of all roots would dominate the measured memory, and a pod's image
        // has its own roots.
        let roots = plan
            .settings
            .get("PODBEAT_CA_FILE")
            .cloned()
            .unwrap_or_default();
        let environment = BTreeMap::from([("SSL_CERT_FILE".to_owned(), roots)]);
        let mut workers = Vec::new();
        let processes = processes.max(1);
        for nth in 0..processes {
            // In turns, so that each process starts agents during the whole time.
            let own = Plan {
                agents: plan
                    .agents
                    .iter()
                    .skip(nth)
                    .step_by(processes)
                    .cloned()
                    .collect(),
                ..plan.clone()
            };
            let mut worker = Worker::start(program, &["fleet-agents"], &environment)?;
            worker
                .tell(&serde_json::to_string(&own).unwrap_or_default())
                .await?;
            workers.push(worker);
        }
        Ok(Self { workers })
    }

    /// The agents' results, added up. The durations are those since the last count.
    ///
    /// # Errors
    /// A process ended or takes too long.
    pub async fn count(&mut self) -> Result<Count, Error> {
        let mut all = Count::default();
        for worker in &mut self.workers {
            worker.tell(Order::Count.word()).await?;
            all = all.and(worker.answer().await?);
        }
        Ok(all)
    }

    /// Stops all agents as SIGTERM would.
    ///
    /// # Errors
    /// A process ended or takes too long.
    pub async fn terminate(&mut self) -> Result<(), Error> {
        for worker in &mut self.workers {
            worker.tell(Order::Terminate.word()).await?;
        }
        Ok(())
    }

    /// The resources that the processes used, added up.
    ///
    /// # Errors
    /// A process ended.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut all = Usage::default();
        for worker in &self.workers {
            let one = worker.usage()?;
            all.rss_kib += one.rss_kib;
            all.cpu_seconds += one.cpu_seconds;
            all.files += one.files;
        }
        Ok(all)
    }
}
