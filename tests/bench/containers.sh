#!/usr/bin/env bash
# One container, start to first byte, and the shim's memory: shoal's runtime beside runc and crun, in one run, in turns.
# runc and crun find a root file system ready; ours mounts one of layers, too. crun refuses a v2 hierarchy beside v1, so
# it runs in a mount namespace without it. Needs root; runc and crun by package (apt-get install runc crun), each is
# skipped with a message where it is not. Nothing is asserted: machines are noisy. Usage: tests/bench/containers.sh [RUNS]
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-3} rounds=20

[ "$(id -u)" = 0 ] || { echo "skipped: needs root" >&2; exit 0; }
cargo test --release --locked --quiet -p shoal-runtime --test containers --no-run
work=$(mktemp -d /tmp/shoal-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
tests/bench/tiny-root "$work/rootfs"

# times PROGRAM: runs it in the bundle and prints the median of the milliseconds until the first byte.
times() {
    cd "$work"
    umount /sys/fs/cgroup/unified 2> /dev/null || true
    for round in $(seq "$rounds"); do
        begin=$EPOCHREALTIME
        "$1" run "bench-$$-$round" | head -c 1 > /dev/null
        awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f\n", (b - a) * 1000 }'
    done | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'
}
reference() {
    local program=$1
    if ! command -v "$program" > /dev/null; then
        echo "  $program run: skipped, not installed (apt-get install $program)"
        return
    fi
    if [ ! -e "$work/config.json" ]; then
        (cd "$work" && "$program" spec &&
            sed -i 's/"terminal": true/"terminal": false/; s/"sh"$/"sh", "-c", "echo x"/' config.json)
    fi
    # A mount namespace for both, so that they differ in nothing else.
    echo "  $program run: median $(unshare --mount --propagation private bash -c 'times "$1"' times "$program") ms to the first byte"
}
export -f times
export work rounds

for run in $(seq "$runs"); do
    echo "run $run, one container, $rounds rounds, load $(cut -d ' ' -f 1 /proc/loadavg):"
    reference runc
    reference crun
    echo "  shoal's runtime:"
    cargo test --release --locked --quiet -p shoal-runtime --test containers -- figures 2>&1 | grep -E 'median|shim|FAILED|panicked'
done
