//! The description of metrics, for `/metrics` and for documents, and how their samples are printed.
//! Each program has a table of its own metrics.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only increases. The name ends with `_total`.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts by size. The samples' names end with `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Always 1, with the information in its labels. The name ends with `_info`.
    Info,
}

impl Type {
    /// The name in `# TYPE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// The suffix of a sample's name after the name of the family.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }

    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }
}

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The label's name.
    pub name: &'static str,
    /// All possible values. Empty for a text that is the same during the whole process.
    pub values: &'static [&'static str],
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric<R> {
    /// The name in queries.
    pub name: &'static str,
    /// The type.
    pub kind: Type,
    /// The labels.
    pub labels: &'static [Label],
    /// The description, for `# HELP` and the documentation.
    pub meaning: &'static str,
    /// When the metric is absent, if it can be.
    pub absent: Option<&'static str>,
    /// Reads its samples.
    pub read: R,
}

impl<R> Metric<R> {
    /// The name in `# TYPE`, without the suffix that OpenMetrics adds to each sample.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.name
            .strip_suffix(self.kind.suffix())
            .unwrap_or(self.name)
    }

    /// Prints the samples in the text format of OpenMetrics 1.0.
    ///
    /// # Errors
    /// The text can't be written.
    pub fn encode(&self, samples: Samples, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if matches!(samples, Samples::Absent) {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            self.family(),
            self.meaning,
            None,
            self.kind.metric_type(),
        )?;
        match samples {
            Samples::Absent => Ok(()),
            Samples::Info(label, value) => family.encode_info(&[(label, value)]),
            Samples::Counters(counters) => {
                for (labels, count) in counters {
                    let family = family.encode_family(&labels)?;
                    ConstCounter::new(count).encode(family)?;
                }
                Ok(())
            }
            Samples::Gauges(gauges) => {
                for (labels, value) in gauges {
                    family.encode_family(&labels)?.encode_gauge(&value)?;
                }
                Ok(())
            }
            Samples::Seconds(seconds) => family.encode_counter(&seconds, None::<&NoExemplar>),
            Samples::Gauge(value) => family.encode_gauge(&value),
            Samples::Whole(value) => family.encode_gauge(&value),
            Samples::Histogram(histogram) => histogram.encode(family),
        }
    }
}

type NoExemplar = Exemplar<[(&'static str, &'static str); 0], f64>;

/// Prints a table of metrics in the text format of OpenMetrics 1.0.
///
/// # Errors
/// The text can't be written.
pub fn text(table: impl Collector) -> Result<String, fmt::Error> {
    // Created for each scrape, so that it uses no memory between scrapes.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(table));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The samples of one metric.
#[derive(Debug)]
pub enum Samples {
    /// None.
    Absent,
    /// The information of an info metric: a label and its value.
    Info(&'static str, Cow<'static, str>),
    /// Counters, by their labels.
    Counters(Vec<(Vec<(&'static str, &'static str)>, u64)>),
    /// Gauges that are whole numbers, by their labels.
    Gauges(Vec<(Vec<(&'static str, &'static str)>, u64)>),
    /// A counter of seconds.
    Seconds(f64),
    /// A gauge.
    Gauge(f64),
    /// A gauge that is a whole number.
    Whole(u64),
    /// A histogram.
    Histogram(Histogram),
}

impl Samples {
    /// A gauge of seconds.
    #[must_use]
    pub fn age(age: Duration) -> Self {
        Self::Gauge(age.as_secs_f64())
    }

    /// A gauge that is a whole number.
    pub fn count(count: impl TryInto<u64>) -> Self {
        Self::Whole(count.try_into().unwrap_or(u64::MAX))
    }

    /// A gauge that is 1 or 0.
    #[must_use]
    pub fn flag(is_set: bool) -> Self {
        Self::Whole(is_set.into())
    }
}
