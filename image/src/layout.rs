//! The JSON documents of the OCI image specification, with the members that these images need, in
//! its spelling. They are structs and not JSON values, so that the order of the keys, and with it
//! every digest, is fixed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::elf::Architecture;

pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Marker {
    image_layout_version: &'static str,
}

impl Marker {
    pub(crate) const V1: Self = Self {
        image_layout_version: "1.0.0",
    };
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u8,
    media_type: &'static str,
    manifests: [Descriptor; 1],
}

impl Index {
    pub(crate) fn new(manifest: Descriptor) -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX,
            manifests: [manifest],
        }
    }
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: &'static str,
    pub(crate) digest: String,
    pub(crate) size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<&'static str, String>,
}

#[derive(Clone, Copy, Serialize)]
pub(crate) struct Platform {
    architecture: Architecture,
    os: &'static str,
}

impl From<Architecture> for Platform {
    fn from(architecture: Architecture) -> Self {
        Self {
            architecture,
            os: "linux",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest<'a> {
    schema_version: u8,
    media_type: &'static str,
    config: Descriptor,
    layers: [Descriptor; 1],
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> Manifest<'a> {
    pub(crate) fn new(
        config: Descriptor,
        layer: Descriptor,
        annotations: &'a BTreeMap<String, String>,
    ) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST,
            config,
            layers: [layer],
            annotations,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Config<'a> {
    pub(crate) created: String,
    #[serde(flatten)]
    pub(crate) platform: Platform,
    pub(crate) config: Process<'a>,
    pub(crate) rootfs: RootFs,
    pub(crate) history: [History; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Process<'a> {
    pub(crate) user: &'a str,
    pub(crate) env: Vec<String>,
    pub(crate) entrypoint: &'a [String],
    pub(crate) working_dir: &'static str,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) diff_ids: [String; 1],
}

#[derive(Serialize)]
pub(crate) struct History {
    pub(crate) created: String,
    pub(crate) created_by: &'static str,
}
