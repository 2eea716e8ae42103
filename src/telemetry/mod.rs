//! podbeat's output for operators: the log, the metrics, and the admin endpoint with the probes and
//! the status. This module defines format, filter, destination and readings.
//! `podbeat_interface::messages` defines every log line, and the code that logs a line emits it
//! directly. This module makes no decisions, and has no secrets, because they cannot be printed.

pub mod admin;
pub mod instruments;
pub mod log;
pub mod metrics;
mod own_process;
mod probes;
pub mod readings;
mod status;
mod unread;

// `podbeat explain` must be able to read the text format of the log.
#[cfg(feature = "laptop")]
#[cfg(test)]
mod read_back {
    use podbeat_lab::hostile;
    use podbeat_laptop::explain::text_form::{Parsed, read};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::log::{Form, written};

    fn of(colours: bool, act: impl FnOnce()) -> Parsed {
        let line = written("trace", Form::Text { colours }, act);
        read(&line).unwrap_or_else(|| panic!("{line:?}"))
    }

    #[test]
    fn a_line_is_read_back_with_colours_or_without() {
        for colours in [false, true] {
            let read = of(colours, || {
                tracing::event!(
                    tracing::Level::WARN,
                    container = "main",
                    why = "two words",
                    count = 2,
                    empty = "",
                    "it=is so: a b=c d"
                );
            });
            assert_eq!(
                (read.level.as_str(), read.message.as_str()),
                ("WARN", "it=is so: a b=c d")
            );
            let fields = serde_json::json!({"container": "main", "why": "two words", "count": "2", "empty": ""});
            assert_eq!(Value::Object(read.fields), fields);
            let read = of(colours, || {
                tracing::event!(tracing::Level::INFO, "no fields")
            });
            assert_eq!((read.message.as_str(), read.fields.len()), ("no fields", 0));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_logged_is_read_back(
            said in prop_oneof![hostile::TEXT, "[a-z=\\\\\" \n]{0,20}"],
            also in prop_oneof![hostile::TEXT, "[a-z=\\\\\" \n]{0,20}"],
        ) {
            let read = of(false, || tracing::event!(tracing::Level::INFO, said = said.as_str(), also = also.as_str(), "hello"));
            prop_assert_eq!(read.message, "hello");
            prop_assert_eq!(Value::Object(read.fields), serde_json::json!({"said": said, "also": also}));
        }
    }
}
