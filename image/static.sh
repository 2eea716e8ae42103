#!/usr/bin/env bash
# Builds podbeat as its image needs it, and prints where the binary is. Without the commands that only a laptop needs; static,
# because the image has nothing else to run with; without a path of this host in it, so that the same sources make the same bytes anywhere.
#
#   image/static.sh [--symbols] [podbeat|podbeat-planted]
#
# --symbols leaves the names of functions in, for valgrind, in a file of its own; the code is the same. podbeat-planted is the agent
# with a flaw that the budgets must find out (bench/planted).
set -euo pipefail
cd "$(dirname "$0")/.."

symbols=
if [ "${1:-}" = --symbols ]; then
  symbols=-symbols
  shift
fi
package=${1:-podbeat}

target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
  x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
  *)
    echo "static: podbeat's image is built on Linux with glibc, on x86_64 or aarch64; this is $target: build it with the Dockerfile" >&2
    exit 69
    ;;
esac

# Before the build, since the directories of the sources must be there to be named.
cargo fetch --quiet --locked --target "$target"

# Without PIE, 280 KiB smaller. The linker's script says what it leaves out.
flags=(-C target-feature=+crt-static -C relocation-model=static -C link-arg=-Wl,--no-eh-frame-hdr,-T,image/static.ld)
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
  flags+=("--remap-path-prefix=${sources%/}=registry")
done
# In this form, and not as RUSTFLAGS or the target's, they stand alone whatever else is set, and a path may have spaces.
CARGO_ENCODED_RUSTFLAGS=$(
  IFS=$'\x1f'
  echo "${flags[*]}"
)
export CARGO_ENCODED_RUSTFLAGS

built=${CARGO_TARGET_DIR:-target}/$target/release/$package
options=(--release --locked --no-default-features --package "$package" --bin "$package" --target "$target")
if [ -n "$symbols" ]; then
  # Only the last step differs, and so all that is linked was compiled once for both.
  cargo rustc "${options[@]}" -- -C strip=none >&2
  cp --force "$built" "$built$symbols"
fi
# Last, so that the file of podbeat's name is the one for the image, whatever was built before. Of podbeat-planted, which no image
# holds, one is enough.
if [ -z "$symbols" ] || [ "$package" = podbeat ]; then
  cargo build "${options[@]}" >&2
fi
echo "$built$symbols"
