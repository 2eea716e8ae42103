//! `podbeat-release`: sets versions and names, and writes the documents of a release.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use podbeat_interface::exit::with_causes;
use podbeat_release::names::{Published, files, wrong};
use podbeat_release::provenance::{self, Build};
use podbeat_release::sbom::{self, Inputs};
use podbeat_release::{changelog, version};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Version(#[from] version::Error),
    #[error(transparent)]
    Changelog(#[from] changelog::Error),
    #[error(transparent)]
    Sbom(#[from] sbom::Error),
    #[error("these names are not those of deploy/registry and Cargo.toml; correct them:\n{0}")]
    Names(String),
    #[error("reading {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = match matches.subcommand() {
        Some(("version", given)) => set_version(given),
        Some(("registry", given)) => set_registry(given),
        Some(("names", _)) => names(),
        Some(("notes", given)) => notes(given),
        Some(("sbom", given)) => components(given),
        Some(("provenance", given)) => origin(given),
        _ => Ok(command().render_help().to_string()),
    };
    match done {
        Ok(text) => {
            let _ = writeln!(io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "podbeat-release: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let word = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .required(true)
            .help(help)
    };
    let path = |name, help| word(name, "FILE", help).value_parser(value_parser!(PathBuf));
    let plain = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).value_name(value).required(true).help(help)
    };
    Command::new("podbeat-release")
        .about("Set versions and names, and write the documents of a release. Run it in the repository's root")
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand(
            Command::new("version")
                .about("Set the version everywhere, and move what is unreleased in CHANGELOG.md to it")
                .arg(plain("version", "VERSION", "MAJOR.MINOR.PATCH")),
        )
        .subcommand(
            Command::new("registry")
                .about("Set the registry and the owner everywhere")
                .arg(plain("registry", "HOST/OWNER", "Such as ghcr.io/podbeat")),
        )
        .subcommand(Command::new("names").about("Check that every text names what is published"))
        .subcommand(
            Command::new("notes")
                .about("Print the changes of a version")
                .arg(plain("version", "VERSION", "The version in CHANGELOG.md, or Unreleased")),
        )
        .subcommand(
            Command::new("sbom")
                .about("Print the components of a program as CycloneDX")
                .args([
                    word("name", "NAME", "podbeat or podbeat-server"),
                    word("target", "TARGET", "The program's target"),
                    path("binary", "The program"),
                    path("tree", "The output of cargo tree --prefix depth"),
                    path("metadata", "The output of cargo metadata"),
                    Arg::new("roots")
                        .long("roots")
                        .action(clap::ArgAction::SetTrue)
                        .help("The list is of podbeat's image, which has Mozilla's roots"),
                    word("created", "SECONDS", "The time of the commit, since 1970")
                        .value_parser(value_parser!(i64)),
                ]),
        )
        .subcommand(
            Command::new("provenance")
                .about("Print the predicate of SLSA provenance v1")
                .args([
                    word("commit", "COMMIT", "The commit"),
                    word("ref", "REF", "The tag, such as refs/tags/v1.2.3"),
                    word("builder", "URI", "Who built it"),
                    word("invocation", "URI", "The run of the builder"),
                    word("lock", "SHA256", "SHA-256 of Cargo.lock"),
                    word("rustc", "VERSION", "The first line of rustc -vV"),
                ]),
        )
}

fn set_version(given: &ArgMatches) -> Result<String, Error> {
    let to = text(given, "version");
    let date = Timestamp::now().to_zoned(TimeZone::UTC).date();
    version::set_version(Path::new("."), &to, date)?;
    Ok(format!("set version {to}"))
}

fn set_registry(given: &ArgMatches) -> Result<String, Error> {
    let to = text(given, "registry");
    version::set_registry(Path::new("."), &to)?;
    Ok(format!("set registry {to}"))
}

fn names() -> Result<String, Error> {
    let published = Published::now();
    let root = Path::new(".");
    let all = files(root).map_err(failed(root))?;
    let mut lines = Vec::new();
    for (path, text) in &all {
        for name in wrong(text, &published) {
            lines.push(format!("{}: {name}", path.display()));
        }
    }
    match lines.is_empty() {
        true => Ok(format!("{} files name {}", all.len(), published.registry)),
        false => Err(Error::Names(lines.join("\n"))),
    }
}

fn notes(given: &ArgMatches) -> Result<String, Error> {
    let changelog = read(Path::new("CHANGELOG.md"))?;
    Ok(changelog::changes(&changelog, &text(given, "version"))?.to_owned())
}

fn components(given: &ArgMatches) -> Result<String, Error> {
    let path = file(given, "binary");
    let binary = std::fs::read(&path).map_err(failed(&path))?;
    let lock = read(Path::new("Cargo.lock"))?;
    let (tree, metadata) = (read(&file(given, "tree"))?, read(&file(given, "metadata"))?);
    let (name, target) = (text(given, "name"), text(given, "target"));
    let roots = given
        .get_flag("roots")
        .then(|| version_in(&lock, "webpki-root-certs"));
    let document = sbom::document(&Inputs {
        name: &name,
        target: &target,
        binary: &binary,
        tree: &tree,
        metadata: &metadata,
        lock: &lock,
        roots: roots.flatten(),
        created: given.get_one::<i64>("created").copied().unwrap_or_default(),
    })?;
    Ok(format!("{document:#}"))
}

/// The version of a crate in Cargo.lock.
fn version_in<'lock>(lock: &'lock str, name: &str) -> Option<&'lock str> {
    let (_, rest) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}

fn origin(given: &ArgMatches) -> Result<String, Error> {
    let predicate = provenance::predicate(&Build {
        commit: text(given, "commit"),
        reference: text(given, "ref"),
        builder: text(given, "builder"),
        invocation: text(given, "invocation"),
        lock: text(given, "lock"),
        rustc: text(given, "rustc"),
    });
    Ok(format!("{predicate:#}"))
}

fn text(given: &ArgMatches, name: &str) -> String {
    given.get_one::<String>(name).cloned().unwrap_or_default()
}

fn file(given: &ArgMatches, name: &str) -> PathBuf {
    given.get_one::<PathBuf>(name).cloned().unwrap_or_default()
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}
