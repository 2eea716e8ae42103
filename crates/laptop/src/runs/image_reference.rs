//! Checks whether a text names a container image, by the grammar of registries and of Kubernetes
//! (<https://pkg.go.dev/github.com/distribution/reference>). Pure.

// From `core`, because only the syntax of an address is needed, no sockets.
use core::net::Ipv6Addr;

/// The maximum length of a repository including its registry, in characters (`NameTotalLengthMax`
/// in that package).
const LONGEST_NAME: usize = 255;

/// The maximum length of a tag, in characters.
const LONGEST_TAG: usize = 128;

/// Why an image is invalid. It contains no part of the image, because the image can contain a
/// misplaced password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no name.
    #[error("the image has no name")]
    Nameless,
    /// The name is too long.
    #[error("the image's name has more than 255 characters")]
    Long,
    /// Upper-case letters after the registry.
    #[error(
        "the image's repository has upper-case letters; only the registry and the tag can have them"
    )]
    UpperCase,
    /// The registry is neither a host nor a host and a port.
    #[error("the image's registry must be HOST or HOST:PORT")]
    Registry,
    /// The repository is malformed in another way.
    #[error(
        "the image's repository is malformed: use names of a-z and 0-9, joined by '/'; a name can have '.', '_', '__' or '-' inside"
    )]
    Repository,
    /// Docker would read the name as an image ID.
    #[error("the image's name is 64 hexadecimal digits; this is an image ID, not a name")]
    Id,
    /// The tag is invalid.
    #[error(
        "the image's tag is malformed: use at most 128 letters, digits, '_', '.' and '-', and do not start with '.' or '-'"
    )]
    Tag,
    /// The digest is invalid.
    #[error(
        "the image's digest is malformed: use sha256: and 64 hexadecimal digits in lower case, or sha384, or sha512"
    )]
    Digest,
    /// The name already has a tag or a digest, and another one is given.
    #[error("the image's name already has a tag or a digest, but another one is given")]
    Twice,
}

/// Splits `NAME[:TAG][@DIGEST]` into its parts, without checking them. A colon before the last
/// slash belongs to the registry's port.
#[must_use]
pub fn parts(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest)),
        None => (text, None),
    };
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag), digest),
        _ => (text, None, digest),
    }
}

/// Checks an image by its members. The name can contain a tag and a digest that are not given
/// separately.
///
/// # Errors
/// The first problem of the image.
pub fn check(name: &str, tag: Option<&str>, digest: Option<&str>) -> Result<(), Unfit> {
    let (repository, tag_of_name, digest_of_name) = parts(name);
    if (tag.is_some() && tag_of_name.is_some()) || (digest.is_some() && digest_of_name.is_some()) {
        return Err(Unfit::Twice);
    }
    check_repository(repository)?;
    if !tag.or(tag_of_name).is_none_or(is_tag) {
        return Err(Unfit::Tag);
    }
    if !digest.or(digest_of_name).is_none_or(is_digest) {
        return Err(Unfit::Digest);
    }
    Ok(())
}

fn check_repository(text: &str) -> Result<(), Unfit> {
    if text.is_empty() {
        return Err(Unfit::Nameless);
    }
    if text.len() > LONGEST_NAME {
        return Err(Unfit::Long);
    }
    // The rule by which Docker distinguishes a registry from the first component of a path.
    let path = match text.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.contains(|letter: char| letter.is_ascii_uppercase()) =>
        {
            if !is_registry(first) {
                return Err(Unfit::Registry);
            }
            path
        }
        _ => text,
    };
    if path.contains(|letter: char| letter.is_ascii_uppercase()) {
        return Err(Unfit::UpperCase);
    }
    if !path.split('/').all(is_component) {
        return Err(Unfit::Repository);
    }
    if text.len() == 64 && text.bytes().all(is_lower_hex) {
        return Err(Unfit::Id);
    }
    Ok(())
}

