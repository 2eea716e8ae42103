//! For the fuzzer: reads the parts of a response from the service.

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::bearer;
use super::reply::{Reply, accepted, decoded, object, retry_after};
use crate::credentials;
use crate::error::{Error, Operation};
use crate::model::{ErrorResponse, TaskRun, TaskRunSummaryPagedItems};

/// Reads a response's Retry-After and body in every way in which the client may.
pub fn read_answer(retry_after_header: &[u8], body: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(retry_after_header) {
        headers.insert(RETRY_AFTER, value);
    }
    let response = object::<ErrorResponse>(body).ok();
    let operation = Operation::Get {
        run_id: String::from_utf8_lossy(retry_after_header).into_owned(),
    };
    let error = Error::Status {
        operation: operation.clone(),
        status: 400,
        response: response.map(|response| Box::new(response.without(&["token"]))),
        retry_after: retry_after(&headers, Timestamp::UNIX_EPOCH),
    };
    let accepted = accepted(Ok(body.to_vec()));
    if let Some(token) = &accepted.jwt {
        let _ = credentials::expires_at(token);
        let _ = bearer(token);
    }
    let _ = (error.to_string(), format!("{accepted:?}"));
    fn read<T: DeserializeOwned + serde::Serialize + std::fmt::Debug>(
        operation: &Operation,
        body: &[u8],
    ) -> Option<T> {
        let reply = Reply {
            status: 200,
            body: Ok(body.to_vec()),
        };
        match decoded::<T>(operation, reply) {
            Ok(answer) => {
                let _ = (serde_json::to_vec(&answer), format!("{answer:?}"));
                Some(answer)
            }
            Err(error) => {
                let _ = error.to_string();
                None
            }
        }
    }
    if let Some(mut run) = read::<TaskRun>(&operation, body) {
        run.redact();
    }
    let _ = read::<TaskRunSummaryPagedItems>(&operation, body);
}
