# What people and CI run. `just --list` shows all.

set positional-arguments

# Formats everything.
fmt:
    cargo fmt --all

# Checks the formatting and the lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests that need nothing but Rust.
test:
    cargo test --workspace --locked

# The agent against the stand-ins, as a timeline.
demo:
    cargo demo

# The release binary against a real etcd and kube-apiserver (needs Go; builds them once, about five minutes).
e2e-api *scenarios:
    cargo build --release --locked --bin podbeat
    cargo run --quiet --locked --package podbeat-e2e --bin e2e-api -- "$@"

# Licences, bans and sources of all dependencies.
deny:
    cargo deny --locked check bans licenses sources

# Known vulnerabilities of dependencies (needs the network: fetches the advisory database).
advisories:
    cargo deny --locked check advisories

# The API documentation, without warnings.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Writes the generated documents anew.
docs:
    PODBEAT_WRITE_DOCS=1 cargo test --locked --test configuration

# Everything that CI checks.
ci:
    bash .ci/run
