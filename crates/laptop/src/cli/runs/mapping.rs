//! Flags whose value is a list of keys with their values, such as
//! `path=/data/a,url=s3://bucket/a`, as for `docker run --mount`.
//!
//! A value can contain commas if the whole pair is in double quotes, as in CSV (RFC 4180). No error
//! contains a value, and a key only if podbeat knows it: the text may be a misplaced secret.

use std::path::PathBuf;

use podbeat_interface::nearest::nearest;
use podbeat_task_runs::model::{
    InputMountMappingWithCreds, InputStreamSettings, Location, MountMappingWithCreds, Number,
    SystemFiles,
};

/// The key for the file with the credentials of a storage.
const CREDENTIALS_FILE: &str = "credentials-file";

/// A flag with such a value: its name, and its keys in the order of the help.
pub struct Keys {
    /// The flag's ID and long form.
    pub flag: &'static str,
    /// The keys.
    pub keys: &'static [&'static str],
}

/// The flag for an input.
pub(super) const INPUT: Keys = Keys {
    flag: "input-mount",
    keys: &[
        "path",
        "url",
        "urn",
        "type",
        "mode",
        "storage-provider",
        CREDENTIALS_FILE,
    ],
};

/// The flag for an output.
pub(super) const OUTPUT: Keys = Keys {
    flag: "output-mount",
    keys: &[
        "path",
        "url",
        "urn",
        "type",
        "service-url",
        "storage-provider",
        CREDENTIALS_FILE,
    ],
};

/// The flag for the place of the service's own files.
pub(super) const SYSTEM_FILES: Keys = Keys {
    flag: "system-files",
    keys: &["url", "urn", "storage-provider", CREDENTIALS_FILE],
};

/// The flag for how inputs are streamed.
pub(super) const INPUT_STREAM: Keys = Keys {
    flag: "input-stream",
    keys: &[
        "access-pattern",
        "cache-size-gb",
        "block-size-mb",
        "prefetch-blocks",
    ],
};

/// All flags with such a value.
pub static ALL: [Keys; 4] = [INPUT, OUTPUT, SYSTEM_FILES, INPUT_STREAM];

