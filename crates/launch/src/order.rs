//! What to launch, and whether this service can launch it.

use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{Environment, Execution, SystemFiles};

use crate::settings::Settings;

/// The longest sum of the texts of a run's variables, in bytes. A Secret has at most 1 MiB
/// (Kubernetes' `MaxSecretSize`), and also holds the token and the credentials.
const MOST_VARIABLES: usize = 900 << 10;

/// The longest command line, in bytes: less than what etcd stores in one object.
const MOST_COMMAND: usize = 256 << 10;

/// An attempt to launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The run's ID.
    pub run: String,
    /// The tenant.
    pub tenant: String,
    /// The number of the attempt, which is the Job's retry count.
    pub attempt: u32,
    /// The nonce of its heartbeats.
    pub nonce: Secret,
    /// The token of its agent.
    pub token: Secret,
    /// What to run, with its secrets.
    pub execution: Execution,
}

/// Whether the service launches a run with this execution. One without an image is for pods that
/// others create.
#[must_use]
pub fn is_launched(execution: Option<&Execution>) -> bool {
    execution.is_some_and(|execution| execution.image.is_some())
}

/// Why this service can't launch a run, all reasons by member. Empty if it can. The texts contain no
/// values, because they can be misplaced secrets.
#[must_use]
pub fn problems(execution: &Execution, settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    let mut add = |text: &str| problems.push(text.to_owned());
    let environment = execution.environment.as_ref();
    for (member, is_used) in [
        ("inputs", execution.inputs.iter().flatten().next().is_some()),
        (
            "outputs",
            execution.outputs.iter().flatten().next().is_some(),
        ),
        (
            "systemFiles",
            execution
                .system_files
                .as_ref()
                .is_some_and(|files| *files != SystemFiles::default()),
        ),
        (
            "environment.inputStreamSettings",
            environment
                .and_then(|environment| environment.input_stream_settings.as_ref())
                .is_some_and(|settings| *settings != Default::default()),
        ),
    ] {
        if is_used {
            add(&format!(
                "execution.{member}: this service does not stage files; leave it out"
            ));
        }
    }
    if let Some(image) = &execution.image {
        for (member, text) in [
            ("name", &image.name),
            ("tag", &image.tag),
            ("digest", &image.digest),
        ] {
            let is_odd = |text: &String| {
                text.len() > 1024 || !text.bytes().all(|byte| byte.is_ascii_graphic())
            };
            if text.as_ref().is_some_and(is_odd) {
                add(&format!(
                    "execution.image.{member}: must have at most 1024 characters, without spaces"
                ));
            }
        }
    }
    let words = execution
        .command
        .iter()
        .chain(execution.args.iter().flatten());
    if words.clone().map(String::len).sum::<usize>() > MOST_COMMAND {
        add("execution: command and args must have at most 256 KiB");
    }
    if words
        .chain(&execution.working_directory)
        .any(|word| word.contains('\0'))
    {
        add("execution: command, args and workingDirectory must not contain NUL");
    }
    if execution.command.as_deref() == Some("") {
        add("execution.command: must not be empty; leave it out to run the image's own program");
    }
    if execution
        .working_directory
        .as_ref()
        .is_some_and(|path| !path.starts_with('/'))
    {
        add("execution.workingDirectory: must begin with /");
    }
    problems.extend(environment.map(variables).unwrap_or_default());
    let resources = environment.and_then(|environment| environment.resources.clone());
    if let Err(more) = settings.resources.placement(&resources.unwrap_or_default()) {
        problems.extend(more);
    }
    problems
}

fn variables(environment: &Environment) -> Vec<String> {
    const MEMBER: &str = "execution.environment.variables";
    let variables = environment.variables.iter().flatten();
    let mut problems = Vec::new();
    // As in the API server: validation of relaxed names (KEP-4369).
    let is_odd = |name: &String| {
        name.is_empty()
            || name.contains('=')
            || !name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    if variables.clone().any(|(name, _)| is_odd(name)) {
        problems.push(format!(
            "{MEMBER}: a name must have printable ASCII characters except ="
        ));
    }
    let size = |(name, value): (&String, &Secret)| name.len() + value.expose().len();
    if variables.clone().map(size).sum::<usize>() > MOST_VARIABLES {
        problems.push(format!("{MEMBER}: must have at most 900 KiB"));
    }
    if variables
        .clone()
        .any(|(_, value)| value.expose().contains('\0'))
    {
        problems.push(format!("{MEMBER}: a value must not contain NUL"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(execution: Value) -> Vec<String> {
        let execution = serde_json::from_value(execution).expect("an execution");
        problems(&execution, &Settings::default())
    }

    #[test]
    fn a_run_without_anything_odd_is_launched() {
        let execution = json!({
            "image": {"name": "busybox"}, "command": "sh", "args": ["-c", "exit 3"], "workingDirectory": "/work",
            "inputs": [], "outputs": [], "systemFiles": {},
            "environment": {"variables": {"A": "b", "with space": ""}, "inputStreamSettings": {}, "resources": {"cpuCores": 1}}
        });
        assert_eq!(of(execution), Vec::<String>::new());
    }

    #[test]
    fn what_would_be_ignored_or_cannot_be_written_is_refused() {
        let all = of(json!({
            "image": {"name": "busy box", "tag": "t".repeat(1025)}, "command": "", "args": ["a\u{0}b", "x".repeat(MOST_COMMAND)],
            "workingDirectory": "work", "inputs": [{}], "outputs": [{}], "systemFiles": {"url": "s3://x"},
            "environment": {"inputStreamSettings": {"cacheSizeGB": 50}, "resources": {"size": "huge"},
                "variables": {"a=b": "hunter2\u{0}", "c": "x".repeat(MOST_VARIABLES)}}
        }));
        for member in [
            "execution.inputs:",
            "execution.outputs:",
            "execution.systemFiles:",
            "execution.environment.inputStreamSettings:",
            "execution.image.name:",
            "execution.image.tag:",
            "execution: command and args must have at most",
            "execution: command, args and workingDirectory must not",
            "execution.command:",
            "execution.workingDirectory:",
            "execution.environment.variables: a name",
            "execution.environment.variables: must have at most",
            "execution.environment.variables: a value",
            "execution.environment.resources.size:",
        ] {
            let count = all.iter().filter(|text| text.starts_with(member)).count();
            assert_eq!(count, 1, "{member} in {all:?}");
        }
        assert_eq!(all.len(), 14);
        assert!(!all.join(" ").contains("hunter2"));
    }

    #[test]
    fn a_run_without_an_image_is_for_the_pods_of_others() {
        let read = |json: Value| serde_json::from_value::<Execution>(json).expect("an execution");
        assert!(!is_launched(None));
        assert!(!is_launched(Some(&read(json!({"command": "sh"})))));
        assert!(is_launched(Some(&read(json!({"image": {"name": "a"}})))));
    }
}
