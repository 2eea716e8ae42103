//! Profiles: named task-run services in a user's file. This module finds and reads the file, and
//! decides which of its values apply.
//!
//! The agent does not use profiles: a file in a home directory must not change a sidecar.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use podbeat_files::regular_file;
use podbeat_files::trimmed;
use podbeat_interface::environment::{Environment, Flags};
use podbeat_interface::service;
use podbeat_interface::setting::{self, Row};
use serde_json::{Map, Value};

use crate::runs::manifest;

/// The settings that choose a profile, for commands that people run. The agent has none of them.
pub static PROFILE_SETTINGS: &[Row] = &[setting::PROFILE.row, setting::PROFILES_FILE.row];

/// The maximum size of the file in bytes, enough for several hundred profiles.
const LARGEST: u64 = 64 << 10;

const PROFILE: &str = setting::PROFILE.row.variable;
const CONFIG: &str = setting::PROFILES_FILE.row.variable;
const URL: &str = setting::SERVICE_URL.row.variable;
const TOKEN_FILE: &str = setting::TOKEN_FILE.row.variable;
const TOKEN: &str = setting::TOKEN.row.variable;
const CA_FILE: &str = setting::CA_FILE.row.variable;
const CERT_FILE: &str = setting::CLIENT_CERT_FILE.row.variable;
const KEY_FILE: &str = setting::CLIENT_KEY_FILE.row.variable;
const ALLOW_HTTP: &str = setting::ALLOW_HTTP.row.variable;

