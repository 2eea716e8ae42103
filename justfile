# What people and CI run. `just --list` shows all.

set positional-arguments

# Formats everything.
fmt:
    cargo fmt --all

# Checks the formatting and the lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --package podbeat --no-default-features --locked -- -D warnings

# All tests that need nothing but Rust.
test:
    cargo test --workspace --locked

# Pod lives against the core, under virtual time: `just simulate [LIVES] [--broken G1…G7-patient] [--seed N] [--first N]`.
simulate *arguments:
    #!/usr/bin/env bash
    set -euo pipefail
    while [ $# -gt 0 ]; do
      case $1 in
        --broken) export SIMULATE_BROKEN=$2; shift 2 ;;
        --seed) export SIMULATE_SEED=$2; shift 2 ;;
        --first) export SIMULATE_FIRST=$2; shift 2 ;;
        *) export SIMULATE_LIVES=$1; shift ;;
      esac
    done
    export SIMULATE_LIVES=${SIMULATE_LIVES:-10000}
    cargo test --quiet --locked --lib -- --exact heartbeat::simulation::simulate --ignored --nocapture

# The same for as long as asked, such as `just soak 3600` (seconds), from a seed of its own.
soak seconds="600":
    SIMULATE_SECONDS="$1" SIMULATE_FIRST="$(date +%s)000000" \
      cargo test --quiet --locked --lib -- --exact heartbeat::simulation::simulate --ignored --nocapture

# kill -9 of podbeat as its image holds it, at random moments, against the stand-ins.
kill kills="200":
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(realpath "$(bash image/static.sh)")
    PODBEAT_KILLS="$1" PODBEAT_BINARY="$binary" cargo test --locked --test killed -- --nocapture

