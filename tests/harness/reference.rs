//! Parts of the generated documents, from the tables that a program and its documents share: settings,
//! metrics, log messages, commands.

use std::ffi::OsString;
use std::fmt::Write;

use clap::Command;
use podbeat_interface::command_line::Exit;
use podbeat_interface::messages::{Described, EVERYWHERE, Field, Form, Presence};
use podbeat_interface::metrics::{Label, Metric};
use podbeat_interface::setting::{Kind, Row};

/// A table of settings.
pub(crate) fn settings(text: &mut String, settings: &[Row]) {
    text.push_str("| variable | flag | default | meaning |\n|---|---|---|---|\n");
    for setting in settings {
        let secret = match setting.kind {
            Kind::Secret => " **Secret.**",
            Kind::Value | Kind::Switch => "",
        };
        writeln!(
            text,
            "| `{}` | `--{}` | {} | {}.{secret} |",
            setting.variable,
            setting.flag,
            setting.default(),
            setting.meaning()
        )
        .expect("a String takes all");
    }
}

/// A table of metrics.
pub(crate) fn metrics<R>(text: &mut String, metrics: &[Metric<R>]) {
    text.push_str("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(label).collect();
        let absent = metric.absent.map(|when| format!(". Absent if {when}"));
        writeln!(
            text,
            "| `{}` | {} | {} | {}{} |",
            metric.name,
            metric.kind.name(),
            labels.join("; "),
            metric.meaning,
            absent.unwrap_or_default()
        )
        .expect("a String takes all");
    }
}

fn label(label: &Label) -> String {
    match label.values {
        [] => format!("`{}`", label.name),
        values => format!("`{}`: {}", label.name, values.join(", ")),
    }
}

/// A table of log messages.
pub(crate) fn messages<I>(text: &mut String, messages: &[Described<I>]) {
    text.push_str("| level | message | fields | meaning |\n|---|---|---|---|\n");
    for message in messages {
        let names = |presence| {
            let fields = message.fields.iter();
            fields
                .filter(move |field| field.presence == presence)
                .map(|field| field.name)
        };
        let always = names(Presence::Always).map(|name| format!("`{name}`"));
        let sometimes = names(Presence::Sometimes).map(|name| format!("(`{name}`)"));
        let fields: Vec<String> = always.chain(sometimes).collect();
        writeln!(
            text,
            "| {} | `{}` | {} | {} |",
            message.level,
            message.text,
            fields.join(" "),
            message.meaning()
        )
        .expect("a String takes all");
    }
}

/// The fields that every line has, and those of these messages.
pub(crate) fn fields<I>(text: &mut String, fields: &[Field], messages: &[Described<I>]) {
    let begin = |about: &str| format!("\n{about}\n\n| field | form | meaning |\n|---|---|---|\n");
    text.push_str(&begin("Every line in JSON has these fields:"));
    rows(text, EVERYWHERE.iter().copied());
    text.push_str(&begin("The messages above have these fields:"));
    let fields = fields.iter();
    rows(
        text,
        fields.map(|field| (*field, form(field.name, messages))),
    );
}

fn rows(text: &mut String, fields: impl Iterator<Item = (Field, Form)>) {
    for (field, form) in fields {
        writeln!(
            text,
            "| `{}` | {} | {} |",
            field.name,
            form.name(),
            field.meaning
        )
        .expect("a String takes all");
    }
}

/// The form of a field, which is the same in all messages.
fn form<I>(name: &str, messages: &[Described<I>]) -> Form {
    let fields = messages.iter().flat_map(|message| message.fields);
    let mut forms =
        fields.filter(|field| field.name == name && field.presence != Presence::Setting);
    let form = forms
        .next()
        .unwrap_or_else(|| panic!("no message has {name}"))
        .form;
    assert!(
        forms.all(|other| other.form == form),
        "{name} has several forms"
    );
    form
}

/// A program's command line.
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: &'static str,
    /// All of its commands.
    pub(crate) command: Command,
    /// Parses a command line, with the program's name.
    pub(crate) parse: fn(Vec<OsString>) -> Result<(), Exit>,
}

