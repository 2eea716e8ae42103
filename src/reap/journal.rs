//! A saved journal of a pod: whether its last heartbeat is missing, and what that heartbeat
//! contains.

use std::path::Path;

use podbeat_heartbeat::outbox::Kind;
use podbeat_heartbeat::saved::{Contents, LastHeartbeat};

use super::error::Error;
use super::outcome::{Case, Outcome};
use crate::journal;
use podbeat_reap::{Missing, OwnWord};

/// Reads a journal.
pub(super) fn read(path: &Path) -> Result<Contents, Error> {
    let contents = journal::read(path).map_err(|source| Error::Journal {
        path: path.to_owned(),
        source,
    })?;
    contents.ok_or_else(|| Error::NoJournal {
        path: path.to_owned(),
    })
}

/// The outcome, if the journal shows that nothing is to be sent.
pub(super) fn settled(contents: &Contents) -> Option<Case> {
    let machine = &contents.machine;
    let (outcome, message) = match machine.last_heartbeat {
        LastHeartbeat::Open => return None,
        // It may have reported a task that continued.
        LastHeartbeat::Accepted if machine.is_by_signal_alone() => return None,
        LastHeartbeat::Accepted => (
            Outcome::Settled,
            "podbeat itself delivered the last heartbeat",
        ),
        LastHeartbeat::Refused => (
            Outcome::Disowned,
            "the service permanently rejected its last heartbeat",
        ),
        LastHeartbeat::Orphaned => (
            Outcome::Disowned,
            "the service said that the run does not belong to this pod",
        ),
    };
    Some(Case::new(outcome, message))
}

/// Returns the last heartbeat in a journal. If none was due yet, builds one from the last known
/// states.
pub(super) fn missing(contents: &Contents, nonce: Option<String>) -> Missing {
    let machine = &contents.machine;
    let decided = machine.outbox.iter().rfind(|beat| beat.kind == Kind::Final);
    let request = match decided {
        Some(beat) => beat.request.clone(),
        None => {
            let uid = machine.identity.pod_uid.as_deref().unwrap_or_default();
            let nonce = nonce.unwrap_or_else(|| format!("reap-{uid}"));
            let told = (!machine.statuses.is_empty()).then(|| machine.statuses.clone());
            let mut request = machine.identity.request(nonce, told);
            request.last_heartbeat = Some(true);
            request
        }
    };
    Missing {
        run: contents.task_run_id.clone(),
        request,
        uncounted: None,
        own_word: match machine.last_heartbeat {
            LastHeartbeat::Accepted => OwnWord::Delivered,
            LastHeartbeat::Open | LastHeartbeat::Refused | LastHeartbeat::Orphaned => match decided
            {
                Some(_) => OwnWord::Undelivered,
                None => OwnWord::Nothing,
            },
        },
    }
}
