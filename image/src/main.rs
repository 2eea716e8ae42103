//! `podbeat-image`: the images of podbeat and podbeat-server as archives, as a directory, or for
//! several architectures, and small images for tests.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use podbeat_image::podbeat::{self, Program};
use podbeat_image::{Architecture, Entry, FilesError, Image, Sizes, index};

/// The version in the tag of an image without another one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Image(#[from] podbeat_image::Error),
    #[error(transparent)]
    Podbeat(#[from] podbeat::Error),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Index(#[from] index::Error),
    #[error("invalid {what} {value:?}; the form is {form}")]
    Argument {
        what: &'static str,
        value: String,
        form: &'static str,
    },
    #[error(
        "the image needs a program for amd64 or arm64, which determines its architecture; add one with --file"
    )]
    NoProgram,
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = match matches.subcommand() {
        Some(("rootfs", given)) => rootfs(given),
        Some(("archive", given)) => archive(given),
        Some(("index", given)) => several(given),
        Some(("simple", given)) => simple(given),
        _ => Ok(command().render_help().to_string()),
    };
    match done {
        Ok(line) => {
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            let _ = writeln!(std::io::stderr(), "podbeat-image: {text}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let path = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("BYTES")
            .value_parser(value_parser!(u64))
            .help(help)
    };
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let many = |name: &'static str, value: &'static str, help: &'static str| {
        text(name, value, help)
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
    };
    let created = || {
        Arg::new("created")
            .long("created")
            .value_name("SECONDS")
            .value_parser(value_parser!(u64))
            .help(
                "Seconds since 1970, the time of the image and its files [default: $SOURCE_DATE_EPOCH, or 0]",
            )
    };
    let binary = || {
        path(
            "binary",
            "PATH",
            "The static binary, as built by `just static`",
        )
    };
    let program = || {
        let names = Program::ALL.map(Program::name);
        text("program", "NAME", "The program")
            .value_parser(names)
            .default_value("podbeat")
    };
    let limit = || number("max-size", "Fail if the archive is larger");
    let output = || path("output", "FILE", "File for the archive");
    Command::new("podbeat-image")
        .about("Build container images without a builder: podbeat's own, and small ones for tests")
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand(
            Command::new("rootfs")
                .about("Write the files of podbeat's image to a directory")
                .args([
                    binary(),
                    path("output", "DIRECTORY", "A new or empty directory"),
                    created(),
                ]),
        )
        .subcommand(
            Command::new("archive")
                .about("Write the image of a program as an archive of the OCI image layout")
                .args([
                    program(),
                    binary(),
                    output(),
                    text("tag", "NAME:VERSION", "The image's name [default: that of the program]"),
                    text(
                        "revision",
                        "COMMIT",
                        "The commit that the binary was built from, for the label",
                    ),
                    created(),
                    number("max-binary-size", "Fail if the binary is larger"),
                    limit(),
                ]),
        )
        .subcommand(
            Command::new("index")
                .about("Write the images of several architectures as one directory of the OCI image layout, and print the digest of its index")
                .args([
                    path("output", "DIRECTORY", "A new or empty directory"),
                    Arg::new("archives")
                        .value_name("ARCHIVE")
                        .required(true)
                        .num_args(1..)
                        .value_parser(value_parser!(PathBuf))
                        .help("The archives, as written by podbeat-image archive"),
                ]),
        )
        .subcommand(
            Command::new("simple")
                .about("Write a small image as an archive of the OCI image layout")
                .args([
                    output(),
                    text("tag", "NAME:VERSION", "The image's name").required(true),
                    many(
                        "file",
                        "HOSTPATH=IMAGEPATH[:MODE]",
                        "A file; the mode is 0755 by default",
                    ),
                    many("link", "IMAGEPATH=TARGET", "A symbolic link"),
                    many(
                        "directory",
                        "IMAGEPATH[:MODE]",
                        "A directory; the mode is 0755 by default",
                    ),
                    many(
                        "entrypoint",
                        "WORD",
                        "The program; repeat the flag for its arguments",
                    ),
                    many("env", "NAME=VALUE", "An environment variable"),
                    many("label", "NAME=VALUE", "A label"),
                    text("user", "UID:GID", "The user and group that run the program")
                        .default_value("65532:65532"),
                    created(),
                    limit(),
                ]),
        )
}

fn rootfs(given: &ArgMatches) -> Result<String, Error> {
    let output = file(given, "output");
    let tag = tag(Program::Podbeat);
    podbeat::image(
        Program::Podbeat,
        &file(given, "binary"),
        &tag,
        time(given)?,
        None,
        None,
    )?
    .write_rootfs(&output)?;
    Ok(output.display().to_string())
}

