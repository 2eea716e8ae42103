//! `podbeat-server-bench`: measures podbeat-server on one CPU, and fails if a target is missed.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use podbeat_bench::peers::machine::Machine;
use podbeat_bench::peers::results::text;
use podbeat_bench::server::started::Program;
use podbeat_bench::server::{Group, Plan, figures, measure};
use podbeat_bench::{Error, chain, repository};
use podbeat_lab::fleet::process::raise_file_limit;
use podbeat_lab::interrupt::or_interrupted;

const USAGE: &str = "\
usage: podbeat-server-bench --server FILE [OPTION…]
  --server FILE     podbeat-server's program
  --only NAME       measure only heartbeats, creates, handshakes, lists or start; repeatable
  --quick           run a shorter form with less data; do not publish its figures
  --write-docs      write the table to docs/server-performance.md; not with --quick or --only
  --data DIRECTORY  keep the data files in this directory on a real disk instead of target/server-bench";

struct Given {
    server: PathBuf,
    groups: Vec<Group>,
    plan: Plan,
    write_docs: bool,
    data: PathBuf,
}

// One thread on one CPU: the load generator. The server has the other CPU.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(given) = read(std::env::args().skip(1)) else {
        say(USAGE);
        return ExitCode::from(64);
    };
    // Ctrl-C and SIGTERM drop the work, which ends everything that it started.
    let work = async {
        run(&given).await.unwrap_or_else(|error| {
            say(&format!("measurement failed: {}", chain(&error)));
            ExitCode::FAILURE
        })
    };
    or_interrupted(Box::pin(work), say).await
}

fn read(mut arguments: impl Iterator<Item = String>) -> Option<Given> {
    let mut server = None;
    let mut groups = Vec::new();
    let (mut is_quick, mut write_docs) = (false, false);
    let mut data = repository().join("target/server-bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--server" => server = Some(arguments.next()?.into()),
            "--only" => {
                let name = arguments.next()?;
                groups.push(Group::ALL.into_iter().find(|group| group.name() == name)?);
            }
            "--quick" => is_quick = true,
            "--write-docs" => write_docs = true,
            "--data" => data = arguments.next()?.into(),
            _ => return None,
        }
    }
    // The page shows only figures of a complete run.
    if write_docs && (is_quick || !groups.is_empty()) {
        return None;
    }
    if groups.is_empty() {
        groups = Group::ALL.to_vec();
    }
    Some(Given {
        server: server?,
        groups,
        plan: if is_quick { Plan::QUICK } else { Plan::FULL },
        write_docs,
        data,
    })
}

async fn run(given: &Given) -> Result<ExitCode, Error> {
    let machine = Machine::here();
    say(&format!("on {}", machine.told()));
    raise_file_limit()?;
    let program = Program::new(&given.server)?;
    let measured = measure(&program, &given.plan, &given.groups, &given.data, say).await?;
    say("");
    say(text(&figures::table(&measured)).trim_end());
    if given.write_docs {
        figures::write(&repository(), &measured, &machine, given.plan.rounds)?;
        say("written: docs/server-performance.md");
    }
    let verdicts: Vec<bool> = measured
        .iter()
        .filter_map(|figure| figure.is_met())
        .collect();
    let met = verdicts.iter().filter(|is_met| **is_met).count();
    let missed = verdicts.len() - met;
    say(&format!("{met} passed, {missed} failed"));
    Ok(match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Prints a line, and ignores a closed standard output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
