//! What a task run executes, and the request that creates one.
//!
//! The contract calls these values strings and no more, where no type here says otherwise: kinds of resources, tiers, modes and
//! storage providers are the service's to name, and a new one needs no new podbeat. Defaults and bounds that the service itself
//! applies are told as its SDK (libica 2.5.0) names them; podbeat neither fills them in nor checks them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::Secret;
use super::super::secret::exposed;
use super::{Location, Number};

/// What to create and launch (`CreateTaskRunRequest`).
///
/// ```
/// use podbeat_task_runs::Secret;
/// use podbeat_task_runs::model::{CreateTaskRunRequest, Credentials, Environment, Execution, Image, Resources};
///
/// let request = CreateTaskRunRequest {
///     name: Some("align sample 7".to_owned()),
///     execution: Some(Execution {
///         image: Some(Image {
///             tag: Some("2.1".to_owned()),
///             credentials: Some(Credentials {
///                 username: Some("puller".to_owned()),
///                 password: Some(Secret::new("hunter2")),
///             }),
///             ..Image::new("registry.example/align")
///         }),
///         command: Some("align".to_owned()),
///         args: Some(vec!["--threads".to_owned(), "4".to_owned()]),
///         environment: Some(Environment {
///             resources: Some(Resources {
///                 cpu_cores: Some(4.into()),
///                 ..Resources::default()
///             }),
///             ..Environment::default()
///         }),
///         ..Execution::default()
///     }),
///     ..CreateTaskRunRequest::default()
/// };
/// assert_eq!(request.problems(), Vec::<String>::new());
/// assert!(!format!("{request:?}").contains("hunter2"));
/// ```
///
/// Serialized it is the body for the service, secrets and all; [`CreateTaskRunRequest::redact`] makes it fit to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateTaskRunRequest {
    /// Who has access: entries of the access control list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<Vec<String>>,
    /// Free text, of at most 4096 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is run, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// A name for people, of at most 255 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl CreateTaskRunRequest {
    /// What the contract has against it; empty if nothing. Needs no service: [`Client::create`] asks it before it sends.
    ///
    /// [`Client::create`]: crate::client::Client::create
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut longer = |what: &str, text: &Option<String>, most: usize| {
            let characters = text.as_ref().map_or(0, |text| text.chars().count());
            if characters > most {
                problems.push(format!(
                    "{what} has {characters} characters: the service takes {most}"
                ));
            }
        };
        longer("the name", &self.name, LONGEST_NAME);
        longer("the description", &self.description, LONGEST_DESCRIPTION);
        let image = self
            .execution
            .as_ref()
            .and_then(|execution| execution.image.as_ref());
        if image.is_some_and(|image| image.name.as_ref().is_none_or(String::is_empty)) {
            problems.push("the image has no name".to_owned());
        }
        problems
    }

    /// Puts `[redacted]` in the place of every secret, so that it can be shown as JSON. What it was can't be had back.
    pub fn redact(&mut self) {
        if let Some(execution) = &mut self.execution {
            execution.redact();
        }
    }
}

/// Characters of a task run's name (`maxLength` in the contract).
const LONGEST_NAME: usize = 255;

/// Characters of a task run's description (`maxLength` in the contract).
const LONGEST_DESCRIPTION: usize = 4096;

/// What a task run executes (`Execution`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Execution {
    /// The command's arguments. Shown by Debug: secrets belong into [`Environment::variables`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Variables and resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// The container image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// What is mounted or fetched before it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<InputMountMappingWithCreds>>,
    /// What is kept of what it leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<MountMappingWithCreds>>,
    /// How often it has been tried again. The service's default is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<i32>,
    /// How often it is tried again at most. The service's default is 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_limit: Option<i32>,
    /// Where the service keeps its own files of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_files: Option<SystemFiles>,
    /// Where the command starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
}

impl Execution {
    /// Puts `[redacted]` in the place of every secret, as [`CreateTaskRunRequest::redact`] does.
    pub fn redact(&mut self) {
        let image = self.image.as_mut().and_then(|image| image.credentials.as_mut());
        if let Some(password) = image.and_then(|credentials| credentials.password.as_mut()) {
            *password = Secret::new(REDACTED);
        }
        let values = |secrets: &mut Option<BTreeMap<String, Secret>>| {
            for secret in secrets.iter_mut().flat_map(BTreeMap::values_mut) {
                *secret = Secret::new(REDACTED);
            }
        };
        if let Some(environment) = &mut self.environment {
            values(&mut environment.variables);
        }
        for input in self.inputs.iter_mut().flatten() {
            values(&mut input.credentials);
            redact_location(&mut input.url);
        }
        for output in self.outputs.iter_mut().flatten() {
            values(&mut output.credentials);
            redact_location(&mut output.url);
            redact_location(&mut output.service_url);
        }
        if let Some(files) = &mut self.system_files {
            values(&mut files.credentials);
            redact_location(&mut files.url);
        }
    }