/// The members of a profile that name a file, each with its setting.
const FILES: [(&str, &str); 4] = [
    ("tokenFile", TOKEN_FILE),
    ("caFile", CA_FILE),
    ("clientCertFile", CERT_FILE),
    ("clientKeyFile", KEY_FILE),
];

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read profiles from {}; check the file, or choose another with --config or PODBEAT_CONFIG", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not a valid file of profiles.
    #[error("{}: invalid profiles:\n  {}", file.display(), problems.join("\n  "))]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong, each with its place. It never contains a value.
        problems: Vec<String>,
    },
    /// The file has no profile of this name.
    #[error("{}: unknown profile {name:?}; the file has {}", file.display(), listed(known))]
    Unknown {
        /// The profile.
        name: String,
        /// The file.
        file: PathBuf,
        /// The profiles that the file has.
        known: Vec<String>,
    },
    /// The user chose a profile, but there is no file.
    #[error("unknown profile {name:?}: the file {} does not exist; docs/runs.md describes its format", file.display())]
    NoFile {
        /// The profile.
        name: String,
        /// The file's expected path.
        file: PathBuf,
    },
    /// The user chose a profile, but nothing says where the file is.
    #[error(
        "unknown profile {name:?}: set PODBEAT_CONFIG to the file with profiles, because HOME is not set"
    )]
    NoHome {
        /// The profile.
        name: String,
    },
    /// The name of the profile or of the file is not valid UTF-8.
    #[error("{0}: not valid UTF-8")]
    NotText(&'static str),
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names
            .iter()
            .map(|name| format!("{name:?}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The profile in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The file that contains it.
    pub file: PathBuf,
    /// Its values, by the variables of their settings.
    values: BTreeMap<&'static str, OsString>,
}

/// An environment with a profile as its fallback. Values in the environment take precedence.
#[derive(Clone, Debug)]
pub struct Profiled<E> {
    environment: E,
    profile: Option<Profile>,
}

impl<E: Environment> Profiled<E> {
    /// Reads the profile that flags or the environment choose, otherwise the file's default.
    ///
    /// An empty `--profile` chooses no profile. The default does not apply if a flag or variable
    /// sets the service's URL, because the profile's token belongs to another service.
    ///
    /// # Errors
    /// The file cannot be read, is invalid anywhere, or does not have the profile.
    pub fn load(flags: &Flags, environment: E) -> Result<Self, Error> {
        let profile = choose(flags, &environment)?;
        Ok(Self {
            environment,
            profile,
        })
    }

    /// The profile, if there is one.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }
}

impl<E: Environment> Environment for Profiled<E> {
    fn get(&self, variable: &str) -> Option<OsString> {
        let given = self.environment.get(variable);
        if given.as_ref().is_some_and(says_something) {
            return given;
        }
        let profiles = self
            .profile
            .as_ref()
            .and_then(|profile| profile.values.get(variable));
        profiles.cloned().or(given)
    }

    fn names(&self) -> Vec<OsString> {
        self.environment.names()
    }

    fn profile(&self) -> Option<String> {
        let profile = self.profile.as_ref()?;
        Some(format!("{}, from {}", profile.name, profile.file.display()))
    }
}

/// The names of all profiles. Empty if the file cannot be read.
#[must_use]
pub fn names(flags: &Flags, environment: &impl Environment) -> Vec<String> {
    let Ok(Some((file, _))) = place(flags, environment) else {
        return Vec::new();
    };
    let read = read(&file, environment);
    read.map(|all| all.profiles.into_keys().collect())
        .unwrap_or_default()
}

/// Whether a value is set. As for all settings, empty text or white space counts as unset.
fn says_something(value: &OsString) -> bool {
    value
        .to_str()
        .is_none_or(|text| !trimmed::text(text).is_empty())
}

/// The value of the flag, otherwise of the environment.
fn given(variable: &str, flags: &Flags, environment: &impl Environment) -> Option<OsString> {
    let flag = flags.0.get(variable).cloned();
    flag.or_else(|| environment.get(variable))
        .filter(says_something)
}

fn text(
    variable: &'static str,
    flags: &Flags,
    environment: &impl Environment,
) -> Result<Option<String>, Error> {
    let Some(value) = given(variable, flags, environment) else {
        return Ok(None);
    };
    let value = value.into_string().map_err(|_| Error::NotText(variable))?;
    Ok(Some(trimmed::text(&value).to_owned()))
}

/// The file's path, and whether the user named it.
fn place(flags: &Flags, environment: &impl Environment) -> Result<Option<(PathBuf, bool)>, Error> {
    if let Some(named) = text(CONFIG, flags, environment)? {
        return Ok(Some((PathBuf::from(named), true)));
    }
    // The XDG Base Directory Specification requires relative paths to be ignored.
    let absolute = |variable: &str| {
        let dir = environment.get(variable).map(PathBuf::from);
        dir.filter(|dir| dir.is_absolute())
    };
    let dir =
        absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    Ok(dir.map(|dir| (dir.join("podbeat").join("config.yaml"), false)))
}

fn choose(flags: &Flags, environment: &impl Environment) -> Result<Option<Profile>, Error> {
    let name = text(PROFILE, flags, environment)?;
    if name.is_none() && (flags.0.contains_key(PROFILE) || given(URL, flags, environment).is_some())
    {
        return Ok(None);
    }
    let Some((file, named)) = place(flags, environment)? else {
        return match name {
            Some(name) => Err(Error::NoHome { name }),
            None => Ok(None),
        };
    };
    let Profiles {
        default,
        mut profiles,
    } = match (read(&file, environment), name.clone()) {
        (Err(Error::Read { source, .. }), name)
            if source.kind() == io::ErrorKind::NotFound && !named =>
        {
            return match name {
                Some(name) => Err(Error::NoFile { name, file }),
                None => Ok(None),
            };
        }
        (read, _) => read?,
    };
    let Some(name) = name.or(default) else {
        return Ok(None);
    };
    let Some(mut values) = profiles.remove(&name) else {
        let known = profiles.into_keys().collect();
        return Err(Error::Unknown { name, file, known });
    };
    let given = |variable| given(variable, flags, environment).is_some();
    // Two values of which only one is allowed count as one setting.
    if given(TOKEN) {
        values.remove(TOKEN_FILE);
    }
    if given(CERT_FILE) || given(KEY_FILE) {
        values.remove(CERT_FILE);
        values.remove(KEY_FILE);
    }
    // The profile allows plain HTTP only for its own service.
    if given(URL) {
        values.remove(ALLOW_HTTP);
    }
    Ok(Some(Profile { name, file, values }))
}

/// The content of the file.
#[derive(Debug, Default)]
struct Profiles {
    default: Option<String>,
    profiles: BTreeMap<String, BTreeMap<&'static str, OsString>>,
}

fn read(file: &Path, environment: &impl Environment) -> Result<Profiles, Error> {
    let text = regular_file::read_text(file, LARGEST).map_err(|source| Error::Read {
        file: file.to_owned(),
        source,
    })?;
    let dir = file.parent().unwrap_or_else(|| Path::new(""));
    let home = environment.get("HOME").map(PathBuf::from);
    parse(&text, dir, home.as_deref()).map_err(|problems| Error::Malformed {
        file: file.to_owned(),
        problems,
    })
}

/// Parses the file's text. Its relative paths start at `dir`.
fn parse(text: &str, dir: &Path, home: Option<&Path>) -> Result<Profiles, Vec<String>> {
    let mut documents = manifest::documents(text).map_err(|problem| vec![problem])?;
    let members = match (documents.pop(), documents.is_empty()) {
        (None, _) => return Ok(Profiles::default()),
        (Some(Value::Object(members)), true) => members,
        (Some(_), _) => {
            return Err(vec![
                "expected one object with the members default and profiles".to_owned(),
            ]);
        }
    };
    let (mut read, mut problems) = (Profiles::default(), Vec::new());
    for (member, value) in &members {
        match (member.as_str(), value) {
            (_, Value::Null) => {}
            ("default", Value::String(name)) if !name.is_empty() => {
                read.default = Some(name.clone())
            }
            ("default", _) => problems.push("default: expected the name of a profile".to_owned()),
            ("profiles", Value::Object(profiles)) => {
                for (name, profile) in profiles {
                    let place = format!("profiles.{}", place_of(name));
                    let values = values(&place, profile, dir, home, &mut problems);
                    read.profiles.insert(name.clone(), values);
                }
            }
            ("profiles", _) => {
                problems.push("profiles: expected an object of profiles by name".to_owned())
            }
            (member, _) => problems.push(unknown("", member, "default and profiles")),
        }
    }
    if let Some(default) = read
        .default
        .as_ref()
        .filter(|name| !read.profiles.contains_key(*name))
    {
        problems.push(format!("default: unknown profile {default:?}"));
    }
    match problems.is_empty() {
        true => Ok(read),
        false => Err(problems),
    }
}

/// A name as a part of a place, on one line.
fn place_of(name: &str) -> String {
    let is_plain = !name.is_empty()
        && !name
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control());
    match is_plain {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

fn unknown(place: &str, member: &str, members: &str) -> String {
    let place = match place {
        "" => place_of(member),
        place => format!("{place}.{}", place_of(member)),
    };
    match member.to_lowercase() {
        member
            if member != "tokenfile"
                && (member.contains("token") || member.contains("password")) =>
        {
            format!(
                "{place}: do not put secrets into this file; write the token to a separate file, and set tokenFile to it"
            )
        }
        _ => format!("{place}: unknown member; known members: {members}"),
    }
}

fn values(
    place: &str,
    profile: &Value,
    dir: &Path,
    home: Option<&Path>,
    problems: &mut Vec<String>,
) -> BTreeMap<&'static str, OsString> {
    let mut values = BTreeMap::new();
    let Value::Object(members) = profile else {
        problems.push(format!("{place}: expected an object"));
        return values;
    };
    let allow_http = matches!(members.get("allowHttp"), Some(Value::Bool(true)));
    for (member, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let file = FILES.iter().find(|(name, _)| name == member);
        let done = match (member.as_str(), value, file) {
            ("url", Value::String(url), _) => service::service_url(url, allow_http)
                .map(|_| drop(values.insert(URL, url.into())))
                .map_err(
                    |problem| match problem.strip_suffix(service::HTTP_IS_ALLOWED_BY) {
                        Some(problem) => format!("{problem} (allowHttp: true allows it)"),
                        None => problem,
                    },
                ),
            ("url", _, _) => Err("expected the base URL of a task-run service".to_owned()),
            ("allowHttp", Value::Bool(allowed), _) => {
                values.insert(ALLOW_HTTP, allowed.to_string().into());
                Ok(())
            }
            ("allowHttp", _, _) => Err("expected true or false".to_owned()),
            (_, Value::String(path), Some((_, variable))) => {
                resolve(path, dir, home).map(|path| drop(values.insert(variable, path.into())))
            }
            (_, _, Some(_)) => Err("expected the path of a file".to_owned()),
            (member, _, None) => {
                problems.push(unknown(place, member, &known_members()));
                Ok(())
            }
        };
        if let Err(problem) = done {
            problems.push(format!("{place}.{member}: {problem}"));
        }
    }
    if is_missing(members, "url") {
        problems.push(format!(
            "{place}.url: missing; set it to the base URL of the task-run service"
        ));
    }
    if is_missing(members, "clientCertFile") != is_missing(members, "clientKeyFile") {
        problems.push(format!(
            "{place}: set both clientCertFile and clientKeyFile, or neither"
        ));
    }
    values
}

fn is_missing(members: &Map<String, Value>, member: &str) -> bool {
    members.get(member).is_none_or(Value::is_null)
}

fn known_members() -> String {
    let files = FILES.iter().map(|(member, _)| *member);
    ["url", "allowHttp"]
        .into_iter()
        .chain(files)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Resolves a path in the file: relative to the file's directory, or to the home directory after
/// `~/`.
fn resolve(path: &str, dir: &Path, home: Option<&Path>) -> Result<PathBuf, String> {
    match (path, path.strip_prefix("~/"), home) {
        ("", _, _) => Err("expected the path of a file".to_owned()),
        (_, Some(below), Some(home)) => Ok(home.join(below)),
        (_, Some(_), None) => {
            Err("cannot resolve ~, because HOME is not set; write the full path".to_owned())
        }
        (path, None, _) => Ok(dir.join(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "default: staging\nprofiles:\n  staging:\n    url: https://staging.example.com\n    tokenFile: token\n    \
                        caFile: ~/ca.pem\n  local:\n    url: http://ica.lan:8080\n    tokenFile: /t/local\n    allowHttp: true\n  mutual:\n    \
                        url: https://m.example.com\n    clientCertFile: c.pem\n    clientKeyFile: k.pem\n";

    struct Home(tempfile::TempDir);

    impl Home {
        fn with(text: &str) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::create_dir_all(dir.path().join(".config/podbeat")).expect("made");
            let home = Self(dir);
            std::fs::write(home.file(), text).expect("written");
            home
        }

        fn path(&self, below: &str) -> String {
            self.0.path().join(below).to_str().expect("text").to_owned()
        }

        fn file(&self) -> String {
            self.path(".config/podbeat/config.yaml")
        }

        fn load(
            &self,
            flags: &[(&'static str, &str)],
            variables: &[(&str, &str)],
        ) -> Result<Profiled<BTreeMap<String, String>>, Error> {
            let flags = Flags(
                flags
                    .iter()
                    .map(|(name, value)| (*name, value.into()))
                    .collect(),
            );
            let mut environment: BTreeMap<String, String> = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            environment
                .entry("HOME".to_owned())
                .or_insert_with(|| self.path(""));
            Profiled::load(&flags, environment)
        }

        /// The name of the profile, and the values of the settings.
        fn seen(
            &self,
            flags: &[(&'static str, &str)],
            variables: &[(&str, &str)],
        ) -> (Option<String>, Vec<Option<String>>) {
            let loaded = self.load(flags, variables).expect("right");
            let values = [URL, TOKEN_FILE, "PODBEAT_CA_FILE", ALLOW_HTTP].map(|variable| {
                loaded
                    .get(variable)
                    .map(|value| value.into_string().expect("text"))
            });
            (
                loaded.profile().map(|profile| profile.name.clone()),
                values.into(),
            )
        }
    }

    #[test]
    fn flags_and_variables_take_precedence_over_a_profile() {
        let home = Home::with(FILE);
        let some = |text: &str| Some(text.to_owned());
        let staging = vec![
            some("https://staging.example.com"),
            some(&home.path(".config/podbeat/token")),
            some(&home.path("ca.pem")),
            None,
        ];
        assert_eq!(
            home.seen(&[], &[]),
            (some("staging"), staging.clone()),
            "the default"
        );
        assert_eq!(
            home.seen(&[(PROFILE, "staging")], &[(PROFILE, "local")]),
            (some("staging"), staging)
        );
        let (name, values) = home.seen(&[], &[(PROFILE, "local"), (TOKEN_FILE, "/mine")]);
        assert_eq!(name, some("local"));
        assert_eq!(
            values,
            [
                some("http://ica.lan:8080"),
                some("/mine"),
                None,
                some("true")
            ]
        );
        let (_, values) = home.seen(&[(TOKEN, "t")], &[(PROFILE, "local"), (URL, " ")]);
        assert_eq!(
            values,
            [some("http://ica.lan:8080"), None, None, some("true")],
            "one token, and white space is nothing"
        );
        let mutual = home
            .load(&[(PROFILE, "mutual")], &[(CERT_FILE, "/c")])
            .expect("right");
        assert_eq!(
            (mutual.get(CERT_FILE), mutual.get(KEY_FILE)),
            (Some("/c".into()), None),
            "a pair"
        );
    }

    #[test]
    fn a_service_named_otherwise_gets_neither_the_default_nor_plain_http() {
        let home = Home::with(FILE);
        let other = "https://other.example.com";
        let (name, values) = home.seen(&[], &[(URL, other)]);
        assert_eq!(
            (name, values),
            (None, vec![Some(other.to_owned()), None, None, None])
        );
        let (name, values) = home.seen(&[(PROFILE, "local")], &[(URL, "http://other")]);
        assert_eq!(
            (name.as_deref(), values[3].as_deref()),
            (Some("local"), None)
        );
        assert_eq!(
            home.seen(&[(PROFILE, "")], &[]).0,
            None,
            "an empty flag chooses none"
        );
    }

    #[test]
    fn the_file_is_found_where_xdg_has_it_or_where_it_is_named() {
        let home = Home::with(FILE);
        let missing = home.path("elsewhere");
        let config = home.path(".config");
        assert_eq!(
            home.seen(&[], &[("XDG_CONFIG_HOME", &config), ("HOME", &missing)])
                .0
                .as_deref(),
            Some("staging")
        );
        assert_eq!(
            home.seen(&[], &[("XDG_CONFIG_HOME", "relative")])
                .0
                .as_deref(),
            Some("staging")
        );
        assert_eq!(
            home.seen(&[], &[("HOME", &missing)]).0,
            None,
            "no file is no error"
        );
        assert_eq!(home.seen(&[], &[("HOME", "")]).0, None);
        assert_eq!(
            home.seen(&[(CONFIG, &home.file())], &[("HOME", &missing)])
                .0
                .as_deref(),
            Some("staging")
        );
        let told = |flags: &[(&'static str, &str)], variables: &[(&str, &str)]| {
            let error = home.load(flags, variables).expect_err("wrong");
            podbeat_interface::exit::with_causes(&error)
        };
        assert!(
            told(&[], &[(CONFIG, &missing)])
                .starts_with(&format!("cannot read profiles from {missing}"))
        );
        assert!(
            told(&[(PROFILE, "x")], &[("HOME", &missing)])
                .contains("elsewhere/.config/podbeat/config.yaml does not exist")
        );
        assert!(told(&[(PROFILE, "x")], &[("HOME", "")]).contains("set PODBEAT_CONFIG"));
        let unknown = told(&[(PROFILE, "stagin")], &[]);
        assert!(
            unknown.contains(&home.file()) && unknown.contains(r#"unknown profile "stagin""#),
            "{unknown}"
        );
        assert!(
            unknown.ends_with(r#"the file has "local", "mutual", "staging""#),
            "{unknown}"
        );
        assert_eq!(
            names(
                &Flags::default(),
                &BTreeMap::from([("HOME".to_owned(), home.path(""))])
            ),
            ["local", "mutual", "staging"]
        );
    }

    #[test]
    fn errors_in_the_file_show_the_position_and_never_the_value() {
        for (text, expected) in [
            (
                "profiles: {a: {url: https://h, ulr: hunter2}}",
                "profiles.a.ulr: unknown member",
            ),
            (
                "profiles: {a: {url: https://h, token: hunter2}}",
                "profiles.a.token: do not put secrets into this file",
            ),
            (
                "profiles: {a: {url: https://h, bearerToken: hunter2}}",
                "profiles.a.bearerToken: do not put secrets",
            ),
            (
                "profiles: {a: {url: https://h, password: hunter2}}",
                "profiles.a.password: do not put secrets",
            ),
            ("token: hunter2", "token: do not put secrets"),
            (
                "profile: hunter2",
                "profile: unknown member; known members: default and profiles",
            ),
            (
                "default: b\nprofiles: {a: {url: https://h}}",
                "default: unknown profile \"b\"",
            ),
            ("default: [hunter2]", "default: expected the name"),
            ("profiles: [hunter2]", "profiles: expected an object"),
            ("profiles: {a: hunter2}", "profiles.a: expected an object"),
            ("profiles: {a: {tokenFile: t}}", "profiles.a.url: missing"),
            (
                "profiles: {a: {url: 7}}",
                "profiles.a.url: expected the base URL",
            ),
            (
                "profiles: {a: {url: 'https://u:hunter2@h'}}",
                "profiles.a.url: contains credentials",
            ),
            (
                "profiles: {a: {url: 'http://hunter2.lan'}}",
                "allowHttp: true allows it",
            ),
            (
                "profiles: {a: {url: https://h, allowHttp: hunter2}}",
                "profiles.a.allowHttp: expected true or false",
            ),
            (
                "profiles: {a: {url: https://h, tokenFile: [hunter2]}}",
                "profiles.a.tokenFile: expected the path",
            ),
            (
                "profiles: {a: {url: https://h, clientKeyFile: hunter2}}",
                "profiles.a: set both clientCertFile and clientKeyFile",
            ),
            (
                "profiles: {a: {url: https://h}, a: {url: hunter2}}",
                "duplicate member",
            ),
            ("profiles: {a: [", "not valid JSON or YAML"),
            ("{}\n---\n{}", "expected one object"),
            ("hunter2", "expected one object"),
        ] {
            let home = Home::with(text);
            let told = home.load(&[], &[]).expect_err(text).to_string();
            assert!(
                told.starts_with(&home.file()) && told.contains(expected),
                "{text}: {told}"
            );
            assert!(!told.contains("hunter2"), "{text}: {told}");
        }
        for empty in ["", "# nothing\n", "profiles: {}", "default:\nprofiles:\n"] {
            assert_eq!(Home::with(empty).seen(&[], &[]).0, None, "{empty:?}");
        }
        let large = Home::with(&format!("# {}", "x".repeat(70_000)));
        let told = podbeat_interface::exit::with_causes(&large.load(&[], &[]).expect_err("large"));
        assert!(told.contains("larger than 64 KiB"), "{told}");
    }
}