# Fuzzes each target for so many seconds (needs cargo-fuzz). What is found new is kept in the user's cache.
fuzz seconds="60" *targets:
    #!/usr/bin/env bash
    set -euo pipefail
    seconds=$1; shift
    if [ $# -eq 0 ]; then set -- pod answer journal settings marker certificate; fi
    for target in "$@"; do
      corpus=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-fuzz/$target
      mkdir -p "$corpus"
      # Without a sanitizer: the code has no unsafe, and so any stable toolchain will do.
      cargo fuzz run --sanitizer none "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 2>&1 |
        grep -a -v '^$'
      echo "fuzzed $target for $seconds s"
    done

# The agent against the stand-ins, as a timeline.
demo:
    cargo demo

# The stand-in service, and the bodies that podbeat sends, before libica and schemathesis (needs Python 3 with venv; makes its
# environment once).
conformance:
    bash lab/conformance/run.sh

# The stand-in of the task-run service, to develop against: `just service [--listen ADDR] [--token TOKEN] [--data FILE] …`.
service *arguments:
    cargo run --quiet --locked --package podbeat-lab -- service "$@"

# The stand-in's web page in headless Chromium, beside the real agent (needs Debian's packages chromium and chromium-driver).
# Pictures are left in target/page.
page-test *arguments:
    cargo build --quiet --locked --bin podbeat
    PODBEAT_BINARY="$PWD/target/debug/podbeat" cargo test --locked --package podbeat-lab --test browser -- --ignored "$@"

# What that page costs: heartbeats a second with and without open pages, and memory. PODBEAT_LAB_BEFORE=FILE measures another
# podbeat-lab beside it.
page-load:
    cargo test --release --quiet --locked --package podbeat-lab --test page -- --ignored --nocapture load::

# podbeat as its image holds it, and a laptop's build with a kubeconfig, against a real etcd and kube-apiserver (needs Go; builds
# these two once, about five minutes).
e2e-api *scenarios:
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(bash image/static.sh)
    cargo build --quiet --locked --bin podbeat
    cargo run --quiet --locked --package podbeat-e2e --bin e2e-api -- --podbeat "$binary" --laptop target/debug/podbeat "$@"

# Thousands of real agents against the stand-ins: heartbeats a second, p99, how evenly they come, an outage of the service; writes
# target/fleet/stand-ins.json. `just fleet 10000 [--interval 30s] …`; about six minutes, on a machine with nothing else to do.
fleet agents="1000" *arguments:
    #!/usr/bin/env bash
    set -euo pipefail
    agents=$1; shift
    cargo build --release --quiet --locked --package podbeat-lab --bin podbeat-lab
    exec target/release/podbeat-lab fleet --agents "$agents" "$@"

# Real agents against a real etcd and kube-apiserver: what they cost it, and outages of either side; writes target/fleet/api.json
# (needs what `just e2e-api` needs; about three minutes for 100, five for 1000).
fleet-api agents="100" *arguments:
    cargo build --quiet --locked --package podbeat-lab --bin podbeat-lab --package podbeat-e2e --bin fleet-api
    target/debug/fleet-api "$@"

# podbeat as its image holds it: static, and the same bytes from the same sources. Prints where it is.
static:
    bash image/static.sh

# podbeat's image as target/image/podbeat.tar, if it is small enough: `just image [NAME:VERSION]`.
image *tag:
    #!/usr/bin/env bash
    set -euo pipefail
    binary=$(bash image/static.sh)
    # The time and the name of the commit, and not of the build, so that the image can be made again.
    revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
    mkdir -p target/image
    # 6 MiB and 6.5 MiB: what a node pulls and keeps for each version.
    cargo run --quiet --locked --package podbeat-image -- archive --binary "$binary" --output target/image/podbeat.tar \
      --revision "$revision" --max-binary-size 6291456 --max-size 6815744 ${1:+--tag "$1"}

# The same image by the Dockerfile, without a registry, held against that of `just image` (needs buildah; about three minutes).
image-dockerfile: image
    bash image/dockerfile.sh

# Whole pod lives on a real node: kubelet, containerd and runc, podbeat in its own image (needs root, and Debian packages that
# it names). `just e2e [--record DIR] [SCENARIO…]`; NAME plays both kinds of sidecar, NAME/native and NAME/plain one.
e2e *arguments: image
    cargo run --quiet --locked --package podbeat-e2e --bin e2e -- "$@"

# What deploy/ holds, with helm and kubectl on such a node: `just e2e-deploy [--live] [SCENARIO…]`; without --live what `just
# deploy-check` checks, too. `just e2e-deploy --hold` leaves the node to you, and says how kubectl and helm reach it.
e2e-deploy *arguments: image
    cargo run --quiet --locked --package podbeat-e2e --bin e2e-deploy -- "$@"

# deploy/ without a cluster: the chart's lint and schema, what is generated (PODBEAT_WRITE_DOCS=1 writes it anew), the alerts'
# tests (needs Go; builds helm, helm-docs and promtool once, about three minutes).
deploy-check *scenarios:
    cargo run --quiet --locked --package podbeat-e2e --bin e2e-deploy -- --static "$@"

# Whether a node leaves nothing behind, however it ends (needs what `just e2e` needs).
e2e-teardown: image
    cargo build --quiet --locked --package podbeat-e2e --bin e2e
    bash e2e/teardown.sh

# podbeat beside its peers in Go, Python and shell, in one run of about twenty minutes: `just bench [--rounds N] [--subjects A,B]
# [--quick] [--write-docs]` (needs curl, jq, Go, Python 3 with venv; makes the peers once). A machine that does nothing else tells more.
bench *arguments: image bench-prepare
    target/bench-run/podbeat-bench "$@"

# Whether each of them tells the same life of a pod alike, without which no figure of theirs would mean anything; and whether an
# interrupted run leaves nothing behind.
bench-test: bench-prepare
    target/bench-run/podbeat-bench --lives
    bash bench/interrupted.sh

# Of the budgets the ratios to peers, measured anew in about three minutes (bench/budget.json, docs/performance.md).
budget-ratios: bench-prepare
    target/bench-run/podbeat-bench --hold-ratios

[private]
bench-prepare:
    bash bench/prepare.sh
    cargo build --quiet --locked --profile bench-run --package podbeat-bench --bin podbeat-bench

# What podbeat costs, against its budgets (bench/budget.json, docs/budgets.md; needs valgrind and what `just bench` needs; about eight
# minutes once all is built). Without arguments all of them; `just budget [--only NAME]… [--quick] [--record]
# [--planted leak|allocation|nothing]` measures podbeat alone, without the ratios to its peers.
budget *arguments: image
    #!/usr/bin/env bash
    set -euo pipefail
    case " $* " in
      # Symbols take no memory, since nothing loads them.
      *" --planted "*) symbols=$(bash image/static.sh --symbols podbeat-planted) binary=$symbols ;;
      *) symbols=$(bash image/static.sh --symbols) binary=${symbols%-symbols} ;;
    esac
    held=0
    cargo run --quiet --locked --package podbeat-bench --bin podbeat-budget -- \
      --binary "$binary" --symbols "$symbols" --image target/image/podbeat.tar "$@" || held=$?
    if [ $# = 0 ]; then just budget-ratios || held=$?; fi
    exit "$held"

# Whether the budgets find out a planted leak and a planted allocation, and leave nothing behind when they are interrupted.
budget-test:
    bash bench/planted.sh

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
    PODBEAT_WRITE_DOCS=1 cargo test --locked --test configuration --test commands --test metrics --test monitoring --test logs

# Everything that CI checks.
ci:
    bash .ci/run
