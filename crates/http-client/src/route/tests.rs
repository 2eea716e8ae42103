use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn proxies(variables: &[(&str, &str)]) -> Proxies {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Proxies::read(|variable| variables.get(variable).map(OsString::from))
}

fn route(variables: &[(&str, &str)], url: &str, plain_http: PlainHttp) -> Result<Route, Error> {
    proxies(variables).route(url.parse().expect("a URL"), plain_http)
}

/// Host and port of the proxy of a route.
fn by(variables: &[(&str, &str)], url: &str) -> Option<String> {
    let route = route(variables, url, PlainHttp::Anywhere).expect("a way");
    route.proxy().map(ToString::to_string)
}

/// Whether NO_PROXY makes a destination bypass its proxy.
fn excepted(no_proxy: &str, url: &str) -> bool {
    let proxy = "http://proxy.example:3128";
    let proxies = [
        ("https_proxy", proxy),
        ("http_proxy", proxy),
        ("no_proxy", no_proxy),
    ];
    by(&proxies, url).is_none()
}

#[test]
fn plain_http_does_not_use_the_proxy_of_a_kubeconfig() {
    let by = |url: &str| {
        Route::by(
            url.parse().expect("a URL"),
            "proxy-url",
            "http://proxy.example:3128",
        )
    };
    assert!(
        by("https://10.0.0.1:6443")
            .expect("a route")
            .proxy()
            .is_some()
    );
    let refused = by("http://10.0.0.1:8080").expect_err("in clear text");
    assert!(refused.to_string().contains("use https"), "{refused}");
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let route = by(&format!("http://{host}:8001")).expect("a route");
        assert_eq!(route.way(), &Way::Loopback, "{host}");
    }
}

#[test]
fn the_proxy_variable_depends_on_the_scheme() {
    let (https, http, all) = (
        ("HTTPS_PROXY", "http://https.example:1"),
        ("HTTP_PROXY", "http://http.example:2"),
        ("ALL_PROXY", "http://all.example:3"),
    );
    for (variables, url, expected) in [
        (
            &[https, http, all][..],
            "https://ica.example",
            Some("https.example:1"),
        ),
        (
            &[https, http, all],
            "http://ica.example",
            Some("http.example:2"),
        ),
        (&[http, all], "https://ica.example", Some("all.example:3")),
        (&[https, all], "http://ica.example", Some("all.example:3")),
        (&[https], "http://ica.example", None),
        (&[http], "https://ica.example", None),
        (&[], "https://ica.example", None),
        // An empty variable counts as unset.
        (
            &[("HTTPS_PROXY", " "), all],
            "https://ica.example",
            Some("all.example:3"),
        ),
        // Lower case has precedence.
        (
            &[https, ("https_proxy", "http://lower.example:4")],
            "https://ica.example",
            Some("lower.example:4"),
        ),
        (
            &[("http_proxy", "lower.example:4")],
            "http://ica.example",
            Some("lower.example:4"),
        ),
        (
            &[("all_proxy", "lower.example:4")],
            "http://ica.example",
            Some("lower.example:4"),
        ),
        (
            &[https, ("no_proxy", "ica.example")],
            "https://ica.example",
            None,
        ),
        (
            &[https, ("NO_PROXY", "ica.example")],
            "https://ica.example",
            None,
        ),
        (
            &[
                https,
                ("NO_PROXY", "ica.example"),
                ("no_proxy", "other.example"),
            ],
            "https://ica.example",
            Some("https.example:1"),
        ),
        // Under CGI, the client can set HTTP_PROXY.
        (
            &[http, ("REQUEST_METHOD", "GET")],
            "http://ica.example",
            None,
        ),
        (
            &[("http_proxy", "lower.example:4"), ("REQUEST_METHOD", "GET")],
            "http://ica.example",
            Some("lower.example:4"),
        ),
    ] {
        assert_eq!(
            by(variables, url).as_deref(),
            expected,
            "{variables:?} {url}"
        );
    }
}

