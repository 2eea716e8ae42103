//! The header `traceparent`, which connects the service's records of a request with ours.
//!
//! W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context/>). Writes version 00 and reads
//! any version.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

/// The ID of a trace, which all requests of one caller share. 32 lower-case hexadecimal digits, not
/// all 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// The ID of one request within a trace (`parent-id` in the standard). 16 lower-case hexadecimal
/// digits, not all 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

/// The trace to which one request belongs. It is always valid: an ID is never zero, and a text that
/// the standard forbids is rejected.
///
/// ```
/// use podbeat_task_runs::trace::TraceParent;
///
/// let given: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
/// assert!(given.sampled);
/// assert_eq!(given.to_string(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
/// # Ok::<(), podbeat_task_runs::trace::Unfit>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The request.
    pub span_id: SpanId,
    /// Whether the caller may have recorded its part of the trace. A caller that records nothing
    /// starts a trace with `false`, and keeps the value of a trace that it received (3.2.2.5.1 of
    /// the standard).
    pub sampled: bool,
}

/// Why a text is not a valid `traceparent`. The error contains no part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The length, a character or a separator is wrong.
    #[error(
        "it is not VERSION-TRACE-PARENT-FLAGS in lowercase hexadecimal digits: 2, 32, 16 and 2"
    )]
    Form,
    /// The version is ff.
    #[error("its version is ff, which is not allowed")]
    Version,
    /// An ID consists only of zeros.
    #[error("one of its IDs is all zeros")]
    Zeros,
}

impl TraceId {
    /// Creates the ID with these 128 bits.
    #[must_use]
    pub fn new(bits: NonZeroU128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    #[must_use]
    pub fn bits(self) -> u128 {
        self.0.get()
    }
}

impl SpanId {
    /// Creates the ID with these 64 bits.
    #[must_use]
    pub fn new(bits: NonZeroU64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0.get()
    }
}

impl TraceParent {
    /// Returns the same trace for another request.
    #[must_use]
    pub fn with_span(self, span_id: SpanId) -> Self {
        Self { span_id, ..self }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The header's value, in version 00. As the standard requires, unknown flags are never set.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-0{}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }
}

impl FromStr for TraceParent {
    type Err = Unfit;

    /// # Errors
    /// The text is not valid. According to the standard, the receiver ignores it and starts a new
    /// trace.
    fn from_str(text: &str) -> Result<Self, Unfit> {
        let mut parts = text.splitn(5, '-');
        let mut part = |digits: usize| {
            let lower_case_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts
                .next()
                .filter(|part| part.len() == digits && part.bytes().all(lower_case_hex))
                .and_then(|part| u128::from_str_radix(part, 16).ok())
                .ok_or(Unfit::Form)
        };
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        match version {
            0xff => return Err(Unfit::Version),
            0 if parts.next().is_some() => return Err(Unfit::Form),
            // A later version may add fields after another separator.
            _ => {}
        }
        let span_id = u64::try_from(span_id).map_err(|_| Unfit::Form)?;
        Ok(Self {
            trace_id: TraceId(NonZeroU128::new(trace_id).ok_or(Unfit::Zeros)?),
            span_id: SpanId(NonZeroU64::new(span_id).ok_or(Unfit::Zeros)?),
            sampled: flags & 1 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use podbeat_lab::hostile;
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(text: &str) -> Result<TraceParent, Unfit> {
        text.parse()
    }

    #[test]
    fn what_the_standard_allows_is_read_and_written_in_version_00() {
        for (text, written) in [
            (
                format!("00-{TRACE}-{SPAN}-01"),
                format!("00-{TRACE}-{SPAN}-01"),
            ),
            (
                format!("00-{TRACE}-{SPAN}-00"),
                format!("00-{TRACE}-{SPAN}-00"),
            ),
            // Unknown flags are not forwarded.
            (
                format!("00-{TRACE}-{SPAN}-ff"),
                format!("00-{TRACE}-{SPAN}-01"),
            ),
            (
                format!("00-{TRACE}-{SPAN}-fe"),
                format!("00-{TRACE}-{SPAN}-00"),
            ),
            // Later versions, with and without fields after the flags.
            (
                format!("01-{TRACE}-{SPAN}-01"),
                format!("00-{TRACE}-{SPAN}-01"),
            ),
            (
                format!("cc-{TRACE}-{SPAN}-00-what-ever"),
                format!("00-{TRACE}-{SPAN}-00"),
            ),
        ] {
            assert_eq!(
                read(&text).map(|parent| parent.to_string()),
                Ok(written),
                "{text}"
            );
        }
    }

    #[test]
    fn values_that_the_standard_forbids_are_refused() {
        let zeros = ["0".repeat(32), "0".repeat(16)];
        for (text, why) in [
            (String::new(), Unfit::Form),
            ("00".to_owned(), Unfit::Form),
            (format!("00-{TRACE}-{SPAN}"), Unfit::Form),
            (format!("00-{TRACE}-{SPAN}-1"), Unfit::Form),
            (format!("00-{TRACE}-{SPAN}-01-"), Unfit::Form),
            (format!("00-{TRACE}-{SPAN}-01-00"), Unfit::Form),
            (format!("01-{TRACE}-{SPAN}-01x"), Unfit::Form),
            (format!("0-{TRACE}-{SPAN}-01"), Unfit::Form),
            (format!("00_{TRACE}_{SPAN}_01"), Unfit::Form),
            (format!("00-{TRACE}-{SPAN}-01").to_uppercase(), Unfit::Form),
            (format!("00-{TRACE}-{SPAN}-0g"), Unfit::Form),
            // from_str_radix alone would accept a sign.
            (format!("00-+{}-{SPAN}-01", "1".repeat(31)), Unfit::Form),
            (format!(" 00-{TRACE}-{SPAN}-01"), Unfit::Form),
            (format!("00-{}-{SPAN}-01", "ü".repeat(16)), Unfit::Form),
            (format!("ff-{TRACE}-{SPAN}-01"), Unfit::Version),
            (format!("00-{}-{SPAN}-01", zeros[0]), Unfit::Zeros),
            (format!("00-{TRACE}-{}-01", zeros[1]), Unfit::Zeros),
        ] {
            assert_eq!(read(&text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let parent = TraceParent {
                trace_id: TraceId::new(NonZeroU128::new(trace).expect("not 0")),
                span_id: SpanId::new(NonZeroU64::new(span).expect("not 0")),
                sampled,
            };
            let text = parent.to_string();
            prop_assert_eq!(text.len(), 55);
            prop_assert_eq!(read(&text), Ok(parent));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in hostile::TEXT, digits in "[0-9a-fA-F-]{50,60}") {
            let _ = (read(&text), read(&digits));
        }
    }
}
