//! Headless Chromium through chromedriver: the few commands of WebDriver and the DevTools protocol
//! that these tests need.
//!
//! Dropping a browser ends chromedriver and all processes that it started, whatever the test's
//! result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Client, Method};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness;

/// How long a state may take to appear on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The time between two looks at a page.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Browser {
    driver: Child,
    client: Client,
    session: String,
    profile: TempDir,
}

/// A screenshot of the page in red, green and blue.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    pub(crate) fn at(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(x < self.width && y < self.height, "{x}, {y} is outside");
        self.pixels[y * self.width + x]
    }
}

/// A rectangle of the page, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) right: usize,
    pub(crate) bottom: usize,
}

impl Area {
    pub(crate) fn holds(self, x: usize, y: usize) -> bool {
        (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
    }
}

fn missing(program: &str, error: &std::io::Error) -> String {
    format!(
        "{program} can't be started ({error}): install Debian's packages chromium and chromium-driver"
    )
}

impl Browser {
    /// Starts a browser with its own profile.
    pub(crate) async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// Starts a browser with these preferences.
    pub(crate) async fn with(preferences: Value) -> Self {
        let chromium = std::process::Command::new("chromium")
            .arg("--version")
            .stderr(Stdio::null())
            .output();
        let chromium = chromium.unwrap_or_else(|error| panic!("{}", missing("chromium", &error)));
        assert!(
            chromium.status.success(),
            "chromium --version fails: {chromium:?}"
        );
        let profile = tempfile::tempdir().expect("a directory");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // A killed browser leaves its temporary files behind, so they are in the profile and
            // are removed with it.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}", missing("chromedriver", &error)));
        let mut lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
        let port = async {
            loop {
                let line = lines
                    .next_line()
                    .await
                    .expect("text")
                    .expect("chromedriver says its port");
                if let Some((_, port)) = line.split_once("successfully on port ") {
                    return port.trim_end_matches('.').to_owned();
                }
            }
        };
        let port = tokio::time::timeout(LIMIT, port)
            .await
            .expect("chromedriver starts");
        // Keeps reading, so that chromedriver never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let client = harness::client().timeout(LIMIT).build().expect("a client");
        let mut browser = Self {
            driver,
            client,
            session: format!("http://127.0.0.1:{port}/session"),
            profile,
        };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            "--force-device-scale-factor=1",
            "--window-size=1280,900",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", browser.profile.path().display()),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "unhandledPromptBehavior": "ignore",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments, "prefs": preferences}}}});
        let created = browser.ask(Method::POST, "", &capabilities).await;
        let id = created["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    /// Sends one command. Panics with chromedriver's error if it fails.
    async fn ask(&self, method: Method, command: &str, body: &Value) -> Value {
        self.try_ask(method, command, body)
            .await
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    async fn try_ask(&self, method: Method, command: &str, body: &Value) -> Result<Value, Value> {
        let mut request = self
            .client
            .request(method.clone(), format!("{}{command}", self.session));
        if method == Method::POST {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{command}: {error:?}"));
        let is_good = response.status().is_success();
        let bytes = response.bytes().await.expect("an answer");
        let mut answer: Value = serde_json::from_slice(&bytes).expect("JSON");
        let value = answer["value"].take();
        if is_good { Ok(value) } else { Err(value) }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.ask(Method::POST, "/url", &json!({"url": url})).await;
    }

    /// The result of a script.
    pub(crate) async fn get(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.ask(Method::POST, "/execute/sync", &body).await
    }

    /// Presses keys one after the other. WebDriver has its own characters for keys without one:
    /// U+E004 is Tab, and U+E007 Enter.
    pub(crate) async fn press(&self, keys: &str) {
        let key = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|each| [key("keyDown", each), key("keyUp", each)])
            .collect();
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.ask(Method::POST, "/actions", &body).await;
    }

    /// Waits until the page is loaded and an expression is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) {
        let script = format!("return document.readyState === 'complete' && !!({expression})");
        let wait = async {
            while self.get(&script).await != Value::Bool(true) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(LIMIT, wait).await.is_err() {
            let seen = self.get("return document.body.innerText").await;
            panic!("timed out while waiting for {what}; the page shows: {seen}");
        }
    }

    /// The result of a script that calls its only argument with it.
    pub(crate) async fn get_later(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.ask(Method::POST, "/execute/async", &body).await
    }

    /// Sends a command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.ask(Method::POST, "/goog/cdp/execute", &body).await
    }

    /// Sets the width and height of the visible page.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// Sets the color scheme: light or dark.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Whether a script has opened a dialog.
    pub(crate) async fn is_alerted(&self) -> bool {
        self.try_ask(Method::GET, "/alert/text", &Value::Null)
            .await
            .is_ok()
    }

    /// The log entries of this kind since the last call.
    async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self
            .ask(Method::POST, "/se/log", &json!({"type": kind}))
            .await;
        log.as_array().expect("entries").clone()
    }

    /// The console's messages.
    pub(crate) async fn console(&self) -> Vec<Value> {
        self.log("browser").await
    }

    /// The requested URLs, except those of Chromium's own first tab.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for entry in self.log("performance").await {
            let message: Value =
                serde_json::from_str(entry["message"].as_str().expect("a message")).expect("JSON");
            let parameters = &message["message"]["params"];
            let asks = message["message"]["method"] == "Network.requestWillBeSent";
            let document = parameters["documentURL"].as_str().unwrap_or_default();
            if asks && !document.starts_with("chrome://") {
                let url = &parameters["request"]["url"];
                urls.push(url.as_str().expect("a URL").to_owned());
            }
        }
        urls
    }

