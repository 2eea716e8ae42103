//! What a release consists of besides the programs.
//! Contains the texts that name what is published ([`names`]), how a version is set ([`version`]),
//! the changes of a version ([`changelog`]), the components of a program ([`sbom`]), and where it was
//! built from ([`provenance`]).
//! Never here: a registry, a signature or a network. The scripts in this directory use those.

pub mod changelog;
pub mod names;
pub mod provenance;
pub mod sbom;
pub mod version;
