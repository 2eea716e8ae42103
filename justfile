# Recipes for people and CI. `just --list` shows all.

set positional-arguments

built := env("CARGO_TARGET_DIR", "target")

# Builds programs into target/debug. With --workspace and --examples, cargo chooses the same
# features of the dependencies as for `just test`. Without them, it would compile many dependencies
# again for each program.
[private]
programs *names:
    cargo build --quiet --locked --workspace --examples $(printf -- '--bin %s ' "$@")

# Format everything
[group('daily')]
fmt:
    cargo fmt --all

# Check the formatting and the lints
[group('daily')]
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --package podbeat --no-default-features --locked -- -D warnings

# Run all tests that need only Rust
[group('daily')]
test:
    cargo test --workspace --locked

# Run pod lives against the core, under virtual time: `just simulate [LIVES] [--broken G1…G7-patient] [--seed N] [--first N] [--digest]`
[group('daily')]
simulate *arguments:
    #!/usr/bin/env bash
    set -euo pipefail
    while [ $# -gt 0 ]; do
      case $1 in
        --broken) export SIMULATE_BROKEN=$2; shift 2 ;;
        --seed) export SIMULATE_SEED=$2; shift 2 ;;
        --digest) export SIMULATE_DIGEST=1; shift ;;
        --first) export SIMULATE_FIRST=$2; shift 2 ;;
        *) export SIMULATE_LIVES=$1; shift ;;
      esac
    done
    export SIMULATE_LIVES=${SIMULATE_LIVES:-10000}
    cargo test --quiet --locked --package podbeat-heartbeat --lib -- --exact simulation::simulate --ignored --nocapture

# Check that `just simulate` reports each broken machine, and names the guarantee that it breaks
[group('daily')]
simulate-broken:
    #!/usr/bin/env bash
    set -euo pipefail
    out=$(mktemp)
    trap 'rm -f "$out"' EXIT
    for flaw in G1 G1-alike G2 G2-alone G3 G3-early G4 G5 G6 G7 G7-stale G7-silent G7-patient G7-restart; do
      if just simulate 5000 --broken "$flaw" >"$out" 2>&1 || ! grep -q "^seed [0-9]*: ${flaw%%-*}" "$out"; then
        cat "$out"
        echo "a machine that breaks $flaw went unnoticed" >&2
        exit 1
      fi
      echo "a machine that breaks $flaw is found"
    done

# Run pod lives for this many seconds, from a new seed
[group('daily')]
soak seconds="600":
    SIMULATE_SECONDS="$1" SIMULATE_FIRST="$(date +%s)000000" \
      cargo test --quiet --locked --package podbeat-heartbeat --lib -- --exact simulation::simulate --ignored --nocapture

# Kill the image's binary with SIGKILL at random moments, against the stand-ins
[group('daily')]
kill kills="200":
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(realpath "$(bash image/static.sh)")
    PODBEAT_KILLS="$1" PODBEAT_BINARY="$binary" cargo test --locked --test integration -- --nocapture killed::

# Without a sanitizer: the code has no unsafe, so any stable toolchain works.
fuzz_options := "--sanitizer none --target-dir " + built / "fuzz"

[private]
fuzz-programs:
    cargo fuzz build {{fuzz_options}}