#[test]
fn a_proxy_is_read_from_its_url() {
    for (value, host, port, encrypted, credentials) in [
        (
            "http://proxy.example:3128",
            "proxy.example",
            3128,
            false,
            None,
        ),
        ("proxy.example:3128", "proxy.example", 3128, false, None),
        ("proxy.example", "proxy.example", 80, false, None),
        (
            " http://PROXY.example/path?x ",
            "proxy.example",
            80,
            false,
            None,
        ),
        ("https://proxy.example", "proxy.example", 443, true, None),
        ("http://[fd00::1]:3128/", "fd00::1", 3128, false, None),
        (
            "http://user:p%40ss%3a@proxy.example",
            "proxy.example",
            80,
            false,
            Some("user:p@ss:"),
        ),
        (
            "http://user:p@ss@proxy.example",
            "proxy.example",
            80,
            false,
            Some("user:p@ss"),
        ),
        (
            "user@proxy.example:1",
            "proxy.example",
            1,
            false,
            Some("user:"),
        ),
        (
            "http://:secret@proxy.example",
            "proxy.example",
            80,
            false,
            Some(":secret"),
        ),
    ] {
        let route = route(
            &[("HTTPS_PROXY", value)],
            "https://ica.example",
            PlainHttp::Loopback,
        );
        let route = route.expect(value);
        let proxy = route.proxy().expect(value);
        assert_eq!(
            (
                proxy.host(),
                proxy.port,
                proxy.is_encrypted(),
                proxy.named_by()
            ),
            (host, port, encrypted, "HTTPS_PROXY"),
            "{value}"
        );
        let expected = credentials.map(|text| format!("Basic {}", BASE64_STANDARD.encode(text)));
        let authorization = proxy
            .authorization()
            .map(|value| value.to_str().expect("ASCII"));
        assert_eq!(authorization, expected.as_deref(), "{value}");
        assert_eq!(route.next_hop(), (host, port));
    }
}

#[test]
fn an_invalid_proxy_is_reported_without_its_value() {
    for (value, problem) in [
        ("http://user:hunter2@", Unusable::NotAUrl),
        ("http://user:hunter2@pro xy", Unusable::NotAUrl),
        ("http://proxy:hunter2", Unusable::NotAUrl),
        ("socks5://user:hunter2@proxy:1080", Unusable::Kind),
        ("hunter2://proxy", Unusable::Kind),
    ] {
        let variables = [("ALL_PROXY", value)];
        let error = route(&variables, "https://ica.example", PlainHttp::Loopback).expect_err(value);
        assert_eq!(
            error,
            Error::Proxy {
                named_by: "ALL_PROXY",
                problem
            }
        );
        let shown = format!("{error} {error:?} {:?}", proxies(&variables));
        assert!(
            !shown.contains("hunter2") && shown.contains("ALL_PROXY"),
            "{shown}"
        );
        // A proxy that is not used causes no error.
        assert!(route(&variables, "https://localhost", PlainHttp::Loopback).is_ok());
    }
    let password = [("HTTPS_PROXY", "http://user:hunter2@proxy")];
    let route = route(&password, "https://ica.example", PlainHttp::Loopback).expect("a way");
    let shown = format!(
        "{route:?} {:?} {}",
        proxies(&password),
        route.proxy().expect("one")
    );
    assert!(
        !shown.contains("hunter2") && !shown.contains("aHVudGVyMg"),
        "{shown}"
    );
}

