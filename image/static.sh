#!/usr/bin/env bash
# Builds a binary for an image, and prints its path: podbeat's, or podbeat-server's. podbeat's has no
# commands that only a laptop needs. It is static, because the image contains no libraries. It contains no path of this host, so
# the same sources produce the same bytes everywhere.
#
#   image/static.sh [--symbols] [podbeat|podbeat-planted|podbeat-server]
#
# --symbols also writes a file with the names of functions, for valgrind. Its code is the same.
# podbeat-planted is the agent with a flaw that the budgets must detect (bench/planted).
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
    echo "static: podbeat's image can be built only on Linux with glibc, on x86_64 or aarch64; this is $target. Use the Dockerfile" >&2
    exit 69
    ;;
esac

# Before the build, because the source directories must exist before the loop below can list them.
cargo fetch --quiet --locked --target "$target"

# Without PIE, the binary is 280 KiB smaller.
flags=(-C target-feature=+crt-static -C relocation-model=static)
profile=release
if [ "$package" = podbeat-server ]; then
  profile=server
else
  # The linker script says what it leaves out. podbeat-server needs it to survive a panic.
  flags+=(-C link-arg=-Wl,--no-eh-frame-hdr,-T,image/static.ld)
fi
# Identical functions once: 34 KiB less. Rust links with LLD on this target, and with GNU ld, which
# cannot do this, on others.
if [ "$target" = x86_64-unknown-linux-gnu ]; then
  flags+=(-C link-arg=-Wl,--icf=all)
fi
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
  flags+=("--remap-path-prefix=${sources%/}=registry")
done
# Set in this form, and not as RUSTFLAGS or in the target's settings, the flags replace all others,
# and paths may contain spaces.
CARGO_ENCODED_RUSTFLAGS=$(
  IFS=$'\x1f'
  echo "${flags[*]}"
)
export CARGO_ENCODED_RUSTFLAGS

built=${CARGO_TARGET_DIR:-target}/$target/$profile/$package
options=(--profile "$profile" --locked --no-default-features --package "$package" --bin "$package" --target "$target")
if [ -n "$symbols" ]; then
  # Only the last step differs, so everything that is linked is compiled once for both.
  cargo rustc "${options[@]}" -- -C strip=none >&2
  cp --force "$built" "$built$symbols"
fi
# Last, so that the file named podbeat is always the one for the image. podbeat-planted is in no
# image, so one file is enough.
if [ -z "$symbols" ] || [ "$package" = podbeat ]; then
  cargo build "${options[@]}" >&2
fi
echo "$built$symbols"
