//! `podbeat-bench`: compares podbeat with its peers, in one run.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use podbeat_bench::peers::machine::Machine;
use podbeat_bench::peers::measure::{Plan, measure, prepared_file};
use podbeat_bench::peers::results::{RATIOS, Results, text};
use podbeat_bench::peers::subject::{Prepared, Subject};
use podbeat_bench::peers::{chart, docs, life};
use podbeat_bench::{Error, budget, chain, repository};
use podbeat_lab::interrupt::or_interrupted;

const USAGE: &str = "\
usage: podbeat-bench [OPTION…]     (after `bash bench/prepare.sh`)
  --rounds N          run N rounds instead of three
  --subjects A,B      measure only these of podbeat, go, python and shell
  --quick             run a shorter form for development; do not publish its figures
  --lives             only check that each subject reports the same life of a pod; measure nothing
  --hold-ratios       measure only the ratios of bench/budget.json, and fail if one exceeds its limit
  --write-docs        write the table and the chart to docs/performance.md and docs/performance.svg; not with --quick
  --output DIRECTORY  write results.json and chart.svg to this directory instead of target/bench";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Measure,
    Lives,
    HoldRatios,
}

struct Given {
    task: Task,
    plan: Plan,
    subjects: Vec<Subject>,
    write_docs: bool,
    output: PathBuf,
}

// One thread, so that no step of the stand-ins waits for another processor to wake up. Such waits
// would be part of every subject's figures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(given) = read(std::env::args().skip(1)) else {
        say(USAGE);
        return ExitCode::from(64);
    };
    // Ctrl-C and SIGTERM drop the work, which ends everything that it started.
    let work = async {
        run(given).await.unwrap_or_else(|error| {
            say(&format!("comparison failed: {}", chain(&error)));
            ExitCode::FAILURE
        })
    };
    or_interrupted(Box::pin(work), say).await
}

fn read(mut arguments: impl Iterator<Item = String>) -> Option<Given> {
    let mut given = Given {
        task: Task::Measure,
        plan: Plan::FULL,
        subjects: Subject::ALL.to_vec(),
        write_docs: false,
        output: repository().join("target/bench"),
    };
    let mut is_quick = false;
    let mut rounds = None;
    let mut subjects = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => {
                rounds = Some(
                    arguments
                        .next()?
                        .parse()
                        .ok()
                        .filter(|rounds| *rounds > 0)?,
                )
            }
            "--subjects" => {
                let named = arguments.next()?;
                subjects = Some(
                    named
                        .split(',')
                        .map(Subject::named)
                        .collect::<Option<Vec<_>>>()?,
                );
            }
            "--quick" => {
                is_quick = true;
                given.plan = Plan::QUICK;
            }
            "--lives" => given.task = Task::Lives,
            "--hold-ratios" => {
                given.task = Task::HoldRatios;
                given.plan = Plan::RATIOS;
                given.subjects = vec![Subject::Podbeat, Subject::Go, Subject::Python];
            }
            "--write-docs" => given.write_docs = true,
            "--output" => given.output = arguments.next()?.into(),
            _ => return None,
        }
    }
    if let Some(rounds) = rounds {
        given.plan.rounds = rounds;
    }
    if let Some(subjects) = subjects {
        given.subjects = subjects;
    }
    // The page shows only figures of a complete run.
    Some(given).filter(|given| !(given.write_docs && (is_quick || given.task != Task::Measure)))
}

async fn run(given: Given) -> Result<ExitCode, Error> {
    let prepared = Prepared::read(&prepared_file(&repository()))?;
    if given.task != Task::HoldRatios {
        let failed = lives(&prepared, &given.subjects).await?;
        if given.task == Task::Lives {
            say(&format!(
                "{} passed, {failed} failed",
                given.subjects.len() - failed
            ));
        }
        if failed > 0 || given.task == Task::Lives {
            return Ok(if failed > 0 {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            });
        }
    }
    let machine = Machine::here();
    say(&format!("on {}", machine.told()));
    let results = measure(&prepared, &given.subjects, &given.plan, say).await?;
    say("");
    say(text(&results.table()).trim_end());
    if given.task == Task::HoldRatios {
        return hold(&results);
    }
    write(&given, &results, &machine)?;
    Ok(ExitCode::SUCCESS)
}

/// Plays the life with each subject, and counts the subjects that report it wrong.
async fn lives(prepared: &Prepared, subjects: &[Subject]) -> Result<usize, Error> {
    let mut failed = 0;
    for subject in subjects {
        match life::live(prepared, *subject).await {
            Ok(()) => say(&format!(
                "{} reports the life of the pod correctly",
                subject.title()
            )),
            Err(
                error @ (Error::Unfair { .. }
                | Error::InVain { .. }
                | Error::Lab(_)
                | Error::Gone { .. }),
            ) => {
                failed += 1;
                say(&format!("{}: {}", subject.title(), chain(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(failed)
}

/// Checks the ratios against their limits.
fn hold(results: &Results) -> Result<ExitCode, Error> {
    let budgets = budget::read(&repository().join("bench/budget.json"))?;
    let ratios = results.ratios();
    say("");
    say(budget::table(&budgets, &ratios).trim_end());
    let held = ratios
        .iter()
        .filter_map(|(name, ratio)| Some(budgets.get(*name)?.judge(*ratio)))
        .filter(|verdict| verdict.holds())
        .count();
    // A ratio that couldn't be computed, or that has no limit, counts as failed.
    say(&format!("{held} passed, {} failed", RATIOS.len() - held));
    Ok(if held == RATIOS.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(given: &Given, results: &Results, machine: &Machine) -> Result<(), Error> {
    let io = |path: &PathBuf| {
        let what = format!("writing {}", path.display());
        move |source| Error::Io { what, source }
    };
    let (data, drawing) = (
        given.output.join("results.json"),
        given.output.join("chart.svg"),
    );
    let json = results.json(machine, &given.plan.json());
    fs::create_dir_all(&given.output).map_err(io(&given.output))?;
    fs::write(&data, format!("{json:#}\n")).map_err(io(&data))?;
    fs::write(&drawing, chart::svg(results)).map_err(io(&drawing))?;
    say(&format!(
        "written: {}, {}",
        data.display(),
        drawing.display()
    ));
    if given.write_docs {
        docs::write(&repository(), results, machine, &given.plan)?;
        say("written: docs/performance.md, docs/performance.svg");
    }
    Ok(())
}

/// Prints a line, and ignores a closed standard output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
