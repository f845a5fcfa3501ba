#!/usr/bin/env bash
# What many znodes cost an ensemble of three nodes on this machine: resident memory of each node after the load and after
# restarts, and the time of load and restarts. Takes builds of quorate in turns.
#
#   bench/memory/compare.sh ZNODES BINARY [BINARY...]
#
# ARCHIVE in the environment is a file that archive.py has written before.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
znodes=$1
shift
base_port=7860
dir=$(mktemp -d)
up=
trap '[ -z "$up" ] || kill -INT "$up"; wait; rm -rf "$dir"' EXIT
export QUORATE_ENDPOINTS="127.0.0.1:$base_port,127.0.0.1:$((base_port + 20)),127.0.0.1:$((base_port + 40))"

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
nodes() { cat "$dir"/data/node-*/pid; }
# In MiB: now, and the most so far.
memory() {
    local pid
    for pid in $(nodes); do
        awk '/VmRSS/ { rss = $2 } /VmHWM/ { most = $2 } END { printf " %d (%d)", rss / 1024, most / 1024 }' "/proc/$pid/status"
    done
}
start() {
    rm -f "$dir/log"
    local began
    began=$(now)
    "$1" up --base-port "$base_port" --data "$dir/data" >"$dir/log" 2>&1 &
    up=$!
    until grep -qs '^ready:' "$dir/log"; do
        kill -0 "$up" || { cat "$dir/log"; exit 1; }
        sleep 0.05
    done
    echo "  ready after $(since "$began"), MiB (most):$(memory)"
}
stop() { # signal
    # All nodes at once.
    local pids
    pids=$(nodes)
    # shellcheck disable=SC2086  # one word each
    [ "$1" = INT ] || kill "-$1" $pids
    kill -INT "$up"
    wait "$up" || true
    up=
}

archive=${ARCHIVE:-$dir/archive}
[ -e "$archive" ] || "$here/archive.py" "$znodes" "$archive"
for binary in "$@"; do
    echo "$binary, $znodes znodes"
    start "$binary"
    began=$(now)
    "$binary" import "$archive" /bench --in-flight 1024 >"$dir/import" 2>&1 || { cat "$dir/import"; exit 1; }
    echo "  load: $(since "$began"), MiB (most):$(memory)"
    sleep 5
    echo "  5 s later, MiB (most):$(memory)"
    echo "  kill -9 of all nodes"
    stop KILL
    start "$binary"
    sleep 5
    echo "  5 s later, MiB (most):$(memory)"
    echo "  an orderly stop of all nodes"
    stop INT
    start "$binary"
    stop INT
    rm -rf "$dir/data"
done
