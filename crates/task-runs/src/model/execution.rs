//! What a task run executes, and the request that creates a run.
//!
//! Where there is no own type, the contract only says that a value is a string. The service defines
//! resource types, tiers, modes and storage providers, and can add values without a new version of
//! podbeat.
//!
//! The constants are the contract's defaults and bounds. [`CreateTaskRunRequest::problems`] checks
//! the bounds. The service applies the defaults; podbeat omits absent members.

use std::collections::BTreeMap;
use std::ops::{RangeFrom, RangeInclusive};

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
    /// Free text of at most [`Self::LONGEST_DESCRIPTION`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What to run, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// A display name of at most [`Self::LONGEST_NAME`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl CreateTaskRunRequest {
    /// The maximum length of a description, in characters.
    pub const LONGEST_DESCRIPTION: usize = 4096;

    /// The maximum length of a name, in characters.
    pub const LONGEST_NAME: usize = 255;

    /// Replaces every secret with `[redacted]`, so that the request can be shown as JSON. The
    /// original values are lost.
    pub fn redact(&mut self) {
        if let Some(execution) = &mut self.execution {
            execution.redact();
        }
    }
}

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
    /// How often the run was retried, in [`Self::RETRY_COUNTS`]. The service's default is
    /// [`Self::DEFAULT_RETRY_COUNT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<i32>,
    /// How often the run is retried at most, in [`Self::RETRY_LIMITS`]. The service's default is
    /// [`Self::DEFAULT_RETRY_LIMIT`].
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
    /// The service's default for `retry_count`.
    pub const DEFAULT_RETRY_COUNT: i32 = 0;

    /// The allowed values of `retry_count`. The service's own documents state no range, but a
    /// negative number of retries has no meaning.
    pub const RETRY_COUNTS: RangeFrom<i32> = 0..;

    /// The service's default for `retry_limit`.
    pub const DEFAULT_RETRY_LIMIT: i32 = 3;

    /// The allowed values of `retry_limit`: like those of `retry_count`, and for the same reason.
    pub const RETRY_LIMITS: RangeFrom<i32> = 0..;

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
    /// The service's default is [`Self::DEFAULT_ACCESS_PATTERN`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_pattern: Option<String>,
    /// In MB, in [`Self::BLOCK_SIZES_MB`]. The service's default is
    /// [`Self::DEFAULT_BLOCK_SIZE_MB`].
    #[serde(rename = "blockSizeMB", skip_serializing_if = "Option::is_none")]
    pub block_size_mb: Option<Number>,
    /// In GB, in [`Self::CACHE_SIZES_GB`]. The service's default is
    /// [`Self::DEFAULT_CACHE_SIZE_GB`].
    #[serde(rename = "cacheSizeGB", skip_serializing_if = "Option::is_none")]
    pub cache_size_gb: Option<i32>,
    /// In [`Self::PREFETCH_BLOCKS`]. The service's default is [`Self::DEFAULT_PREFETCH_BLOCKS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch_blocks: Option<i32>,
}

impl InputStreamSettings {
    /// The service's default for `access_pattern`.
    pub const DEFAULT_ACCESS_PATTERN: &'static str = "sequential";

    /// The service's default for `block_size_mb`.
    pub const DEFAULT_BLOCK_SIZE_MB: f64 = 32.0;

    /// The allowed values of `block_size_mb`.
    pub const BLOCK_SIZES_MB: RangeInclusive<f64> = 0.0..=1024.0;

    /// The service's default for `cache_size_gb`.
    pub const DEFAULT_CACHE_SIZE_GB: i32 = 50;

    /// The allowed values of `cache_size_gb`.
    pub const CACHE_SIZES_GB: RangeInclusive<i32> = 50..=10_000;

    /// The service's default for `prefetch_blocks`.
    pub const DEFAULT_PREFETCH_BLOCKS: i32 = 32;

    /// The allowed values of `prefetch_blocks`.
    pub const PREFETCH_BLOCKS: RangeInclusive<i32> = 0..=64;
}

/// The resources that a task run needs (`Resources`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// CPU cores, possibly with a fraction, in [`Self::CPU_CORES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<Number>,
    /// Additional hardware, as the service names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Vec<String>>,
    /// Memory in GB, possibly with a fraction, in [`Self::MEMORY_GB`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<Number>,
    /// A size within the type, as the service names it. At most [`Self::LONGEST_NAME`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// A tier, as the service names it. At most [`Self::LONGEST_NAME`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// A type of machine, as the service names it. At most [`Self::LONGEST_NAME`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
}

impl Resources {
    /// The allowed values of `cpu_cores`. The service's own documents state no range, but no
    /// machine has a negative number of cores.
    pub const CPU_CORES: RangeFrom<f64> = 0.0..;

    /// The allowed values of `memory_gb`: like those of `cpu_cores`, and for the same reason.
    pub const MEMORY_GB: RangeFrom<f64> = 0.0..;

    /// The maximum length of `size`, `tier` and `type`, in characters. The service's own documents
    /// state it only for the members of a run that repeat them: `size_of_resource`,
    /// `tier_of_resource` and `type_of_resource`.
    pub const LONGEST_NAME: usize = 255;
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
    /// The service's default is [`Self::DEFAULT_TYPE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// The source, as a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Location>,
    /// The source, as a URN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}

impl InputMountMappingWithCreds {
    /// The service's default for `type`.
    pub const DEFAULT_TYPE: &'static str = "File";
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
