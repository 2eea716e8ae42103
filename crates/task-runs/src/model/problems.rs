//! Whether a request breaks the contract.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

use super::{
    CreateTaskRunRequest, Environment, Execution, Image, InputStreamSettings, Number, Resources,
};

impl CreateTaskRunRequest {
    /// Returns how the request breaks the contract; empty if it does not. This needs no service.
    /// [`Client::create`] calls it before it sends the request. A service can answer 400 with it.
    ///
    /// Each text names the member as on the wire and says what is allowed. It never contains the
    /// value, which may be a misplaced secret.
    ///
    /// [`Client::create`]: crate::client::Client::create
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Found::default();
        found.longer("name", self.name.as_deref(), Self::LONGEST_NAME);
        found.longer(
            "description",
            self.description.as_deref(),
            Self::LONGEST_DESCRIPTION,
        );
        if let Some(execution) = &self.execution {
            found.execution(execution);
        }
        found.0
    }
}

#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn execution(&mut self, execution: &Execution) {
        if let Some(image) = &execution.image {
            self.image(image);
        }
        let retries = [
            ("retryCount", execution.retry_count, Execution::RETRY_COUNTS),
            ("retryLimit", execution.retry_limit, Execution::RETRY_LIMITS),
        ];
        for (member, count, allowed) in retries {
            self.outside(&format!("execution.{member}"), count, &allowed);
        }
        if let Some(environment) = &execution.environment {
            self.environment(environment);
        }
    }

    fn image(&mut self, image: &Image) {
        match image.name.as_deref() {
            None => self.0.push("execution.image.name is missing".to_owned()),
            Some("") => self
                .0
                .push("execution.image.name must not be empty".to_owned()),
            Some(_) => {}
        }
    }

    fn environment(&mut self, environment: &Environment) {
        if let Some(settings) = &environment.input_stream_settings {
            self.streams(settings);
        }
        if let Some(resources) = &environment.resources {
            self.resources(resources);
        }
    }

    fn streams(&mut self, settings: &InputStreamSettings) {
        const PATH: &str = "execution.environment.inputStreamSettings";
        self.outside(
            &format!("{PATH}.cacheSizeGB"),
            settings.cache_size_gb,
            &InputStreamSettings::CACHE_SIZES_GB,
        );
        self.outside(
            &format!("{PATH}.blockSizeMB"),
            settings.block_size_mb.as_ref().and_then(Number::as_f64),
            &InputStreamSettings::BLOCK_SIZES_MB,
        );
        self.outside(
            &format!("{PATH}.prefetchBlocks"),
            settings.prefetch_blocks,
            &InputStreamSettings::PREFETCH_BLOCKS,
        );
    }

    fn resources(&mut self, resources: &Resources) {
        const PATH: &str = "execution.environment.resources";
        let amounts = [
            ("cpuCores", &resources.cpu_cores, Resources::CPU_CORES),
            ("memoryGb", &resources.memory_gb, Resources::MEMORY_GB),
        ];
        for (member, amount, allowed) in amounts {
            let amount = amount.as_ref().and_then(Number::as_f64);
            self.outside(&format!("{PATH}.{member}"), amount, &allowed);
        }
        let names = [
            ("size", &resources.size),
            ("tier", &resources.tier),
            ("type", &resources.r#type),
        ];
        for (member, name) in names {
            let path = format!("{PATH}.{member}");
            self.longer(&path, name.as_deref(), Resources::LONGEST_NAME);
        }
    }

    fn longer(&mut self, path: &str, text: Option<&str>, most: usize) {
        if text.is_some_and(|text| text.chars().count() > most) {
            self.0
                .push(format!("{path} must have at most {most} characters"));
        }
    }

    fn outside<T: PartialOrd + Display>(
        &mut self,
        path: &str,
        value: Option<T>,
        allowed: &impl RangeBounds<T>,
    ) {
        if value.is_none_or(|value| allowed.contains(&value)) {
            return;
        }
        let bounds = (allowed.start_bound(), allowed.end_bound());
        let text = match bounds {
            (Bound::Included(least), Bound::Included(most)) => format!("from {least} to {most}"),
            (Bound::Included(least), _) => format!("at least {least}"),
            // The contract has no other ranges.
            _ => "in the allowed range".to_owned(),
        };
        self.0.push(format!("{path} must be {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let request: CreateTaskRunRequest = serde_json::from_str(text).expect("a request");
        request.problems()
    }

    #[test]
    fn each_bound_is_checked_and_named_without_the_value() {
        let environment = "execution.environment";
        for (members, most, least, problem) in [
            (
                "inputStreamSettings.cacheSizeGB",
                "10000",
                "50",
                "must be from 50 to 10000",
            ),
            (
                "inputStreamSettings.blockSizeMB",
                "1024.0",
                "0",
                "must be from 0 to 1024",
            ),
            (
                "inputStreamSettings.prefetchBlocks",
                "64",
                "0",
                "must be from 0 to 64",
            ),
            ("resources.cpuCores", "1e9", "0", "must be at least 0"),
            ("resources.memoryGb", "1e9", "0.0", "must be at least 0"),
        ] {
            let (object, member) = members.split_once('.').expect("two members");
            let with = |value: &str| {
                problems(&format!(
                    r#"{{"execution": {{"environment": {{"{object}": {{"{member}": {value}}}}}}}}}"#
                ))
            };
            assert_eq!(with(most), Vec::<String>::new(), "{members}");
            assert_eq!(with(least), Vec::<String>::new(), "{members}");
            assert_eq!(with("null"), Vec::<String>::new(), "{members}");
            let expected = [format!("{environment}.{members} {problem}")];
            assert_eq!(with("-1"), expected);
            if problem.contains(" to ") {
                assert_eq!(with("10001"), expected);
            }
        }
        for member in ["retryCount", "retryLimit"] {
            let with =
                |value: &str| problems(&format!(r#"{{"execution": {{"{member}": {value}}}}}"#));
            assert_eq!(with("0"), Vec::<String>::new());
            assert_eq!(
                with("-7"),
                [format!("execution.{member} must be at least 0")]
            );
        }
    }

    #[test]
    fn a_fraction_above_a_bound_is_outside() {
        let with = |value: &str| {
            problems(&format!(
                r#"{{"execution": {{"environment": {{"inputStreamSettings": {{"blockSizeMB": {value}}}}}}}}}"#
            ))
        };
        assert_eq!(with("1024.5").len(), 1);
        assert_eq!(with("-0.5").len(), 1);
        assert_eq!(with("0.5").len(), 0);
    }

    #[test]
    fn lengths_count_characters() {
        for (path, most) in [
            ("name", 255),
            ("description", 4096),
            ("execution.environment.resources.type", 255),
            ("execution.environment.resources.size", 255),
            ("execution.environment.resources.tier", 255),
        ] {
            let with = |length: usize| {
                let value = serde_json::json!("ü".repeat(length));
                let nested = path
                    .rsplit('.')
                    .fold(value, |value, member| serde_json::json!({ member: value }));
                problems(&nested.to_string())
            };
            assert_eq!(with(most), Vec::<String>::new(), "{path}");
            assert_eq!(
                with(most + 1),
                [format!("{path} must have at most {most} characters")]
            );
        }
    }

    #[test]
    fn an_image_needs_a_name() {
        let missing = ["execution.image.name is missing"];
        assert_eq!(problems(r#"{"execution": {"image": {}}}"#), missing);
        assert_eq!(
            problems(r#"{"execution": {"image": {"name": null}}}"#),
            missing
        );
        assert_eq!(
            problems(r#"{"execution": {"image": {"name": ""}}}"#),
            ["execution.image.name must not be empty"]
        );
        assert_eq!(problems(r#"{"execution": {"image": null}}"#).len(), 0);
    }

    #[test]
    fn all_problems_are_reported_together() {
        let found = problems(
            r#"{"execution": {"image": {}, "retryCount": -1, "retryLimit": -1, "environment":
            {"inputStreamSettings": {"cacheSizeGB": 1, "blockSizeMB": -1, "prefetchBlocks": 65}}}}"#,
        );
        assert_eq!(found.len(), 6, "{found:?}");
    }
}
