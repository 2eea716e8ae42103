//! A text in place of a token up to the first line end, then edits of valid tokens, three bytes
//! each: what to do, where, and a byte. No token is valid except those that were issued.

#![no_main]

mod world;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use podbeat_server::keys::Keys;
use podbeat_server::service::{Caller, Service};
use podbeat_server::store::Memory;
use podbeat_server::tokens;

use world::{RUNTIME, USERS, at};

struct World {
    service: Service,
    keys: Keys,
    others: Keys,
    agent: String,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key");
    let load = || Keys::load(&file).expect("keys");
    let service = world::service(Arc::new(Memory::default()), load());
    let service = RUNTIME.block_on(service);
    let keys = load();
    World {
        agent: tokens::issue(&keys, "trn.1", 1, at(0), Duration::from_secs(3600)).expect("a token"),
        service,
        others: Keys::temporary().expect("keys"),
        keys,
    }
});

fuzz_target!(|bytes: &[u8]| {
    let world = &*WORLD;
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let edits = parts.next().unwrap_or_default();

    check(world, &text);
    let (signed, signature) = world.agent.rsplit_once('.').expect("a token");
    let head = signed.split_once('.').expect("a token").0;
    let claims = format!("{head}.{}", URL_SAFE_NO_PAD.encode(&*text));
    let foreign = URL_SAFE_NO_PAD.encode(world.others.sign(claims.as_bytes()));
    for signature in [signature, &foreign, ""] {
        assert_eq!(caller(world, &format!("{claims}.{signature}")), None);
    }
    // Our own signature under claims that we never write.
    let own = URL_SAFE_NO_PAD.encode(world.keys.sign(claims.as_bytes()));
    if let Some(read) = tokens::of_run(&world.keys, &format!("{claims}.{own}")) {
        for now in [Timestamp::MIN, at(0), Timestamp::MAX] {
            let _ = read.is_old(now);
        }
    }

    for valid in [world.agent.as_str(), USERS[0].2] {
        let edited = edited(valid, edits);
        if let Ok(edited) = std::str::from_utf8(&edited) {
            check(world, edited);
        }
    }
});

/// Checks that a token is accepted if it was issued, and only then. The fuzzer finds the texts of users'
/// tokens in the program.
fn check(world: &World, token: &str) {
    let is_issued = token == world.agent || USERS.iter().any(|(_, _, text, _)| *text == token);
    assert_eq!(caller(world, token).is_some(), is_issued, "{token:?}");
}

fn caller(world: &World, token: &str) -> Option<Caller> {
    let caller = RUNTIME.block_on(world.service.caller(token)).ok();
    if caller.is_none() {
        assert_eq!(tokens::of_run(&world.keys, token), None);
    }
    caller
}

fn edited(valid: &str, edits: &[u8]) -> Vec<u8> {
    let mut token = valid.as_bytes().to_vec();
    for edit in edits.chunks_exact(3).take(16) {
        let [what, at, byte] = edit else { continue };
        let at = usize::from(*at) % (token.len() + 1);
        match what % 6 {
            0 => token.insert(at, *byte),
            1 => token.truncate(at),
            2 => token.extend_from_within(at..),
            3 if at < token.len() => drop(token.remove(at)),
            4 if at < token.len() => token[at] ^= *byte,
            _ if at < token.len() => token[at] = *byte,
            _ => {}
        }
    }
    token
}