/// Why a value is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMapping {
    /// A part is no key with a value.
    #[error("must be KEY=VALUE, or several separated by commas; the keys are {}", .0.join(", "))]
    Form(&'static [&'static str]),
    /// A key is unknown, but similar to a known one.
    #[error(
        "unknown key; did you mean {0}? A value with a comma needs double quotes around its whole KEY=VALUE"
    )]
    Similar(&'static str),
    /// A key is unknown.
    #[error(
        "unknown key; the keys are {}. A value with a comma needs double quotes around its whole KEY=VALUE",
        .0.join(", ")
    )]
    Unknown(&'static [&'static str]),
    /// A key occurs twice.
    #[error("has the key {0} twice")]
    Twice(&'static str),
    /// A key has an empty value.
    #[error("the value of {0} is empty")]
    Empty(&'static str),
    /// A value is not a whole number.
    #[error("the value of {0} must be a whole number")]
    Whole(&'static str),
    /// A value is not a number.
    #[error("the value of {0} must be a number")]
    Number(&'static str),
    /// Quotes do not enclose a whole pair.
    #[error("double quotes must enclose a whole KEY=VALUE; write a quote inside them twice")]
    Quotes,
}

/// A part of the request, and the file with its credentials.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mapping<T> {
    pub(super) part: T,
    pub(super) credentials_file: Option<PathBuf>,
}

impl<T> Mapping<T> {
    /// Parses the value of a flag. `part` takes its keys.
    fn read(
        text: &str,
        keys: &Keys,
        part: impl FnOnce(&mut Pairs) -> T,
    ) -> Result<Self, InvalidMapping> {
        let mut pairs = Pairs::new(text, keys)?;
        Ok(Self {
            part: part(&mut pairs),
            credentials_file: pairs.text(CREDENTIALS_FILE).map(PathBuf::from),
        })
    }
}

/// Parses an input.
pub(super) fn input(text: &str) -> Result<Mapping<InputMountMappingWithCreds>, InvalidMapping> {
    Mapping::read(text, &INPUT, |pairs| InputMountMappingWithCreds {
        credentials: None,
        mode: pairs.text("mode"),
        path: pairs.text("path"),
        storage_provider: pairs.text("storage-provider"),
        r#type: pairs.text("type"),
        url: pairs.location("url"),
        urn: pairs.text("urn"),
    })
}

/// Parses an output.
pub(super) fn output(text: &str) -> Result<Mapping<MountMappingWithCreds>, InvalidMapping> {
    Mapping::read(text, &OUTPUT, |pairs| MountMappingWithCreds {
        credentials: None,
        path: pairs.text("path"),
        service_url: pairs.location("service-url"),
        storage_provider: pairs.text("storage-provider"),
        r#type: pairs.text("type"),
        url: pairs.location("url"),
        urn: pairs.text("urn"),
    })
}

/// Parses the place of the service's own files.
pub(super) fn system_files(text: &str) -> Result<Mapping<SystemFiles>, InvalidMapping> {
    Mapping::read(text, &SYSTEM_FILES, |pairs| SystemFiles {
        credentials: None,
        storage_provider: pairs.text("storage-provider"),
        url: pairs.location("url"),
        urn: pairs.text("urn"),
    })
}

/// Parses how inputs are streamed. The request's own check reports values outside a range.
pub(super) fn input_stream(text: &str) -> Result<InputStreamSettings, InvalidMapping> {
    let mut pairs = Pairs::new(text, &INPUT_STREAM)?;
    Ok(InputStreamSettings {
        access_pattern: pairs.text("access-pattern"),
        block_size_mb: pairs.number("block-size-mb")?,
        cache_size_gb: pairs.whole("cache-size-gb")?,
        prefetch_blocks: pairs.whole("prefetch-blocks")?,
    })
}

/// The keys of a value that were not taken yet, each with its value.
struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    fn new(text: &str, keys: &Keys) -> Result<Self, InvalidMapping> {
        let keys = keys.keys;
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        for part in split(text)? {
            let (typed, value) = part.split_once('=').ok_or(InvalidMapping::Form(keys))?;
            let known = keys.iter().copied().find(|key| *key == typed.trim());
            let key = known.ok_or_else(|| match nearest(typed, keys) {
                Some(key) => InvalidMapping::Similar(key),
                None => InvalidMapping::Unknown(keys),
            })?;
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(InvalidMapping::Twice(key));
            }
            if value.is_empty() {
                return Err(InvalidMapping::Empty(key));
            }
            pairs.push((key, value.to_owned()));
        }
        Ok(Self(pairs))
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| *other == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn location(&mut self, key: &str) -> Option<Location> {
        self.text(key).map(Location::new)
    }

    fn whole(&mut self, key: &'static str) -> Result<Option<i32>, InvalidMapping> {
        let value = self.text(key).map(|text| text.parse());
        value.transpose().map_err(|_| InvalidMapping::Whole(key))
    }

    fn number(&mut self, key: &'static str) -> Result<Option<Number>, InvalidMapping> {
        let value = self.text(key).map(|text| text.parse());
        value.transpose().map_err(|_| InvalidMapping::Number(key))
    }
}

/// The parts of a text between commas. A part in double quotes may contain commas, and quotes that
/// are written twice.
fn split(text: &str) -> Result<Vec<String>, InvalidMapping> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (part, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
                (part.to_owned(), behind)
            }
        };
        parts.push(part);
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None if behind.is_empty() => return Ok(parts),
            None => return Err(InvalidMapping::Quotes),
        }
    }
}