# Needs cargo-fuzz. Keeps new inputs in the user's cache.
[doc("Fuzz each target for so many seconds: `just fuzz [SECONDS] [TARGET…]`")]
[group('daily')]
fuzz seconds="60" *targets:
    #!/usr/bin/env bash
    set -euo pipefail
    seconds=$1; shift
    if [ $# -eq 0 ]; then set -- pod answer journal settings marker certificate request list token page; fi
    for target in "$@"; do
      corpus=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-fuzz/$target
      mkdir -p "$corpus"
      cargo fuzz run {{fuzz_options}} "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 2>&1 |
        grep -a -v '^$'
      echo "fuzzed $target for $seconds s"
    done

# Run the agent and podbeat-server's launcher against the stand-ins and show a timeline
[group('daily')]
demo: (programs "demo")
    {{built}}/debug/demo

# Run the demo and check that its last line is the last heartbeat of the run that was retried
[group('daily')]
demo-test: (programs "demo")
    #!/usr/bin/env bash
    set -euo pipefail
    out=$(mktemp)
    trap 'rm -f "$out"' EXIT
    {{built}}/debug/demo | tee "$out"
    tail -n 1 "$out" |
      jq --exit-status '.lastHeartbeat == true and .jobRetryCount == 1 and (.podName | startswith("trn-")) and
        .containerStatus[0].state.terminated.exitCode == 0' >/dev/null

# Needs Python 3 with venv, and Java. Creates its environments once.
[doc("Check podbeat-server and podbeat's bodies with libica, schemathesis and generated clients")]
[group('daily')]
conformance: (programs "podbeat-server" "demo")
    bash lab/conformance/run.sh

# Needs Debian's packages tinyproxy, curl and openssl.
[doc("Test podbeat with a real proxy, with curl beside it, and with servers of OpenSSL; and the script of helm test")]
[group('daily')]
proxy-test:
    cargo test --locked --test integration -- --ignored proxies::real:: real_openssl server_chart::

# Needs Debian's package faketime. Takes five minutes.
[doc("Test podbeat-server with a wall clock that is set, many damaged data files, and 200 kills")]
[group('daily')]
server-faults:
    cargo test --locked --package podbeat-server --test integration -- --ignored faults::steps_of faults::many_files killed::two_hundred

# Start the stand-in service, to develop against: `just service [--listen ADDR] [--token TOKEN] [--data FILE] …`
[group('daily')]
service *arguments: (programs "podbeat-lab")
    {{built}}/debug/podbeat-lab service "$@"

# Needs Debian's packages chromium, chromium-driver and npm. Saves screenshots in target/page. Unlike
# most tests, each browser needs a whole core.
[doc("Test the server's page in headless Chromium, beside the real agent: `just page-test [TEST…]`")]
[group('daily')]
page-test *tests: (programs "podbeat")
    axe=$(bash lab/tests/browser/axe.sh) && \
      PODBEAT_AXE_CORE=$axe PODBEAT_BINARY="$(realpath {{built}}/debug/podbeat)" \
      cargo test --locked --workspace --test integration -- \
      --ignored --skip load:: --skip proxies::real:: --skip real_openssl --skip server_chart:: \
      --test-threads "$(nproc)" "$@"

# Build the API documentation, without warnings
[group('daily')]
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# One after the other, because some documents are generated from others.
[doc("Write the generated documents")]
[group('daily')]
docs:
    PODBEAT_WRITE_DOCS=1 cargo test --locked --test integration -- --test-threads=1 \
      commands:: configuration:: logs:: metrics:: monitoring:: server_reference::

# Check everything that CI checks for each change
[group('daily')]
ci:
    bash .ci/run

# Check everything else, and the long form of the checks that CI shortens
[group('daily')]
nightly:
    bash .ci/nightly

# Needs Go.
[doc("Build etcd and Kubernetes, once for each version; about five minutes")]
[group('node')]
kubernetes:
    bash e2e/build.sh

# Needs Go.
[doc("Build helm, helm-docs and promtool, once for each version; about three minutes")]
[group('node')]
kubernetes-tools:
    bash e2e/tools/build.sh

# Needs Go. Builds etcd and Kubernetes once.
[doc("Test the image's binary and a laptop's build against a real etcd and kube-apiserver: `just e2e-api [SCENARIO…]`")]
[group('node')]
e2e-api *scenarios: (programs "podbeat" "e2e-api")
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(bash image/static.sh)
    {{built}}/debug/e2e-api --podbeat "$binary" --laptop {{built}}/debug/podbeat "$@"

# Needs the same as `just e2e-api`. Writes target/fleet/api.json. Takes about three minutes for 100
# agents, and five for 1000.
[doc("Measure real agents against a real etcd and kube-apiserver, with outages: `just fleet-api [AGENTS]`")]
[group('node')]
fleet-api agents="100" *arguments: (programs "podbeat-lab" "podbeat-server" "fleet-api")
    {{built}}/debug/fleet-api --lab {{built}}/debug/podbeat-lab --server {{built}}/debug/podbeat-server "$@"

# Needs root, and Debian packages that it names. NAME plays both kinds of sidecar; NAME/native and
# NAME/plain play one.
[doc("Play whole pod lives on a real node: `just e2e [--record DIR] [SCENARIO…]`")]
[group('node')]
e2e *arguments: image (programs "e2e")
    {{built}}/debug/e2e "$@"

# Play the 16 lives that show every fact of docs/kubernetes-facts.md
[group('node')]
e2e-facts: image (programs "e2e")
    {{built}}/debug/e2e --facts

# Without --live, it also runs the checks of `just deploy-check`. `--hold` keeps the node, and
# prints how to reach it with kubectl and helm.
[doc("Test deploy/ with helm and kubectl on a real node: `just e2e-deploy [--live|--hold] [SCENARIO…]`")]
[group('node')]
e2e-deploy *arguments: image (programs "e2e-deploy")
    {{built}}/debug/e2e-deploy "$@"

# Needs Python 3.10 or later with venv, Java, and Maven. Installs Airflow (430 MB) and Groovy once.
[doc("Check the examples for Airflow and Nextflow, as far as possible without running a task")]
[group('node')]
examples:
    bash e2e/examples/run.sh

# Needs Go. PODBEAT_WRITE_DOCS=1 writes the generated files.
[doc("Test deploy/ without a cluster: lint, schema, generated files, the alerts' tests")]
[group('node')]
deploy-check *scenarios: (programs "e2e-deploy")
    {{built}}/debug/e2e-deploy --static "$@"

# Needs the same as `just e2e-api`. The numbers are of runs that end, and of runs that wait while
# podbeat-server starts again. Writes target/fleet/launch.json.
[doc("Launch many runs on a real kube-apiserver: `just launch-api [ENDS] [STAYS]`")]
[group('node')]
launch-api ends="1000" stays="10000": (programs "launch-api") server-program
    {{built}}/debug/launch-api --server {{built}}/server/podbeat-server "$@"

# Without a name, it plays the whole table of e2e/src/launch/table.rs.
[doc("Launch runs of all kinds with podbeat-server on a real node: `just e2e-launch [RUN…]`")]
[group('node')]
e2e-launch *arguments: image (programs "e2e-launch" "podbeat-server")
    {{built}}/debug/e2e-launch "$@"

# The node runs until Ctrl-C. Needs the same as `just e2e-deploy`.
[doc("Start a node with podbeat-server and podbeat, installed by Helm, and print how to try them")]
[group('node')]
up: image (programs "e2e-launch")
    #!/usr/bin/env bash
    set -euo pipefail
    just server-image localhost/podbeat-server:e2e
    {{built}}/debug/e2e-launch --relay &
    relay=$!
    trap 'kill "$relay"' EXIT
    {{built}}/debug/e2e-launch --up

# Check that the commands of README work on the node of `just up`
[group('node')]
up-test: image (programs "e2e-launch" "podbeat")
    just server-image localhost/podbeat-server:e2e
    bash e2e/up.sh {{built}}/debug

# Check that a node leaves nothing behind, however it ends
[group('node')]
e2e-teardown: image (programs "e2e")
    bash e2e/teardown.sh

# Writes target/fleet/server.json. Takes about six minutes on an otherwise idle machine.
[doc("Measure thousands of real agents against podbeat-server, which is killed meanwhile: `just fleet [AGENTS] [--interval 30s] …`")]
[group('bench')]
fleet agents="1000" *arguments: bench-programs server-program
    #!/usr/bin/env bash
    set -euo pipefail
    agents=$1; shift
    exec {{built}}/bench-run/podbeat-lab fleet --server {{built}}/server/podbeat-server --agents "$agents" "$@"

# PODBEAT_SERVER_BEFORE=FILE also measures another podbeat-server.
[doc("Measure what open pages of the server cost: heartbeats a second with and without them, memory")]
[group('bench')]
page-load:
    cargo build --profile bench-run --locked --package podbeat-server
    PODBEAT_SERVER_BINARY="$(realpath {{built}}/bench-run/podbeat-server)" \
      cargo test --profile bench-run --locked --package podbeat-lab --test integration -- --ignored --nocapture load::

# Needs curl, jq, Go, and Python 3 with venv. Builds the peers once. Takes about twenty minutes on
# an otherwise idle machine.
[doc("Compare podbeat with its peers: `just bench [--rounds N] [--subjects A,B] [--quick] [--write-docs]`")]
[group('bench')]
bench *arguments: image bench-prepare
    {{built}}/bench-run/podbeat-bench "$@"

# Check that each peer reports the same life of a pod, and that an interrupted run leaves nothing behind
[group('bench')]
bench-test: bench-prepare
    {{built}}/bench-run/podbeat-bench --lives
    bash bench/interrupted.sh

[private]
bench-prepare: bench-programs
    bash bench/prepare.sh

[private]
bench-programs:
    cargo build --quiet --locked --profile bench-run --workspace --bin podbeat-bench --bin podbeat-lab

# Needs two CPUs, and taskset (Debian: util-linux). Server and load generator have a CPU each, so use
# an otherwise idle machine. Takes about fifteen minutes, with the data files that it makes once in
# target/server-bench (4 GiB, on a real disk). Fails if a target is missed.
[doc("Measure podbeat-server: `just server-bench [--only NAME]… [--quick] [--write-docs]`")]
[group('bench')]
server-bench *arguments: server-program
    cargo build --quiet --locked --profile bench-run --workspace --bin podbeat-server-bench
    {{built}}/bench-run/podbeat-server-bench --server {{built}}/server/podbeat-server "$@"

[private]
server-program:
    cargo build --quiet --locked --profile server --package podbeat-server --bin podbeat-server

# Needs root, valgrind and what `just bench` needs. Takes about eight minutes after the builds.
# Without arguments it measures all budgets. With arguments it measures only podbeat, without the
# ratios to its peers.
[doc("Measure podbeat against its budgets: `just budget [--only NAME]… [--quick] [--record] [--planted KIND]`")]
[group('bench')]
budget *arguments: image (programs "podbeat-budget")
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in
      # Symbols use no memory, because nothing loads them.
      *" --planted "*) symbols=$(bash image/static.sh --symbols podbeat-planted) binary=$symbols ;;
      *) symbols=$(bash image/static.sh --symbols) binary=${symbols%-symbols} ;;
    esac
    held=0
    {{built}}/debug/podbeat-budget --binary "$binary" --symbols "$symbols" --image target/image/podbeat.tar "$@" || held=$?
    if [ $# = 0 ]; then just budget-ratios || held=$?; fi
    exit "$held"

# Needs root, for control groups.
[doc("Measure the budgets of size, memory and growth, in a short form without valgrind and peers")]
[group('bench')]
budget-short: image (programs "podbeat-budget")
    {{built}}/debug/podbeat-budget --binary "$(bash image/static.sh)" --image target/image/podbeat.tar --quick \
      --only binary --only image --only rss --only peak --only growth --only outages --only hostile --only reap

# Measure the budgets that are ratios to peers; about three minutes
[group('bench')]
budget-ratios: bench-prepare
    {{built}}/bench-run/podbeat-bench --hold-ratios

# Check that the budgets detect a planted leak and a planted allocation
[group('bench')]
budget-test: (programs "podbeat-budget")
    bash bench/planted.sh

# Set the version everywhere, move "Unreleased" in CHANGELOG.md to it, commit and tag: `just release VERSION`
[group('release')]
release version:
    bash release/release.sh "$1"

# Set the registry and the owner everywhere, for a fork: `just registry HOST/OWNER`
[group('release')]
registry name:
    bash release/registry.sh "$1"

# Build the image's binary: static and reproducible. Prints its path
[group('release')]
static:
    bash image/static.sh

# Build podbeat's image as target/image/podbeat.tar, and check its size: `just image [NAME:VERSION]`
[group('release')]
image *tag: (programs "podbeat-image")
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(bash image/static.sh)
    # The time and the name of the commit instead of the build's, so that the image is reproducible.
    revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
    mkdir -p target/image
    # The limits are 6 MiB and 6.5 MiB, because nodes pull and keep each version.
    {{built}}/debug/podbeat-image archive --binary "$binary" --output target/image/podbeat.tar \
      --revision "$revision" --max-binary-size 6291456 --max-size 6815744 ${1:+--tag "$1"}

# Build podbeat-server's image as target/image/podbeat-server.tar, and run its binary's self-check
[group('release')]
server-image *tag: (programs "podbeat-image")
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(bash image/static.sh podbeat-server)
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
    mkdir -p target/image
    {{built}}/debug/podbeat-image archive --program podbeat-server --binary "$binary" --max-size 20971520 \
      --output target/image/podbeat-server.tar ${1:+--tag "$1"}
    directory=$(mktemp -d)
    trap 'rm -r "$directory"' EXIT
    PODBEAT_SERVER_DATA=$directory/podbeat.db "$binary" check

# Build the image and check that its binary lacks what only a laptop needs
[group('release')]
image-test: image
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(bash image/static.sh)
    if left_out=$("$binary" runs list 2>&1) || [[ $left_out != *"for a laptop"* ]]; then
      echo "the image's binary has commands for a laptop: $left_out" >&2
      exit 1
    fi
    if left_out=$(KUBECONFIG=/none "$binary" --dry-run 2>&1) ||
      [[ $left_out != *"only the build for a laptop reads a kubeconfig"* ]]; then
      echo "the image's binary takes a kubeconfig: $left_out" >&2
      exit 1
    fi

# Needs buildah, but no registry. Takes about three minutes.
[doc("Build the image with the Dockerfile and compare it with that of `just image`")]
[group('release')]
image-dockerfile: image
    bash image/dockerfile.sh

# Check licenses, bans and sources of all dependencies
[group('release')]
deny:
    cargo deny --locked check bans licenses sources

# Check for known vulnerabilities of dependencies. Fetches the advisory database
[group('release')]
advisories:
    cargo deny --locked check advisories
