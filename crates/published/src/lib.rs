//! Where podbeat is published: the names of its images and charts, and the address of its sources.
//! Pure. `deploy/registry` is the only place that says where. `just registry` changes it, and the
//! texts that repeat it; a test compares them.

/// The registry and the owner, such as `ghcr.io/podbeat`.
pub const REGISTRY: &str = include_str!("../../../deploy/registry").trim_ascii();

/// The version of everything that is published together.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The images.
pub const IMAGES: [&str; 2] = ["podbeat", "podbeat-server"];

/// The charts.
pub const CHARTS: [&str; 2] = ["podbeat", "podbeat-server"];

/// An image with the tag of this version, such as `ghcr.io/podbeat/podbeat:1.2.3`.
#[must_use]
pub fn image(name: &str) -> String {
    format!("{REGISTRY}/{name}:{VERSION}")
}

/// A chart's OCI reference, without the version, such as `oci://ghcr.io/podbeat/charts/podbeat`.
#[must_use]
pub fn chart(name: &str) -> String {
    format!("oci://{REGISTRY}/charts/{name}")
}

/// The address of the sources. The owner is the same in the registry and on GitHub.
#[must_use]
pub fn source() -> String {
    let owner = REGISTRY
        .split_once('/')
        .map_or(REGISTRY, |(_, owner)| owner);
    format!("https://github.com/{owner}/podbeat")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_have_the_registry_and_the_owner() {
        let (host, owner) = REGISTRY.split_once('/').expect("HOST/OWNER");
        assert!(!owner.contains('/') && !owner.is_empty(), "{REGISTRY}");
        assert!(host.contains(['.', ':']), "{host} is a host");
        assert_eq!(
            image("podbeat"),
            format!("{host}/{owner}/podbeat:{VERSION}")
        );
        assert_eq!(
            chart("podbeat"),
            format!("oci://{host}/{owner}/charts/podbeat")
        );
        assert_eq!(source(), format!("https://github.com/{owner}/podbeat"));
    }
}
