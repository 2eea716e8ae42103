# Sourced by the scripts in this directory: the pinned versions of the tools, their location, and
# the environment of every step.

just=1.59.0
deny=0.20.2
fuzz=0.13.1
go=1.26.6

tools=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-ci
# A Go toolchain of the machine has priority.
export PATH="$tools/just-$just/bin:$tools/deny-$deny/bin:$tools/fuzz-$fuzz/bin:$PATH:$tools/go-$go/bin"
# Without debug information, panics still name their line, and linking takes half as long.
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