    /// A screenshot, which is also saved as target/page/NAME.png.
    pub(crate) async fn picture(&self, name: &str) -> Picture {
        let shot = self.ask(Method::GET, "/screenshot", &Value::Null).await;
        let bytes = BASE64_STANDARD
            .decode(shot.as_str().expect("base64"))
            .expect("base64");
        let directory = pictures();
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join(format!("{name}.png")), &bytes).expect("written");
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .expect("a PNG");
        let mut buffer = vec![0; reader.output_buffer_size().expect("a size")];
        let frame = reader.next_frame(&mut buffer).expect("a picture");
        assert_eq!(frame.bit_depth, png::BitDepth::Eight);
        let samples = frame.color_type.samples();
        assert!(samples >= 3, "{:?}", frame.color_type);
        let pixels = buffer[..frame.buffer_size()].chunks_exact(samples);
        Picture {
            width: usize::try_from(frame.width).expect("a width"),
            height: usize::try_from(frame.height).expect("a height"),
            pixels: pixels.map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        }
    }

    pub(crate) fn profile(&self) -> &Path {
        self.profile.path()
    }

    /// The rectangle of the first element that a selector finds.
    pub(crate) async fn area(&self, selector: &str) -> Area {
        let script = format!(
            "const box = document.querySelector({selector:?}).getBoundingClientRect();
             return [Math.ceil(box.left), Math.ceil(box.top), Math.floor(box.right), Math.floor(box.bottom)]"
        );
        let edges: Vec<usize> =
            serde_json::from_value(self.get(&script).await).expect("four edges on the page");
        Area {
            left: edges[0],
            top: edges[1],
            right: edges[2],
            bottom: edges[3],
        }
    }
}

/// The directory of the saved screenshots.
fn pictures() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory");
    target.join("page")
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium may have its own process group. So kill the process tree, and all processes that
        // use the profile, which only this browser has.
        let mut doomed = self.driver.id().map(descendants).unwrap_or_default();
        doomed.extend(with_argument(self.profile.path()));
        for pid in doomed {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !with_argument(self.profile.path()).is_empty() {
            if tokio::time::Instant::now() > deadline {
                eprintln!(
                    "Chromium still runs: {:?}",
                    with_argument(self.profile.path())
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A process and all its descendants, the youngest last.
fn descendants(root: u32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in processes() {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The fields after the name, which may contain any character: the state and the parent.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut found = vec![root.cast_signed()];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// The processes that have this path in their arguments.
pub(crate) fn with_argument(path: &Path) -> Vec<i32> {
    let wanted = path.to_str().expect("text");
    let has = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(wanted)
    };
    processes().filter(has).collect()
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
