#!/usr/bin/env bash
# Quorate against ZooKeeper, in alternating runs on this machine: three servers and one client each, everything on
# loopback, every write durable on a quorum. Needs the packages zookeeper and a JDK (Debian: zookeeper,
# default-jdk-headless), and a release build of quorate.
#
#   bench/zookeeper/compare.sh [ROUNDS] [SECONDS] [IN_FLIGHT] [BYTES]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
rounds=${1:-3} seconds=${2:-10} inflight=${3:-1024} bytes=${4:-100}
# ZooKeeper's own jar names what it needs; of the logging back ends on a Debian system the one that says nothing.
jars=/usr/share/java/slf4j-nop.jar:/usr/share/java/zookeeper.jar
quorate=${QUORATE:-$root/target/release/quorate}
[ -x "$quorate" ] || { echo "build it first: cargo build --release" >&2; exit 1; }
java -version >/dev/null 2>&1 || { echo "no Java; install a JDK" >&2; exit 1; }
work=$(mktemp -d)
pids=()
cleanup() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT

javac -proc:none -implicit:none -cp "$jars" -d "$work" "$here/ZkWrite.java"

# CPU time in milliseconds of these processes.
cpu_ms() { local t=0 u; for p in "$@"; do u=$(awk '{print $14+$15}' "/proc/$p/stat"); t=$((t + u * 10)); done; echo "$t"; }

zookeeper() {
    local servers="" i zk=()
    for i in 1 2 3; do
        mkdir -p "$work/zk$i"; echo "$i" >"$work/zk$i/myid"
        cat >"$work/zk$i.cfg" <<CFG
tickTime=2000
initLimit=10
syncLimit=5
dataDir=$work/zk$i
clientPort=2518$i
clientPortAddress=127.0.0.1
admin.enableServer=false
server.1=127.0.0.1:25281:25381
server.2=127.0.0.1:25282:25382
server.3=127.0.0.1:25283:25383
CFG
        java -Xmx1g -cp "$jars" org.apache.zookeeper.server.quorum.QuorumPeerMain "$work/zk$i.cfg" \
            >"$work/zk$i.log" 2>&1 &
        zk+=($!); pids+=($!)
        servers+="127.0.0.1:2518$i,"
    done
    for i in $(seq 60); do
        sleep 1; java -cp "$work:$jars" ZkWrite "127.0.0.1:25183" 1 1 1 1 0 >/dev/null 2>&1 && break
    done
    # Warm servers first, so that the figures below are of the load and not of the compiler.
    java -cp "$work:$jars" ZkWrite "127.0.0.1:25183" "$inflight" "$bytes" 1 1000 30 >/dev/null 2>&1
    local before after; before=$(cpu_ms "${zk[@]}")
    java -cp "$work:$jars" ZkWrite "127.0.0.1:25183" "$inflight" "$bytes" "$seconds" 1000 15 2>/dev/null | grep ops_per | sed 's/^/zookeeper /'
    after=$(cpu_ms "${zk[@]}"); echo "zookeeper server_cpu_ms $((after - before)) in the warm-up of 15 s and the run"
    kill "${zk[@]}"; wait "${zk[@]}" 2>/dev/null || true; rm -rf "$work"/zk[123]
}

quorate() {
    local base=24000 up
    "$quorate" up --base-port $base --data "$work/q" >"$work/up.log" 2>&1 &
    up=$!; pids+=($up)
    for _ in $(seq 100); do grep -q '^ready:' "$work/up.log" && break; sleep 0.1; done
    local nodes; nodes=$(cat "$work"/q/node-*/pid)
    local before after; before=$(cpu_ms $nodes)
    "$quorate" bench write --endpoints "127.0.0.1:$((base + 40))" --in-flight "$inflight" --size "$bytes" \
        --seconds "$seconds" -o json | tr -d '\n ' | sed 's/^/quorate /'; echo
    after=$(cpu_ms $nodes); echo "quorate server_cpu_ms $((after - before))"
    kill $up; wait $up 2>/dev/null || true; rm -rf "$work/q"
}

for r in $(seq "$rounds"); do echo "round $r"; zookeeper; quorate; done
