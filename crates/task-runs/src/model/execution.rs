//! What a task run executes, and the request that creates a run.
//!
//! Where there is no own type, the contract only says that a value is a string. The service defines
//! resource types, tiers, modes and storage providers, and can add values without a new version of
//! podbeat. The comments repeat the service's defaults and bounds from its SDK (libica 2.5.0).
//! podbeat does not apply or check them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::Secret;
use super::super::secret::exposed;
use super::{Location, Number};

/// A task run to create and launch (`CreateTaskRunRequest`).
///
/// ```
/// use podbeat_task_runs::Secret;
/// use podbeat_task_runs::model::{CreateTaskRunRequest, Credentials, Environment, Execution};
/// use podbeat_task_runs::model::{Image, Resources};
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
/// Serialization writes the body for the service, including secrets. To display the request, call
/// [`CreateTaskRunRequest::redact`] first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateTaskRunRequest {
    /// The entries of the access control list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<Vec<String>>,
    /// Free text of at most 4096 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What to run, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// A display name of at most 255 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl CreateTaskRunRequest {
    /// Returns how the request breaks the contract; empty if it does not. This needs no service.
    /// [`Client::create`] calls it before it sends the request.
    ///
    /// [`Client::create`]: crate::client::Client::create
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut longer = |what: &str, text: &Option<String>, most: usize| {
            let characters = text.as_ref().map_or(0, |text| text.chars().count());
            if characters > most {
                problems.push(format!(
                    "{what} has {characters} characters; at most {most} are allowed"
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

    /// Replaces every secret with `[redacted]`, so that the request can be shown as JSON. The
    /// original values are lost.
    pub fn redact(&mut self) {
        if let Some(execution) = &mut self.execution {
            execution.redact();
        }
    }
}

/// Limit for a task run's name, in characters (`maxLength` in the contract).
const LONGEST_NAME: usize = 255;

/// Limit for a task run's description, in characters (`maxLength` in the contract).
const LONGEST_DESCRIPTION: usize = 4096;

/// What a task run executes (`Execution`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Execution {
    /// The command's arguments. Debug shows them, so put secrets into [`Environment::variables`].
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
    /// Data that is mounted or fetched before the command starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<InputMountMappingWithCreds>>,
    /// Output files that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<MountMappingWithCreds>>,
    /// How often the run was retried. The service's default is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<i32>,
    /// How often the run is retried at most. The service's default is 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_limit: Option<i32>,
    /// Where the service stores its own files of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_files: Option<SystemFiles>,
    /// The directory in which the command starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
}

impl Execution {
    /// Replaces every secret with `[redacted]`, as [`CreateTaskRunRequest::redact`] does.
    pub fn redact(&mut self) {
        let image = self
            .image
            .as_mut()
            .and_then(|image| image.credentials.as_mut());
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

    /// Returns every secret of the execution, so that callers can remove them from other texts.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        let image = self
            .image
            .as_ref()
            .and_then(|image| image.credentials.as_ref());
        let password = image.and_then(|credentials| credentials.password.as_ref());
        let inputs = self.inputs.iter().flatten();
        let outputs = self.outputs.iter().flatten();
        let files = self.system_files.iter();
        let maps = inputs
            .clone()
            .map(|input| &input.credentials)
            .chain(outputs.clone().map(|output| &output.credentials))
            .chain(files.clone().map(|files| &files.credentials))
            .chain(
                self.environment
                    .iter()
                    .map(|environment| &environment.variables),
            );
        let locations = inputs
            .map(|input| &input.url)
            .chain(outputs.flat_map(|output| [&output.url, &output.service_url]))
            .chain(files.map(|files| &files.url));
        let in_maps = maps
            .flatten()
            .flat_map(BTreeMap::values)
            .map(Secret::expose);
        let in_locations = locations.flatten().flat_map(Location::secrets);
        password
            .map(Secret::expose)
            .into_iter()
            .chain(in_maps)
            .chain(in_locations)
            .collect()
    }
}

/// Replaces a secret.
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
    /// The credentials for the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// The image's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The image's name, including the registry. The contract requires it in a request; it must not
    /// be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Image {
    /// Creates an image with only a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }
}

/// Credentials for an image's registry (`Credentials`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    /// The password or token. It is never shown.
    #[serde(
        serialize_with = "exposed::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub password: Option<Secret>,
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// The environment of the command (`Environment`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// How inputs are streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_stream_settings: Option<InputStreamSettings>,
    /// The resources that it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Environment variables. They often contain keys and tokens, so values are never shown, only
    /// names.
    #[serde(
        serialize_with = "exposed::values",
        skip_serializing_if = "Option::is_none"
    )]
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

/// The resources that a task run needs (`Resources`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// CPU cores, possibly with a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<Number>,
    /// Additional hardware, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Vec<String>>,
    /// Memory, in GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<Number>,
    /// A size within the type, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// A tier, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// A type of machine, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
}

/// An input: maps a URL or URN to a path (`InputMountMappingWithCreds`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InputMountMappingWithCreds {
    /// Credentials for the storage, as the provider names them. Values are never shown.
    #[serde(
        serialize_with = "exposed::values",
        skip_serializing_if = "Option::is_none"
    )]
    pub credentials: Option<BTreeMap<String, Secret>>,
    /// How the input is provided, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The path in the task's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The storage provider, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<String>,
    /// The service's default is `File`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// The source, as a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Location>,
    /// The source, as a URN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}

/// An output: maps a path to a URL or URN (`MountMappingWithCreds`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MountMappingWithCreds {
    /// Credentials for the storage, as the provider names them. Values are never shown.
    #[serde(
        serialize_with = "exposed::values",
        skip_serializing_if = "Option::is_none"
    )]
    pub credentials: Option<BTreeMap<String, Secret>>,
    /// The path in the task's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The URL of the storage service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_url: Option<Location>,
    /// The storage provider, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<String>,
    /// A type, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// The target, as a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Location>,
    /// The target, as a URN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}

/// Where the service stores its own files of a run (`SystemFiles`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SystemFiles {
    /// Credentials for the storage, as the provider names them. Values are never shown.
    #[serde(
        serialize_with = "exposed::values",
        skip_serializing_if = "Option::is_none"
    )]
    pub credentials: Option<BTreeMap<String, Secret>>,
    /// The storage provider, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_provider: Option<String>,
    /// The place, as a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Location>,
    /// The place, as a URN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}
