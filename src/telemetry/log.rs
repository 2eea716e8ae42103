//! Logs: one line an event on standard error, JSON in a pod, text on a terminal.

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// Sets the process's log up, and a panic hook that logs.
///
/// kube's client logs each failed request at error level; podbeat reports the same with its remedy, so kube is heard
/// only where the filter names it.
///
/// # Errors
/// A subscriber is already set.
pub fn install(filter: &Targets, format: LogFormat) -> Result<(), tracing_subscriber::util::TryInitError> {
    let filter = quiet_libraries(filter);
    let layer = match format {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_ansi(false)
            .with_writer(Stderr)
            .boxed(),
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(Stderr)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn quiet_libraries(filter: &Targets) -> Targets {
    let named = |target: &str| filter.iter().any(|(named, _)| named == target);
    let traces = filter
        .default_level()
        .is_some_and(|level| level >= LevelFilter::TRACE);
    let mut quieted = filter.clone();
    for library in ["kube_client", "tower", "hyper_util", "reqwest", "rustls"] {
        if !named(library) && !traces {
            quieted = quieted.with_target(library, LevelFilter::OFF);
        }
    }
    quieted
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("(no message)");
    let location = panic.location().map(ToString::to_string);
    tracing::event!(
        Level::ERROR,
        location,
        "podbeat panicked, which is a bug: {message}"
    );
}

/// Standard error that never fails: a log that nobody reads any more must not end a heartbeat.
#[derive(Clone, Copy, Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().lock().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'writer> MakeWriter<'writer> for Stderr {
    type Writer = Self;

    fn make_writer(&'writer self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_heard_only_where_named() {
        let enabled = |filter: &str, target: &str, level: Level| {
            quiet_libraries(&filter.parse().expect("a filter")).would_enable(target, &level)
        };
        assert!(enabled("info", "podbeat::agent", Level::INFO));
        assert!(!enabled("info", "kube_client::client::builder", Level::ERROR));
        assert!(!enabled("debug", "hyper_util::client", Level::DEBUG));
        assert!(enabled("info,kube_client=debug", "kube_client", Level::DEBUG));
        assert!(enabled("trace", "hyper_util", Level::TRACE));
    }
}