/// The part up to its closing quote, and the text behind that.
fn quoted_part(text: &str) -> Result<(String, &str), InvalidMapping> {
    let (mut part, mut rest) = (String::new(), text);
    loop {
        let (before, behind) = rest.split_once('"').ok_or(InvalidMapping::Quotes)?;
        part += before;
        match behind.strip_prefix('"') {
            Some(more) => {
                part.push('"');
                rest = more;
            }
            None => return Ok((part, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<serde_json::Value, InvalidMapping> {
        input(text).map(|mapping| serde_json::to_value(mapping.part).expect("JSON"))
    }

    #[test]
    fn every_key_becomes_its_member() {
        let mapping = input(
            "path=/data/a,url=s3://b/a?x=1&y=2,urn=urn:a,type=Folder,mode=stream,storage-provider=s3,credentials-file=/c",
        )
        .expect("an input");
        assert_eq!(
            serde_json::to_value(mapping.part).expect("JSON"),
            json!({"path": "/data/a", "url": "s3://b/a?x=1&y=2", "urn": "urn:a", "type": "Folder", "mode": "stream",
                "storageProvider": "s3"})
        );
        assert_eq!(mapping.credentials_file, Some(PathBuf::from("/c")));
        let mapping = output(
            "path=/o,url=s3://b/o,urn=urn:o,type=t,service-url=https://s,storage-provider=s3,credentials-file=c",
        )
        .expect("an output");
        assert_eq!(
            serde_json::to_value(mapping.part).expect("JSON"),
            json!({"path": "/o", "url": "s3://b/o", "urn": "urn:o", "type": "t", "serviceUrl": "https://s",
                "storageProvider": "s3"})
        );
        let mapping = system_files("url=gds://v,urn=urn:s,storage-provider=gds,credentials-file=c")
            .expect("system files");
        assert_eq!(
            serde_json::to_value(mapping.part).expect("JSON"),
            json!({"url": "gds://v", "urn": "urn:s", "storageProvider": "gds"})
        );
        let settings = input_stream(
            "access-pattern=random,cache-size-gb=70,block-size-mb=0.5,prefetch-blocks=0",
        )
        .expect("settings");
        assert_eq!(
            serde_json::to_value(settings).expect("JSON"),
            json!({"accessPattern": "random", "cacheSizeGB": 70, "blockSizeMB": 0.5, "prefetchBlocks": 0})
        );
    }

    #[test]
    fn a_quoted_pair_may_contain_commas_and_quotes() {
        for (text, url) in [
            (r#"path=/a,"url=s3://b/x,y""#, "s3://b/x,y"),
            (r#""url=s3://b/x,y",path=/a"#, "s3://b/x,y"),
            (r#""url=a""b",path=/a"#, "a\"b"),
            (r#"url=a"b,path=/a"#, "a\"b"),
            ("url=a=b=c,path=/a", "a=b=c"),
        ] {
            assert_eq!(read(text), Ok(json!({"path": "/a", "url": url})), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        use InvalidMapping::{Empty, Form, Quotes, Similar, Twice, Unknown};
        for (text, expected) in [
            ("", Form(INPUT.keys)),
            ("hunter2", Form(INPUT.keys)),
            ("path=/a,", Form(INPUT.keys)),
            (",path=/a", Form(INPUT.keys)),
            ("path=/a,hunter2", Form(INPUT.keys)),
            ("pth=/a", Similar("path")),
            ("Path=/a", Similar("path")),
            ("storageProvider=s3", Similar("storage-provider")),
            ("credentials=hunter2", Similar("credentials-file")),
            ("hunter2=hunter2", Unknown(INPUT.keys)),
            ("=hunter2", Unknown(INPUT.keys)),
            ("path=/a,path=/b", Twice("path")),
            ("path=", Empty("path")),
            (r#""path=/a"#, Quotes),
            (r#""path=/a"x,url=u"#, Quotes),
            (r#"""#, Quotes),
        ] {
            assert_eq!(read(text), Err(expected), "{text}");
        }
        assert_eq!(
            input_stream("cache-size-gb=1.5"),
            Err(InvalidMapping::Whole("cache-size-gb"))
        );
        assert_eq!(
            input_stream("block-size-mb=x"),
            Err(InvalidMapping::Number("block-size-mb"))
        );
        assert_eq!(
            Similar("path").to_string(),
            "unknown key; did you mean path? A value with a comma needs double quotes around its whole KEY=VALUE"
        );
    }

    proptest! {
        #[test]
        fn quoted_values_are_read_back(path in "\\PC{1,20}", url in "[a-z,=\"]{1,20}") {
            let quoted = |pair: String| format!("\"{}\"", pair.replace('"', "\"\""));
            let text = [quoted(format!("path={path}")), quoted(format!("url={url}"))].join(",");
            prop_assert_eq!(read(&text), Ok(json!({"path": path, "url": url})));
        }

        #[test]
        fn no_error_repeats_a_value(text in "(path|url|pth|x)?=?hunter2(,|\"|=)?(path=)?") {
            if let Err(error) = input(&text) {
                prop_assert!(!error.to_string().contains("hunter2"));
            }
        }
    }
}