/// The expected values are those of curl 8. Entries with a port, entries that contain a star, and a
/// star among other entries follow Go instead, and so kubectl.
#[test]
fn exceptions() {
    for (no_proxy, url, expected) in [
        ("*", "https://ica.example", true),
        (" * ", "https://10.0.0.1", true),
        ("a.example,*", "https://ica.example", true),
        ("ica.example", "https://ica.example", true),
        ("ICA.example", "https://ica.EXAMPLE:8443/path", true),
        ("ica.example.", "https://ica.example", true),
        ("ica.example", "https://ica.example.", true),
        ("example", "https://ica.example", true),
        (".example", "https://ica.example", true),
        (".ica.example", "https://ica.example", true),
        ("*.example", "https://ica.example", true),
        ("example", "https://icaexample", false),
        ("ca.example", "https://ica.example", false),
        ("sub.ica.example", "https://ica.example", false),
        ("a.example, ica.example", "https://ica.example", true),
        ("a.example ica.example", "https://ica.example", true),
        (",, ,ica.example,", "https://ica.example", true),
        ("", "https://ica.example", false),
        (".", "https://ica.example", false),
        ("ica.example:443", "https://ica.example", true),
        ("ica.example:443", "https://ica.example:8443", false),
        ("ica.example:8443", "https://ica.example:8443", true),
        ("ica.example:80", "http://ica.example", true),
        ("ica.example:", "https://ica.example", false),
        ("ica.example:https", "https://ica.example", false),
        (".example:8443", "https://ica.example:8443", true),
        ("10.0.0.1", "https://10.0.0.1", true),
        ("10.0.0.1", "https://10.0.0.10", false),
        ("10.1", "https://10.0.0.1", false),
        ("0x0a000001", "https://10.0.0.1", false),
        ("10.0.0.1.", "https://10.0.0.1", false),
        ("*10.0.0.1", "https://10.0.0.1", false),
        ("10.0.0.1:6443", "https://10.0.0.1:6443", true),
        ("10.0.0.1:6443", "https://10.0.0.1", false),
        ("10.0.0.0/8", "https://10.250.0.1", true),
        ("10.1.2.3/8", "https://10.250.0.1", true),
        ("10.0.0.0/8", "https://11.0.0.1", false),
        ("10.0.0.0/0", "https://11.0.0.1", true),
        ("10.0.0.1/32", "https://10.0.0.1", true),
        ("10.0.0.1/33", "https://10.0.0.1", false),
        ("10.0.0.0/", "https://10.0.0.1", false),
        ("10.0.0.0/8", "https://ica.example", false),
        ("fd00::1", "https://[fd00::1]", true),
        ("[fd00::1]", "https://[fd00::1]", true),
        ("FD00:0::1", "https://[fd00::1]", true),
        ("[fd00::1]:6443", "https://[fd00::1]:6443", true),
        ("[fd00::1]:6443", "https://[fd00::1]", false),
        ("fd00::/8", "https://[fd12::1]", true),
        ("[fd00::]/8", "https://[fd12::1]", true),
        ("fd00::/8", "https://[fe12::1]", false),
        ("::/0", "https://10.0.0.1", false),
        ("::ffff:10.0.0.1", "https://10.0.0.1", true),
        ("10.0.0.0/8", "https://[::ffff:10.0.0.1]", true),
        ("bücher.example", "https://xn--bcher-kva.example", true),
        ("https://ica.example", "https://ica.example", false),
    ] {
        assert_eq!(
            excepted(no_proxy, url),
            expected,
            "NO_PROXY={no_proxy:?} {url}"
        );
    }
}

#[test]
fn loopback_uses_no_proxy() {
    for host in [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ica.localhost",
        "127.0.0.1",
        "127.1.2.3",
        "127.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        for scheme in ["http", "https"] {
            let proxy = "http://proxy.example";
            let all = [
                ("http_proxy", proxy),
                ("https_proxy", proxy),
                ("all_proxy", proxy),
            ];
            let url = format!("{scheme}://{host}:8443");
            for plain_http in [PlainHttp::Loopback, PlainHttp::Direct, PlainHttp::Anywhere] {
                let route = route(&all, &url, plain_http).expect("a way");
                let only = scheme == "http" && plain_http != PlainHttp::Anywhere;
                let expected = if only { Way::Loopback } else { Way::Direct };
                assert_eq!(*route.way(), expected, "{url} {plain_http:?}");
                assert_eq!(
                    route.passed_over(),
                    Some(&*format!(
                        "{scheme}_proxy is not used, since the host is this machine itself"
                    ))
                );
            }
        }
    }
    for host in [
        "localhost.example",
        "notlocalhost",
        "128.0.0.1",
        "[::2]",
        "0.0.0.0",
    ] {
        let url = format!("https://{host}");
        assert!(
            by(&[("all_proxy", "proxy.example")], &url).is_some(),
            "{host}"
        );
    }
}