    /// Every secret in it, in order to keep them out of what is shown.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        let image = self.image.as_ref().and_then(|image| image.credentials.as_ref());
        let password = image.and_then(|credentials| credentials.password.as_ref());
        let inputs = self.inputs.iter().flatten();
        let outputs = self.outputs.iter().flatten();
        let files = self.system_files.iter();
        let maps = inputs
            .clone()
            .map(|input| &input.credentials)
            .chain(outputs.clone().map(|output| &output.credentials))
            .chain(files.clone().map(|files| &files.credentials))
            .chain(self.environment.iter().map(|environment| &environment.variables));
        let locations = inputs
            .map(|input| &input.url)
            .chain(outputs.flat_map(|output| [&output.url, &output.service_url]))
            .chain(files.map(|files| &files.url));
        let in_maps = maps.flatten().flat_map(BTreeMap::values).map(Secret::expose);
        let in_locations = locations.flatten().flat_map(Location::secrets);
        password
            .map(Secret::expose)
            .into_iter()
            .chain(in_maps)
            .chain(in_locations)
            .collect()
    }
}

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

pub(super) fn redact_location(location: &mut Option<Location>) {
    if let Some(location) = location {
        *location = location.redacted();
    }
}

/// A container image (`Image`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// What opens the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// The image's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The image's name, registry included. The contract requires it of a request, and that it isn't empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Image {
    /// An image of this name, and nothing else said of it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }
}

/// What opens an image's registry (`Credentials`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    /// The password or token. Shown by nothing.
    #[serde(serialize_with = "exposed::text", skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// What the command finds around it (`Environment`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// How inputs are streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_stream_settings: Option<InputStreamSettings>,
    /// What it needs of a machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Environment variables. They carry keys and tokens more often than not, so no value is ever shown; names are.
    #[serde(serialize_with = "exposed::values", skip_serializing_if = "Option::is_none")]
    pub variables: Option<BTreeMap<String, Secret>>,
}

/// How inputs are streamed (`InputStreamSettings`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InputStreamSettings {
    /// The service's default is `sequential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_pattern: Option<String>,
    /// In MB, 0 to 1024; the service's default is 32.
    #[serde(rename = "blockSizeMB", skip_serializing_if = "Option::is_none")]
    pub block_size_mb: Option<Number>,
    /// In GB, 50 to 10,000; the service's default is 50.
    #[serde(rename = "cacheSizeGB", skip_serializing_if = "Option::is_none")]
    pub cache_size_gb: Option<i32>,
    /// 0 to 64; the service's default is 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch_blocks: Option<i32>,
}

/// What a task run needs of a machine (`Resources`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// CPU cores, whole or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<Number>,
    /// Further hardware, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Vec<String>>,
    /// Memory, in GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<Number>,
    /// A size within the kind, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// A tier, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// A kind of machine, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
}

/// An input: what is at a URL or URN becomes a path (`InputMountMappingWithCreds`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InputMountMappingWithCreds {
    /// What opens the storage, by the provider's names. No value is ever shown.
    #[serde(serialize_with = "exposed::values", skip_serializing_if = "Option::is_none")]
    pub credentials: Option<BTreeMap<String, Secret>>,
    /// How it gets there, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The path in the task's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whose storage it is, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<String>,
    /// The service's default is `File`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Where it lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Location>,
    /// Where it lies, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}

/// An output: what is at a path goes to a URL or URN (`MountMappingWithCreds`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MountMappingWithCreds {
    /// What opens the storage, by the provider's names. No value is ever shown.
    #[serde(serialize_with = "exposed::values", skip_serializing_if = "Option::is_none")]
    pub credentials: Option<BTreeMap<String, Secret>>,
    /// The path in the task's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The storage's own service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_url: Option<Location>,
    /// Whose storage it is, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<String>,
    /// A kind, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Location>,
    /// Where it goes, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}

/// Where the service keeps its own files of a run (`SystemFiles`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SystemFiles {
    /// What opens the storage, by the provider's names. No value is ever shown.
    #[serde(serialize_with = "exposed::values", skip_serializing_if = "Option::is_none")]
    pub credentials: Option<BTreeMap<String, Secret>>,
    /// Whose storage it is, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<String>,
    /// Where they lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Location>,
    /// Where they lie, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}
