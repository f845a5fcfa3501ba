#!/usr/bin/env bash
# Two builds of quorate against each other, in alternating runs: writes/s, and the processor time that the three servers
# spend on a write, which varies less with other load on the machine.
#
#   bench/compare-builds.sh ROUNDS BINARY BINARY
#
# LOAD in the environment is another load of `quorate bench`, such as "set --sessions 16 --in-flight 64" or "get"; its
# processor time includes what the run sets up.
set -euo pipefail
rounds=$1
shift
load=${LOAD:-write --in-flight 1024 --size 100}
base_port=7800
dir=$(mktemp -d)
up=
trap '[ -z "$up" ] || kill -INT "$up"; wait; rm -rf "$dir"' EXIT

# Processor time of the three servers, in hundredths of a second.
ticks() {
    local sum=0 id
    for id in 1 2 3; do
        read -r -a stat < <(sed 's/.*) //' "/proc/$(cat "$dir/data/node-$id/pid")/stat")
        sum=$((sum + stat[11] + stat[12]))
    done
    echo "$sum"
}

number() { sed -E "s/.*\"$1\": *([0-9]+).*/\1/" <<<"$2"; }

for _ in $(seq "$rounds"); do
    for binary in "$@"; do
        "$binary" up --base-port "$base_port" --data "$dir/data" >"$dir/log" 2>&1 &
        up=$!
        until grep -qs '^ready:' "$dir/log"; do sleep 0.1; done
        export QUORATE_ENDPOINTS="127.0.0.1:$base_port,127.0.0.1:$((base_port + 20)),127.0.0.1:$((base_port + 40))"
        before=$(ticks)
        # shellcheck disable=SC2086  # one word each
        said=$("$binary" bench $load --seconds 10 -o json | tr '\n' ' ')
        after=$(ticks)
        kill -INT "$up"
        wait "$up" || true
        up=
        # The log too: the next run would be taken for ready by this one.
        rm -rf "$dir/data" "$dir/log"
        # A tenth of the writes warms up and is not counted.
        awk -v who="$binary" -v ops="$(number ops "$said")" -v p50="$(number p50_us "$said")" -v p99="$(number p99_us "$said")" -v ticks=$((after - before)) \
            'BEGIN { printf "%s: %d operations/s, p50 %d us, p99 %d us, %.2f us of server CPU each\n", who, ops / 10, p50, p99, ticks * 1e4 / (ops * 1.1) }'
    done
done
