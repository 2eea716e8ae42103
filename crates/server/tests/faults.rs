//! Faults of the disk, the files and the clock, while the server runs and when it starts. Nothing
//! that it answered is lost, no run is missing, and the log says what to do.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use podbeat_server::store::Sqlite;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{LIMIT, Place, SERVER, Server, User, last, running};

const ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// Runs a test of this file in a mount namespace, where it can mount file systems.
fn in_a_namespace(test: &str) {
    let as_root = ["--mount"];
    let as_anybody = ["--user", "--map-root-user", "--mount"];
    let permitted = |namespace: &&[&str]| {
        let mut attempt = Command::new("unshare");
        attempt.args(*namespace).arg("true").stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    };
    let namespace = [&as_root[..], &as_anybody[..]].into_iter().find(permitted).expect(
        "this test needs util-linux' unshare and the right to make a mount namespace: run it as root, in a container with \
         CAP_SYS_ADMIN, or where user namespaces are permitted",
    );
    let mut command = Command::new("unshare");
    command
        .args(namespace)
        .arg(std::env::current_exe().expect("this program"))
        .args([
            &format!("faults::{test}"),
            "--exact",
            "--ignored",
            "--nocapture",
        ]);
    let output = command.output().expect("it ran");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("it ran");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

/// A small file system in the place's directory.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Place) -> Self {
        let directory = place.path("");
        let path = directory.to_str().expect("text");
        run("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs", path]);
        Self(directory)
    }

    fn remount(&self, how: &str) {
        let path = self.0.to_str().expect("text");
        run("mount", &["-o", &format!("remount,{how}"), path]);
    }

    /// Uses all of its space. Returns the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).expect("created");
        for size in [65_536, 4096, 1] {
            loop {
                match file.write_all(&vec![0; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Sends a request that must be answered with 503 and Retry-After.
async fn unavailable(user: &User, method: Method, rest: &str, body: &Value) {
    let response = user.request(method, rest).json(body).send().await;
    let response = response.expect("an answer");
    let status = response.status();
    assert!(
        status == StatusCode::SERVICE_UNAVAILABLE && response.headers().contains_key("retry-after"),
        "{rest}: {status} {:?}",
        response.text().await
    );
}

/// Creates runs until one is refused. Returns the IDs of the others.
async fn create_until_refused(user: &User) -> Vec<String> {
    let mut created = Vec::new();
    loop {
        let request = user.request(Method::POST, "").json(&json!({"name": "n"}));
        let (status, body) = user.ask(request).await;
        if status != StatusCode::CREATED {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
            return created;
        }
        created.push(body["id"].as_str().expect("an ID").to_owned());
        assert!(created.len() < 10_000, "nothing is refused");
    }
}

async fn status(user: &User, id: &str) -> String {
    let (status, run) = user.get(id).await;
    assert_eq!(status, StatusCode::OK, "{id}: {run}");
    run["status"].as_str().expect("a status").to_owned()
}

/// What happens while nothing can be written, and when it can be written again.
async fn outage(
    place: &Place,
    mut server: Server,
    begin: impl FnOnce(),
    end: impl FnOnce(),
    why: &str,
) {
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    let user = server.user(&token);
    let [alive, ends, aborted] = [
        user.create("a").await,
        user.create("b").await,
        user.create("c").await,
    ];
    for id in [&alive, &ends, &aborted] {
        let (status, body) = user.beat(id, &running()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    begin();
    let created = create_until_refused(&user).await;
    let line = server.until("the store fails").await;
    let error = line["error"].as_str().expect("text");
    let data = place.data();
    assert!(
        error.contains(data.to_str().expect("text")) && error.contains(why),
        "{line}"
    );

    for _ in 0..20 {
        unavailable(&user, Method::POST, "", &json!({})).await;
    }
    let heartbeat = format!("/{ends}:heartbeat");
    unavailable(&user, Method::POST, &heartbeat, &last(0)).await;
    unavailable(&user, Method::PUT, &format!("/{aborted}:abort"), &json!({})).await;
    // A heartbeat without news needs no disk, and everything can be read.
    let (accepted, body) = user.beat(&alive, &running()).await;
    assert_eq!(accepted, StatusCode::OK, "{body}");
    for id in [&alive, &ends, &aborted] {
        assert_eq!(status(&user, id).await, "Running");
    }
    for id in &created {
        assert_eq!(status(&user, id).await, "Pending");
    }

    end();
    let (accepted, body) = user.beat(&ends, &last(0)).await;
    assert_eq!(accepted, StatusCode::OK, "{body}");
    server.until("the store works again").await;
    let (accepted, body) = user.abort(&aborted).await;
    assert_eq!(accepted, StatusCode::OK, "{body}");
    let after = user.create("after").await;
    let (code, _, log) = server.stop().await;
    assert_eq!(code, Some(0));
    let count = |message: &str| log.iter().filter(|line| line["message"] == message).count();
    assert_eq!(count("the store works again"), 1, "{log:#?}");
    // 23 failures or a few more, logged when their number doubles.
    assert!((1..8).contains(&count("the store fails")), "{log:#?}");

    let server = place.serve(&[]).await.ready().await;
    let user = server.user(&token);
    for (id, expected) in [
        (&alive, "Running"),
        (&ends, "Completed"),
        (&aborted, "Aborted"),
        (&after, "Pending"),
    ] {
        assert_eq!(status(&user, id).await, expected);
    }
    for id in &created {
        assert_eq!(status(&user, id).await, "Pending");
    }
    let (_, list) = user.ask(user.request(Method::GET, "?pageSize=1")).await;
    assert_eq!(
        list["totalItemCount"],
        4 + created.len(),
        "a refused run is not there"
    );
}

#[test]
fn a_full_disk_is_an_outage_that_loses_nothing() {
    in_a_namespace("full_disk");
}

#[tokio::test]
#[ignore = "only another test starts it"]
async fn full_disk() {
    let place = Place::new();
    let disk = Disk::mount(&place);
    let server = place.serve(&[]).await.ready().await;
    let begin = || drop(disk.fill());
    let end = || std::fs::remove_file(place.path("filler")).expect("removed");
    outage(
        &place,
        server,
        begin,
        end,
        "the disk is full; free some space",
    )
    .await;
}

/// A limit on the size of files, because the kernel makes no file system read-only that has files
/// open to write. The errors of a file system that became read-only are of the same kind.
#[tokio::test]
async fn a_disk_that_takes_no_writes_is_an_outage_that_loses_nothing() {
    let place = Place::new();
    // Without a handler for SIGXFSZ, the kernel would end the process instead of refusing the write.
    let script = "trap '' XFSZ; exec \"$0\"";
    let mut command = place.command_of("/bin/sh", &["-c", script, SERVER]);
    command.env("PODBEAT_SERVER_LISTEN", ANY_PORT[1]);
    let server = Server::start(command).await.ready().await;
    let pid = server.pid().to_string();
    let limit = |size: &str| {
        run(
            "prlimit",
            &["--pid", &pid, &format!("--fsize={size}:unlimited")],
        )
    };
    outage(
        &place,
        server,
        || limit("4096"),
        || limit("unlimited"),
        "check the disk",
    )
    .await;
}

/// The exit code and the last line of a server that can't start.
async fn refused(place: &Place) -> String {
    let output = place.run(&ANY_PORT).await;
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(66), "{text}");
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_disk_that_is_read_only_or_full_at_the_start_is_named() {
    in_a_namespace("unwritable_at_the_start");
}

#[tokio::test]
#[ignore = "only another test starts it"]
async fn unwritable_at_the_start() {
    let place = Place::new();
    let disk = Disk::mount(&place);
    let server = place.serve(&[]).await.ready().await;
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    let id = server.user(&token).create("n").await;
    server.kill().await;
    disk.remount("ro");
    let text = refused(&place).await;
    assert!(
        text.contains("d.db") && text.contains("can be written"),
        "{text}"
    );
    disk.remount("rw");
    let filler = disk.fill();
    std::fs::remove_file(place.path("d.db-shm")).expect("removed");
    let filled = disk.fill();
    let text = refused(&place).await;
    assert!(text.contains("d.db") && text.contains("disk"), "{text}");
    assert_eq!(filler, filled);
    std::fs::remove_file(filler).expect("removed");
    let server = place.serve(&[]).await.ready().await;
    assert_eq!(status(&server.user(&token), &id).await, "Pending");
}

/// A data file with runs, as a killed server leaves it.
struct Killed {
    place: Place,
    token: String,
    runs: Vec<String>,
    agent: String,
}

impl Killed {
    async fn new(runs: usize) -> Self {
        let place = Place::new();
        let server = place.serve(&[]).await.ready().await;
        let token = place.token(&["--tenant", "t", "--user", "u"]).await;
        let user = server.user(&token);
        let (mut ids, mut agent) = (Vec::new(), String::new());
        for number in 0..runs {
            let id = user.create(&format!("n{number}")).await;
            if number % 3 == 0 {
                let (_, answer) = user.beat(&id, &running()).await;
                answer["jwt"]
                    .as_str()
                    .expect("a token")
                    .clone_into(&mut agent);
                user.beat(&id, &running()).await;
            }
            ids.push(id);
        }
        // The agent is that of the first run.
        let (_, answer) = user.beat(&ids[0], &running()).await;
        answer["jwt"]
            .as_str()
            .expect("a token")
            .clone_into(&mut agent);
        server.kill().await;
        Self {
            place,
            token,
            runs: ids,
            agent,
        }
    }

    /// A copy of its files.
    fn copied(&self) -> Place {
        let place = Place::new();
        for entry in std::fs::read_dir(self.place.path("")).expect("a directory") {
            let entry = entry.expect("a file");
            let name = entry.file_name();
            std::fs::copy(entry.path(), place.path(name.to_str().expect("text"))).expect("copied");
        }
        place
    }

    /// Moves everything from the log to the file.
    async fn stopped(&self) {
        let server = self.place.serve(&[]).await.ready().await;
        assert_eq!(server.stop().await.0, Some(0));
        // The last connection that is closed removes the log.
        drop(Sqlite::open(&self.place.data()).expect("a store"));
        assert!(!self.place.path("d.db-wal").exists());
    }
}

fn truncate(path: &Path, length: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(length))
        .expect("truncated");
}

#[tokio::test]
async fn a_truncated_or_missing_file_and_a_log_of_garbage_are_refused() {
    let killed = Killed::new(30).await;
    let place = killed.copied();
    std::fs::write(place.path("d.db-wal"), "garbage ".repeat(1000)).expect("written");
    let text = refused(&place).await;
    assert!(
        text.contains("write-ahead log (-wal), which has the last changes, is damaged"),
        "{text}"
    );

    killed.stopped().await;
    let length = std::fs::metadata(killed.place.data())
        .expect("a file")
        .len();
    for left in [length / 2, 3 * 4096, 100] {
        let place = killed.copied();
        truncate(&place.data(), left);
        let text = refused(&place).await;
        assert!(
            text.contains("d.db: it is damaged; restore it from a backup")
                || text.contains("is not a data file"),
            "{left}: {text}"
        );
        assert_eq!(
            std::fs::metadata(place.data()).expect("a file").len(),
            left,
            "it is unchanged"
        );
    }
    let place = killed.copied();
    truncate(&place.data(), 0);
    let text = refused(&place).await;
    assert!(
        text.contains("is empty or does not exist, but was used before; restore it from a backup"),
        "{text}"
    );
    std::fs::remove_file(place.data()).expect("removed");
    assert_eq!(refused(&place).await, text);
    assert!(!place.data().exists());
    // A new beginning is possible.
    std::fs::remove_file(place.path("d.db.lock")).expect("removed");
    place.serve(&[]).await.ready().await;
}

#[tokio::test]
async fn a_missing_or_foreign_key_is_refused_until_the_earlier_one_is_back() {
    let killed = Killed::new(1).await;
    let place = killed.copied();
    let path = place.path("d.db.key");
    let key = std::fs::read_to_string(&path).expect("a key");
    std::fs::remove_file(&path).expect("removed");
    let text = refused(&place).await;
    assert!(
        text.contains("d.db.key does not exist") && text.contains("restore it from a backup"),
        "{text}"
    );
    assert!(!path.exists());

    let foreign = Place::new();
    foreign.serve(&[]).await.ready().await;
    let foreign = std::fs::read_to_string(foreign.path("d.db.key")).expect("a key");
    std::fs::write(&path, &foreign).expect("written");
    let text = refused(&place).await;
    assert!(
        text.contains("used with another key than those in")
            && text.contains("add the earlier key"),
        "{text}"
    );

    std::fs::write(&path, format!("{foreign}{key}")).expect("written");
    let server = place.serve(&[]).await.ready().await;
    let (accepted, body) = server
        .user(&killed.agent)
        .beat(&killed.runs[0], &running())
        .await;
    assert_eq!(accepted, StatusCode::OK, "{body}");
    server.stop().await;

    // The earlier key is lost.
    std::fs::write(&path, &foreign).expect("written");
    let server = place.serve(&[]).await.ready().await;
    let (refused, body) = server
        .user(&killed.agent)
        .beat(&killed.runs[0], &running())
        .await;
    assert_eq!(refused, StatusCode::UNAUTHORIZED, "{body}");
    let (accepted, body) = server
        .user(&killed.token)
        .beat(&killed.runs[0], &running())
        .await;
    assert_eq!(accepted, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn a_file_with_wrong_bytes_is_refused_or_served_without_a_crash() {
    change_bytes(8).await;
}

#[tokio::test]
#[ignore = "takes minutes: just server-faults"]
async fn many_files_with_wrong_bytes() {
    change_bytes(200).await;
}

/// Changes random bytes of so many files. SQLite has no checksums, so a run can be missing if several
/// indexes are damaged.
async fn change_bytes(files: usize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let killed = Killed::new(60).await;
    killed.stopped().await;
    let (mut refusals, mut failures, mut missing) = (0, 0, 0);
    for _ in 0..files {
        let place = killed.copied();
        let mut bytes = std::fs::read(place.data()).expect("a file");
        for _ in 0..1 << random.usize(0..12) {
            let at = random.usize(..bytes.len());
            bytes[at] ^= random.u8(1..);
        }
        std::fs::write(place.data(), bytes).expect("written");
        let server = match place.serve(&[]).await.ready_or_ended().await {
            Ok(server) => server,
            Err((code, text)) => {
                assert_eq!(code, Some(66), "{text}");
                let remedies = ["from a backup", "choose another file", "newer version"];
                assert!(
                    remedies.iter().any(|remedy| text.contains(remedy)),
                    "{text}"
                );
                refusals += 1;
                continue;
            }
        };
        let user = server.user(&killed.token);
        for id in &killed.runs {
            let (got, body) = user.get(id).await;
            match got {
                StatusCode::OK => {}
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::UNAUTHORIZED => failures += 1,
                StatusCode::NOT_FOUND => missing += 1,
                _ => panic!("{got} {body}"),
            }
            let (beaten, body) = user.beat(id, &running()).await;
            match beaten {
                StatusCode::OK | StatusCode::CONFLICT => {}
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::UNAUTHORIZED => failures += 1,
                StatusCode::NOT_FOUND => missing += 1,
                _ => panic!("{beaten} {body}"),
            }
        }
        server.signal("TERM");
        let (code, _, log) = server.ended().await;
        assert_eq!(code, Some(0), "{log:#?}");
    }
    println!(
        "{files} files: {refusals} refused; {failures} requests failed, {missing} runs missing"
    );
}

/// A wall clock that a test sets, with libfaketime. The monotonic clock is the real one.
struct Clock {
    file: PathBuf,
    library: String,
}

impl Clock {
    fn new(place: &Place) -> Self {
        let output = Command::new("faketime").args(["-f", "+0", "env"]).output();
        let output = output.expect("faketime, of the Debian package faketime");
        let text = String::from_utf8(output.stdout).expect("text");
        let library = text
            .lines()
            .find_map(|line| line.strip_prefix("LD_PRELOAD="));
        let clock = Self {
            file: place.path("clock"),
            library: library.expect("a library").to_owned(),
        };
        clock.set("+0");
        clock
    }

    /// Sets the clock to an offset from the real time.
    fn set(&self, offset: &str) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, offset).expect("written");
        std::fs::rename(&next, &self.file).expect("renamed");
    }

    async fn serve(&self, place: &Place, arguments: &[&str]) -> Server {
        let mut command = place.command(arguments);
        command
            .env("PODBEAT_SERVER_LISTEN", ANY_PORT[1])
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Server::start(command).await.ready().await
    }
}

/// How far the server's wall clock is ahead of ours, in hours.
async fn hours_ahead(user: &User) -> i64 {
    let (_, run) = user.get(&user.create("now").await).await;
    let created: jiff::Timestamp = run["timeCreated"]
        .as_str()
        .and_then(|time| time.parse().ok())
        .expect("a time");
    let ahead = created.duration_since(jiff::Timestamp::now());
    (ahead.as_secs() + 1800).div_euclid(3600)
}

#[tokio::test]
#[ignore = "needs faketime: just server-faults"]
async fn steps_of_the_wall_clock_change_no_wait_and_lose_nothing() {
    let place = Place::new();
    let clock = Clock::new(&place);
    // A run without heartbeats ends after ten seconds. So does one with heartbeats on a machine
    // that stands still for ten seconds.
    let limits = ["--heartbeat-timeout", "10s", "--creates-per-minute", "40"];
    let server = clock.serve(&place, &limits).await;
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    let user = server.user(&token);
    let alive = user.create("alive").await;
    let (_, first) = user.beat(&alive, &running()).await;
    let agent = server.user(first["jwt"].as_str().expect("a token"));
    let ended = user.create("ended").await;
    user.abort(&ended).await;
    // In hours, in the form of faketime.
    for (offset, hours) in [
        ("-2h", -2),
        ("+48h", 48),
        ("-26280h", -26280),
        ("+26280h", 26280),
        ("+0", 0),
    ] {
        let silent = user.create("silent").await;
        user.beat(&silent, &running()).await;
        clock.set(offset);
        assert_eq!(hours_ahead(&user).await, hours, "the clock was set");
        let waiting = async {
            loop {
                // Also with an expired token: its attempt lives.
                let (accepted, body) = agent.beat(&alive, &running()).await;
                assert_eq!(accepted, StatusCode::OK, "{offset}: {body}");
                if status(&user, &silent).await != "Running" {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let begun = tokio::time::Instant::now();
        tokio::time::timeout(LIMIT, waiting).await.expect("it ends");
        assert_eq!(status(&user, &silent).await, "TimedOut");
        assert!(
            begun.elapsed() > Duration::from_secs(5),
            "{offset}: not early"
        );
        assert_eq!(status(&user, &alive).await, "Running", "{offset}");
        assert_eq!(status(&user, &ended).await, "Aborted", "{offset}");
        let (_, list) = user
            .ask(user.request(Method::GET, "?sort=timeCreated&pageSize=1000"))
            .await;
        let total = list["totalItemCount"].as_u64().expect("a number");
        assert_eq!(
            list["items"].as_array().map(|items| items.len() as u64),
            Some(total)
        );
    }
    // Started with a wrong clock.
    clock.set("-26280h");
    server.stop().await;
    let server = clock.serve(&place, &limits).await;
    let user = server.user(&token);
    let (accepted, body) = user.beat(&alive, &running()).await;
    assert_eq!(accepted, StatusCode::OK, "{body}");
    assert_eq!(status(&user, &ended).await, "Aborted");
}
