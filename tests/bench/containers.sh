#!/usr/bin/env bash
# One container, start to first byte, and the shim's memory: shoal's runtime beside runc and crun, in one run.
# Needs root; runc and crun by package (apt-get install runc crun), each is skipped with a message where it is not.
# Usage: tests/bench/containers.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-20}

[ "$(id -u)" = 0 ] || { echo "needs root"; exit 1; }

work=$(mktemp -d /tmp/shoal-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT

# A root file system of a shell and what it needs.
mkdir -p "$work/rootfs/bin" "$work/rootfs/proc" "$work/rootfs/dev" "$work/rootfs/sys"
shell=$(readlink -f /bin/sh)
cp "$shell" "$work/rootfs/bin/sh"
ldd "$shell" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$work/rootfs$(dirname "$library")"
    cp -L "$library" "$work/rootfs$library"
done

# Prints the median of the numbers on standard input.
median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

# run NAME COMMAND…: COMMAND is given the container's id, and writes one byte when the container's command runs.
run() {
    local name=$1; shift
    for round in $(seq "$rounds"); do
        begin=$(date +%s%N)
        "$@" "bench-$$-$round" | head -c 1 > /dev/null
        end=$(date +%s%N)
        echo $(((end - begin) / 1000))
    done | median | awk -v name="$name" '{ printf "  %-24s %6.1f ms to the first byte (median)\n", name, $1 / 1000 }'
}

reference() {
    local program=$1
    if ! command -v "$program" > /dev/null; then
        echo "  $program: skipped, not installed (apt-get install $program)"
        return
    fi
    (cd "$work" && rm -f config.json && "$program" spec &&
        sed -i 's/"terminal": true/"terminal": false/; s/"sh"$/"sh", "-c", "echo x"/' config.json)
    if ! (cd "$work" && "$program" run "bench-$$-try" > /dev/null 2> "$work/error"); then
        echo "  $program: skipped, it cannot run here: $(tail -n 1 "$work/error")"
        return
    fi
    run "$program run" env -C "$work" "$program" run
}

echo "one container, $rounds rounds:"
reference runc
reference crun
echo "  shoal's runtime:"
cargo test --release --quiet -p shoal-runtime --test containers -- figures 2>&1 | grep -E 'median|shim|FAILED'