impl Program {
    /// Every command with the words that call it, each before its subcommands.
    pub(crate) fn commands(&self) -> Vec<(String, Command)> {
        fn with_those_below(called: String, command: Command) -> Vec<(String, Command)> {
            let below: Vec<_> = command
                .get_subcommands()
                .flat_map(|below| {
                    with_those_below(format!("{called} {}", below.get_name()), below.clone())
                })
                .collect();
            std::iter::once((called, command)).chain(below).collect()
        }
        with_those_below(self.name.to_owned(), self.command.clone())
    }

    /// The help of every command, each below a heading, such as `##`.
    pub(crate) fn helps(&self, text: &mut String, heading: &str) {
        for (called, _) in self.commands() {
            let help = self.help(&called);
            write!(text, "\n{heading} {called}\n\n```text\n{help}\n```\n")
                .expect("a String takes all");
        }
    }

    fn help(&self, called: &str) -> String {
        let words = called.split(' ').chain(["--help"]).map(OsString::from);
        let exit = (self.parse)(words.collect()).expect_err("help is asked for");
        assert_eq!(exit.failure, None, "{called}: {}", exit.text);
        let lines = exit.text.trim().lines().map(str::trim_end);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Fails unless every command has examples in its help, and all of them are valid. `is_own` is
    /// whether a command line is an example of a command.
    pub(crate) fn examples_are_valid(&self, is_own: impl Fn(&str, &str) -> bool) {
        for (called, command) in self.commands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let (_, examples) = help
                .split_once("Examples:\n")
                .unwrap_or_else(|| panic!("{called} has no examples: {help:?}"));
            let examples = examples.split("\n\n").next().unwrap_or_default();
            let mut of_its_own = 0;
            for line in examples.lines() {
                for typed in self.check_line(line) {
                    of_its_own += usize::from(is_own(&called, &typed));
                }
            }
            assert!(of_its_own > 0, "{called}: no example of it: {examples}");
        }
    }

    /// Fails unless the command lines of this program in a line are valid. Returns them.
    pub(crate) fn check_line(&self, line: &str) -> Vec<String> {
        examples_in(line, self.name)
            .map(|arguments| {
                let words = std::iter::once(self.name).chain(arguments);
                let typed = words.clone().collect::<Vec<_>>().join(" ");
                match (self.parse)(words.map(OsString::from).collect()) {
                    Ok(()) | Err(Exit { failure: None, .. }) => {}
                    // The files of an example do not exist here.
                    Err(exit) if exit.text.contains("No such file") => {}
                    Err(exit) => panic!("{typed}: {}", exit.text),
                }
                typed
            })
            .collect()
    }
}

/// The arguments of the commands in a line of a text, without the part before the program that
/// starts it.
fn examples_in<'line>(
    line: &'line str,
    name: &'static str,
) -> impl Iterator<Item = Vec<&'line str>> {
    // After three spaces, the text explains the example.
    let typed = line.trim().split("   ").next().unwrap_or_default();
    typed
        .split(['|', '>', '(', ')', '&', ';'])
        .filter_map(move |part| {
            let mut words = part
                .split_whitespace()
                .map(|word| word.trim_matches(['\'', '"']))
                .skip_while(|word| word.contains('='))
                .peekable();
            if words.peek() == Some(&"kubectl") {
                // `kubectl exec` runs podbeat; `kubectl logs` only names its container.
                words.find(|word| *word == "--")?;
            }
            words
                .next()
                .filter(|program| program.rsplit('/').next() == Some(name))
                .map(|_| words.collect())
        })
}

/// podbeat.
pub(crate) fn podbeat() -> Program {
    Program {
        name: "podbeat",
        command: podbeat::cli::command(),
        parse: |words| podbeat::cli::parse(words).map(|_| ()),
    }
}

/// podbeat-server.
pub(crate) fn server() -> Program {
    Program {
        name: podbeat_server::cli::PROGRAM,
        command: podbeat_server::cli::command(),
        parse: |words| podbeat_server::cli::parse(words).map(|_| ()),
    }
}