fn is_registry(text: &str) -> bool {
    let host_and_port = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => Some((host, None, true)),
            Some((host, port)) => port.strip_prefix(':').map(|port| (host, Some(port), true)),
            None => None,
        },
        None => match text.split_once(':') {
            Some((host, port)) => Some((host, Some(port), false)),
            None => Some((text, None, false)),
        },
    };
    let Some((host, port, is_ipv6)) = host_and_port else {
        return false;
    };
    let is_host = match is_ipv6 {
        true => host.parse::<Ipv6Addr>().is_ok(),
        false => host.split('.').all(|label| {
            let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(is_letter)
        }),
    };
    is_host
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Letters and digits, separated by `.`, `_`, `__` or any number of dashes.
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_separator = |text: &str| {
        matches!(text, "." | "_" | "__")
            || (!text.is_empty() && text.chars().all(|letter| letter == '-'))
    };
    let mut separators = text
        .split(is_alphanumeric)
        .filter(|between| !between.is_empty());
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && separators.all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.len() <= LONGEST_TAG
        && text.starts_with(is_word)
        && text
            .chars()
            .all(|letter| is_word(letter) || matches!(letter, '.' | '-'))
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_digest(text: &str) -> bool {
    let digits = match text.split_once(':') {
        Some(("sha256", hex)) => Some((hex, 64)),
        Some(("sha384", hex)) => Some((hex, 96)),
        Some(("sha512", hex)) => Some((hex, 128)),
        Some(_) | None => None,
    };
    digits.is_some_and(|(hex, length)| hex.len() == length && hex.bytes().all(is_lower_hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), Unfit> {
        check(text, None, None)
    }

    #[test]
    fn references_are_those_of_registries() {
        let hex = "0123456789abcdef".repeat(4);
        for right in [
            "i",
            "busybox:1.36",
            "library/busybox",
            "registry.example.com/align:2.1",
            "registry.example.com:5000/team/align",
            "localhost/align",
            "localhost:5000/align:v1",
            "10.0.0.1:5000/a/b/c",
            "[2001:db8::1]/a",
            "[2001:db8::1]:5000/a:t",
            "Registry/align",
            "REGISTRY.example/align:LATEST",
            "x/a.b_c__d---e/f0",
            &format!("i@sha256:{hex}"),
            &format!("r.example:1/i:t@sha256:{hex}"),
            &format!("i@sha512:{hex}{hex}"),
            &format!("i:{}", "t".repeat(128)),
        ] {
            assert_eq!(checked(right), Ok(()), "{right}");
        }
        let wrong: &[(&str, Unfit)] = &[
            ("", Unfit::Nameless),
            (":tag", Unfit::Nameless),
            ("Registry/UPPER:::x", Unfit::UpperCase),
            ("Align", Unfit::UpperCase),
            ("team/Align:1", Unfit::UpperCase),
            ("a:::x", Unfit::Repository),
            ("a//b", Unfit::Repository),
            ("/a", Unfit::Repository),
            ("a/", Unfit::Repository),
            ("a..b", Unfit::Repository),
            ("a___b", Unfit::Repository),
            ("-a", Unfit::Repository),
            ("a_", Unfit::Repository),
            ("a b", Unfit::Repository),
            ("ä", Unfit::Repository),
            ("https://registry.example/a", Unfit::Registry),
            ("registry.example:port/a", Unfit::Registry),
            ("registry.example:/a", Unfit::Registry),
            ("-r.example/a", Unfit::Registry),
            ("[::g]/a", Unfit::Registry),
            ("r_x.example/a", Unfit::Registry),
            ("a:", Unfit::Tag),
            ("a:.t", Unfit::Tag),
            ("a:t+1", Unfit::Tag),
            ("a@", Unfit::Digest),
            ("a@sha256:abc", Unfit::Digest),
            ("a@md5:0123456789abcdef0123456789abcdef", Unfit::Digest),
        ];
        for (text, unfit) in wrong {
            assert_eq!(checked(text), Err(*unfit), "{text}");
        }
        assert_eq!(checked(&format!("i:{}", "t".repeat(129))), Err(Unfit::Tag));
        assert_eq!(checked(&"a".repeat(256)), Err(Unfit::Long));
        assert_eq!(checked(&hex), Err(Unfit::Id));
        assert_eq!(
            checked(&format!("i@sha256:{}", hex.to_uppercase())),
            Err(Unfit::Digest)
        );
    }

    #[test]
    fn members_are_checked_together() {
        assert_eq!(check("a", Some("t"), None), Ok(()));
        assert_eq!(check("r:1/a", Some("t"), None), Ok(()));
        assert_eq!(check("a:t", Some("t"), None), Err(Unfit::Twice));
        assert_eq!(check("a", Some(""), None), Err(Unfit::Tag));
        assert_eq!(check("a", None, Some("t")), Err(Unfit::Digest));
    }
}