#[test]
fn plain_http_uses_a_proxy_only_if_plain_http_is_allowed_everywhere() {
    let proxy = [("http_proxy", "http://proxy.example")];
    let way = |plain_http| {
        let route = route(&proxy, "http://ica.example", plain_http).expect("a way");
        route.way().clone()
    };
    assert_eq!(way(PlainHttp::Loopback), Way::Loopback);
    assert_eq!(way(PlainHttp::Direct), Way::Direct);
    assert!(matches!(way(PlainHttp::Anywhere), Way::Proxy(_)));
    let parsed: Route = "http://ica.example".parse().expect("a way");
    assert_eq!(*parsed.way(), Way::Loopback);
}

#[test]
fn a_url_is_shown_without_possible_secrets() {
    for (url, expected) in [
        (
            "https://user:hunter2@ica.example:8443/a/?key=hunter2#hunter2",
            "https://ica.example:8443/a",
        ),
        ("https://ica.example", "https://ica.example"),
        ("https://hunter2@[fd00::1]/", "https://[fd00::1]"),
    ] {
        assert_eq!(shown(&url.parse().expect("a URL")), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_address_is_within_each_of_its_networks(bits: u128, is_short: bool, length in 0_u32..=128, other: u128) {
        let (address, length): (IpAddr, u32) = if is_short {
            let short = u32::try_from(bits >> 96).expect("32 bits");
            (std::net::Ipv4Addr::from_bits(short).into(), length / 4)
        } else {
            (Ipv6Addr::from_bits(bits).into(), length)
        };
        let url = format!("https://{}", authority(&address.to_string(), 443));
        prop_assume!(!is_loopback(&url.parse().expect("a URL")) && address.to_canonical() == address);
        let network = format!("{address}/{length}");
        prop_assert!(excepted(&network, &url));
        // The same network, written with another of its addresses.
        if !is_short && length > 0 {
            let kept = u128::MAX << (128 - length);
            let twin = Ipv6Addr::from_bits(bits & kept | other & !kept);
            let twin = format!("{twin}/{length}");
            prop_assert!(excepted(&twin, &url));
            let stranger = Ipv6Addr::from_bits(bits ^ (1 << (128 - length)));
            let stranger = format!("{stranger}/{length}");
            prop_assert!(!excepted(&stranger, &url));
        }
    }

    #[test]
    fn a_name_excludes_only_itself_and_its_subdomains(
        name in "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}",
        below in "[a-z]{1,8}",
        port in 1_u16..,
    ) {
        prop_assume!(!name.ends_with("localhost"));
        let at = |host: &str| format!("https://{host}:{port}");
        for entry in [name.clone(), format!(".{name}"), name.to_uppercase(), format!("{name}:{port}")] {
            prop_assert!(excepted(&entry, &at(&name)));
            let under = at(&[&below, ".", &name].concat());
            prop_assert!(excepted(&entry, &under));
            let longer = at(&format!("{below}{name}"));
            prop_assert!(!excepted(&entry, &longer));
            let other = format!("{name}:{}", port.wrapping_add(1).max(1));
            prop_assert!(!excepted(&other, &at(&name)));
        }
    }

    #[test]
    fn any_variables_give_a_route_or_an_error(
        proxy: String, no_proxy: String, host in "[a-z0-9.-]{1,20}|\\[[0-9a-f:]{2,10}\\]",
    ) {
        let Ok(url) = format!("https://{host}").parse::<Url>() else { return Ok(()) };
        let variables = [("all_proxy", proxy.as_str()), ("no_proxy", &no_proxy)];
        if let Ok(way) = proxies(&variables).route(url.clone(), PlainHttp::Loopback) {
            prop_assert!(way.proxy().is_none() || !is_loopback(&url));
        }
    }
}