fn archive(given: &ArgMatches) -> Result<String, Error> {
    let binary = file(given, "binary");
    let name = word(given, "program");
    let of = Program::ALL
        .into_iter()
        .find(|program| program.name() == name);
    let of = of.unwrap_or(Program::Podbeat);
    let tag = given
        .get_one::<String>("tag")
        .cloned()
        .unwrap_or_else(|| tag(of));
    let image = podbeat::image(
        of,
        &binary,
        &tag,
        time(given)?,
        given.get_one::<String>("revision").map(String::as_str),
        given.get_one::<u64>("max-binary-size").copied(),
    )?;
    write(&image, given)
}

fn tag(program: Program) -> String {
    format!("{}:{VERSION}", program.name())
}

fn several(given: &ArgMatches) -> Result<String, Error> {
    let archives = given.get_many::<PathBuf>("archives").unwrap_or_default();
    let archives: Vec<&Path> = archives.map(PathBuf::as_path).collect();
    Ok(index::merge(&archives, &file(given, "output"))?)
}

fn simple(given: &ArgMatches) -> Result<String, Error> {
    let mut entries = Vec::new();
    for value in words(given, "file") {
        let (from, to) = pair("file", &value, "HOSTPATH=IMAGEPATH[:MODE]")?;
        let (path, mode) = with_mode(to)?;
        entries.push(Entry::copy(path, mode, Path::new(from))?);
    }
    let architecture = entries
        .iter()
        .filter_map(Entry::contents)
        .find_map(|contents| Architecture::of(contents).ok())
        .ok_or(Error::NoProgram)?;
    for value in words(given, "link") {
        let (path, target) = pair("link", &value, "IMAGEPATH=TARGET")?;
        entries.push(Entry::link(path, target));
    }
    for value in words(given, "directory") {
        let (path, mode) = with_mode(&value)?;
        entries.push(Entry::directory(path, mode));
    }
    let mut image = Image::new(word(given, "tag"), architecture, entries);
    image.created = time(given)?;
    image.user = word(given, "user");
    image.entrypoint = words(given, "entrypoint");
    image.environment = pairs(given, "env")?;
    image.labels = pairs(given, "label")?;
    write(&image, given)
}

fn write(image: &Image, given: &ArgMatches) -> Result<String, Error> {
    let output = file(given, "output");
    let Sizes {
        unpacked,
        layer,
        archive,
    } = image.write_archive(&output, given.get_one::<u64>("max-size").copied())?;
    let program = image
        .entries
        .iter()
        .filter_map(Entry::contents)
        .map(<[u8]>::len)
        .max();
    Ok(format!(
        "wrote {}: {} for {}; bytes: {archive}, layer {layer}, unpacked {unpacked}, largest file {}",
        output.display(),
        image.tag,
        image.architecture,
        program.unwrap_or_default()
    ))
}

/// The image's time: from the flag, or else from SOURCE_DATE_EPOCH, which builders set for
/// reproducible results.
fn time(given: &ArgMatches) -> Result<u64, Error> {
    if let Some(seconds) = given.get_one::<u64>("created") {
        return Ok(*seconds);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "podbeat's settings are read in config; this is another program, and no setting of podbeat's"
    )]
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(0);
    };
    let value = value.to_string_lossy().into_owned();
    value.parse().map_err(|_| Error::Argument {
        what: "SOURCE_DATE_EPOCH",
        value,
        form: "whole seconds since 1970",
    })
}

fn file(given: &ArgMatches, name: &str) -> PathBuf {
    given.get_one::<PathBuf>(name).cloned().unwrap_or_default()
}

fn word(given: &ArgMatches, name: &str) -> String {
    given.get_one::<String>(name).cloned().unwrap_or_default()
}

fn words(given: &ArgMatches, name: &str) -> Vec<String> {
    given
        .get_many::<String>(name)
        .unwrap_or_default()
        .cloned()
        .collect()
}

fn pairs(given: &ArgMatches, name: &'static str) -> Result<BTreeMap<String, String>, Error> {
    words(given, name)
        .iter()
        .map(|value| {
            let (name, value) = pair(name, value, "NAME=VALUE")?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn pair<'a>(
    what: &'static str,
    value: &'a str,
    form: &'static str,
) -> Result<(&'a str, &'a str), Error> {
    value.split_once('=').ok_or_else(|| Error::Argument {
        what,
        value: value.to_owned(),
        form,
    })
}

fn with_mode(value: &str) -> Result<(&str, u32), Error> {
    let Some((path, mode)) = value.rsplit_once(':') else {
        return Ok((value, 0o755));
    };
    let mode = u32::from_str_radix(mode, 8).map_err(|_| Error::Argument {
        what: "mode",
        value: value.to_owned(),
        form: "octal digits, such as 0644",
    })?;
    Ok((path, mode))
}
