//! `podbeat-budget`: measures podbeat against its budgets, and fails if one is exceeded.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use podbeat_bench::budget::{self, Options, Subject};
use podbeat_bench::{Error, chain, repository};
use podbeat_lab::interrupt::or_interrupted;

const USAGE: &str = "\
usage: podbeat-budget --binary FILE --image FILE [OPTION…]
  --binary FILE   podbeat as in the image (image/static.sh)
  --image FILE    the image's archive
  --symbols FILE  the binary with function names (image/static.sh --symbols), for instructions and allocations
  --planted KIND  both binaries are podbeat-planted; start them with this argument: leak, allocation or nothing
  --only NAME     measure only this budget; repeatable
  --quick         run a shorter form for development
  --record        write the measured values to bench/budget.json, for the budgets with recorded values";

#[derive(Default)]
struct Given {
    binary: Option<PathBuf>,
    symbols: Option<PathBuf>,
    image: Option<PathBuf>,
    planted: Option<String>,
    record: bool,
    options: Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(given) = read(std::env::args().skip(1)) else {
        say(USAGE);
        let names: Vec<&str> = budget::names().collect();
        say(&format!("the budgets are {}", names.join(", ")));
        return ExitCode::from(64);
    };
    // Ctrl-C and SIGTERM drop the work, which ends everything that it started.
    let work = async {
        Box::pin(run(given)).await.unwrap_or_else(|error| {
            say(&format!("measurement failed: {}", chain(&error)));
            ExitCode::FAILURE
        })
    };
    or_interrupted(Box::pin(work), say).await
}

fn read(mut arguments: impl Iterator<Item = String>) -> Option<Given> {
    let mut given = Given::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--binary" => given.binary = Some(arguments.next()?.into()),
            "--symbols" => given.symbols = Some(arguments.next()?.into()),
            "--image" => given.image = Some(arguments.next()?.into()),
            "--planted" => given.planted = Some(arguments.next()?),
            "--only" => {
                let name = arguments.next()?;
                budget::names().find(|known| *known == name)?;
                given.options.only.push(name);
            }
            "--quick" => given.options.quick = true,
            "--record" => given.record = true,
            _ => return None,
        }
    }
    Some(given).filter(|given| given.binary.is_some() && given.image.is_some())
}

async fn run(given: Given) -> Result<ExitCode, Error> {
    let path = repository().join("bench/budget.json");
    let budgets = budget::read(&path)?;
    let subject = Subject {
        program: given.binary.unwrap_or_default(),
        symbols: given.symbols,
        image: given.image.unwrap_or_default(),
        arguments: given.planted.into_iter().collect(),
    };
    let measured = Box::pin(budget::measure(&subject, &given.options, say)).await?;
    say("");
    say(budget::table(&budgets, &measured).trim_end());
    if given.record {
        budget::record(&path, &budgets, &measured)?;
        say(&format!("recorded in {}", path.display()));
    }
    let verdicts = measured
        .iter()
        .filter_map(|(name, figure)| Some(budgets.get(*name)?.judge(*figure)));
    let (held, all) = verdicts.fold((0, 0), |(held, all), verdict| {
        (held + usize::from(verdict.holds()), all + 1)
    });
    say(&format!("{held} passed, {} failed", all - held));
    Ok(if held == all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints a line, and ignores a closed standard output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
