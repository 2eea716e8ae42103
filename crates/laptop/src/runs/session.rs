//! What the requests of one command share: the service, and what happens when one of them fails.

use std::time::Duration;

use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::service::{self, Service};
use podbeat_task_runs::error;

use super::console::{Console, Others};
use super::error::Error;
use super::poll::Poll;

/// One command that sends requests.
pub(super) struct Session<'run, 'streams> {
    pub(super) service: Service,
    pub(super) rng: fastrand::Rng,
    pub(super) console: &'run mut Console<'streams>,
}

impl Session<'_, '_> {
    /// Asks for each in turn, and passes over what fails, unless the others would fail alike.
    /// Returns what succeeded. `done` says in words what was done, for a terminal.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) async fn each<T, R>(
        &mut self,
        all: &[T],
        mut ask: impl AsyncFnMut(&mut Self, &T) -> Result<R, Error>,
        done: impl Fn(&T, &R) -> Option<String>,
    ) -> Result<Vec<R>, Error> {
        let mut succeeded = Vec::new();
        for (nth, one) in all.iter().enumerate() {
            match ask(self, one).await {
                Ok(result) => {
                    if self.console.talks()
                        && let Some(words) = done(one, &result)
                    {
                        self.console.say(format_args!("{words}"))?;
                    }
                    succeeded.push(result);
                }
                Err(error) => {
                    let left = all.len() - nth - 1;
                    if self.console.failed_of_some(&error, left) == Others::WouldFailToo {
                        break;
                    }
                }
            }
        }
        Ok(succeeded)
    }

    /// The pause after an error that may be temporary. Of several such errors in a row, podbeat
    /// reports only the first, and only if it will try again.
    ///
    /// # Errors
    /// The error itself, if it is permanent.
    pub(super) fn passing(
        &mut self,
        poll: &mut Poll,
        error: error::Error,
        goes_on: bool,
    ) -> Result<Duration, Error> {
        if service::ending(&error) != Ending::Unavailable {
            return Err(error.into());
        }
        if goes_on && poll.is_news() {
            self.console
                .note(&format!("{}; retrying", with_causes(&error)));
        }
        let retry_after = match error {
            error::Error::Status { retry_after, .. } => retry_after,
            _ => None,
        };
        Ok(poll.failed(retry_after, &mut self.rng))
    }
}
