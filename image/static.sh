#!/usr/bin/env bash
# Builds a program for a release, and prints its path. `podbeat` and `podbeat-server` are for their
# images; podbeat's has no commands that only a laptop needs. `laptop` is podbeat with all commands.
# They are static, because the images contain no libraries. They contain no path of this host, so the
# same sources produce the same bytes everywhere.
#
#   image/static.sh [--symbols] [--target TARGET] [podbeat|podbeat-planted|podbeat-server|laptop]
#
# Another target than this host's needs what image/cross.sh needs. --symbols also writes a file with the names of functions, for valgrind. Its code is the same.
# podbeat-planted is the agent with a flaw that the budgets must detect (bench/planted).
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
symbols='' target=$host
while [[ ${1:-} = --* ]]; do
  case $1 in
    --symbols) symbols=-symbols; shift ;;
    --target) target=$2; shift 2 ;;
    *) echo "static: unknown flag $1" >&2; exit 64 ;;
  esac
done
package=${1:-podbeat}
directory=${CARGO_TARGET_DIR:-target}

case $target in
  x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
  *)
    echo "static: podbeat's image can be built only on Linux with glibc, on x86_64 or aarch64; this is $target. Use the Dockerfile" >&2
    exit 69
    ;;
esac

if [ "$target" != "$host" ]; then
  linker=$(bash image/cross.sh "$target")
  name=${target^^}
  export "CARGO_TARGET_${name//-/_}_LINKER=$linker"
  # Of its own, so that builds for two targets don't wait for each other.
  directory=$directory/cross
fi

# Before the build, because the source directories must exist before the loop below can list them.
cargo fetch --quiet --locked --target "$target"

# Without PIE, the binary is 280 KiB smaller.
flags=(-C target-feature=+crt-static -C relocation-model=static)
profile=release features=(--no-default-features)
if [ "$package" = podbeat-server ]; then
  profile=server
elif [ "$package" = laptop ]; then
  # A profile of its own, because its program has the name of the image's.
  package=podbeat profile=laptop features=()
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

built=$directory/$target/$profile/$package
options=(--profile "$profile" --locked "${features[@]}" --package "$package" --bin "$package" --target "$target"
  --target-dir "$directory")
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
