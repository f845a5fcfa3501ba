#!/usr/bin/env bash
# Nodes of three processes against nodes of one, in alternating runs on this machine: three nodes and one client,
# everything on loopback, every write durable on a quorum. Needs a release build of quorate.
#
#   bench/split/compare.sh [ROUNDS] [SECONDS] [BYTES]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
rounds=${1:-3} seconds=${2:-10} bytes=${3:-100}
quorate=${QUORATE:-$root/target/release/quorate}
[ -x "$quorate" ] || { echo "build it first: cargo build --release" >&2; exit 1; }
work=$(mktemp -d)
up=
cleanup() { [ -z "$up" ] || { kill "$up" 2>/dev/null && wait "$up" 2>/dev/null; } || true; rm -rf "$work"; }
trap cleanup EXIT

# CPU time in milliseconds, and resident memory in KiB, of these processes.
cpu_ms() { local t=0 u; for p in "$@"; do u=$(awk '{print $14+$15}' "/proc/$p/stat"); t=$((t + u * 10)); done; echo "$t"; }
rss_kib() { local t=0 u; for p in "$@"; do u=$(awk '/VmRSS/ {print $2}' "/proc/$p/status"); t=$((t + u)); done; echo "$t"; }

# packaging, flag of `up`, writes under way
run() {
    local base=24000 before after pids
    # shellcheck disable=SC2086  # the flag may be empty
    "$quorate" up $2 --base-port $base --data "$work/q" >"$work/up.log" 2>&1 &
    up=$!
    for _ in $(seq 200); do sleep 0.1; grep -q ^ready "$work/up.log" && break; done
    mapfile -t pids < <(cat "$work"/q/node-*/pid*)
    before=$(cpu_ms "${pids[@]}")
    "$quorate" bench write --endpoints "127.0.0.1:$base,127.0.0.1:$((base + 20)),127.0.0.1:$((base + 40))" \
        --in-flight "$3" --size "$bytes" --seconds "$seconds" -o json | tr -d '\n' | sed "s/^/$1 in_flight=$3 /"
    after=$(cpu_ms "${pids[@]}")
    echo " server_cpu_ms=$((after - before)) rss_mib=$(($(rss_kib "${pids[@]}") / 1024))"
    kill "$up"; wait "$up" 2>/dev/null || true; up=
    rm -rf "$work/q"
}

for _ in $(seq "$rounds"); do
    for inflight in 1024 1; do
        run one "" "$inflight"
        run split --split "$inflight"
    done
done
