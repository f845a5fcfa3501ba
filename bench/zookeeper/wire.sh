#!/usr/bin/env bash
# ZooKeeper and Quorate under the same load over ZooKeeper's client protocol, in turn, on this machine: three servers
# each, everything on loopback, every write durable on a quorum, all data on one disk. Writes and reads, with 1, 16, 128
# and 1,024 requests in flight in up to 16 sessions. Prints every run, then the medians as a table. Needs ZooKeeper
# (Debian: zookeeper), Python, and release builds of quorate and zk-load.
#
#   cargo build --release -p quorate -p zk-load
#   bench/zookeeper/wire.sh [ROUNDS] [SECONDS]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
rounds=${1:-3} seconds=${2:-5}
warm_up=${WARM_UP:-30}
quorate=${QUORATE:-$root/target/release/quorate} load=${ZK_LOAD:-$root/target/release/zk-load}
for program in "$quorate" "$load"; do
    [ -x "$program" ] || { echo "no $program: cargo build --release -p quorate -p zk-load" >&2; exit 1; }
done
# ZooKeeper's own jar names what it needs; of the logging back ends on a Debian system the one that says nothing.
jars=/usr/share/java/slf4j-nop.jar:/usr/share/java/zookeeper.jar
[ -e /usr/share/java/zookeeper.jar ] || { echo "no ZooKeeper; install Debian's package zookeeper" >&2; exit 1; }
work=$(mktemp -d)
declare -A pids=([zookeeper]="" [quorate]="")
cleanup() {
    [ -z "${up:-}" ] || { kill "$up" && wait "$up"; } 2>/dev/null || true
    for p in ${pids[zookeeper]}; do { kill "$p" && wait "$p"; } 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

# CPU time in milliseconds of these processes.
cpu_ms() { local t=0 u p; for p in "$@"; do u=$(awk '{print $14+$15}' "/proc/$p/stat"); t=$((t + u * 10)); done; echo "$t"; }

declare -A hosts=([zookeeper]=127.0.0.1:25181,127.0.0.1:25182,127.0.0.1:25183)
for i in 1 2 3; do
    mkdir -p "$work/zk$i"; echo "$i" >"$work/zk$i/myid"
    cat >"$work/zk$i.cfg" <<CFG
tickTime=2000
initLimit=10
syncLimit=5
dataDir=$work/zk$i
clientPort=2518$i
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
server.1=127.0.0.1:25281:25381
server.2=127.0.0.1:25282:25382
server.3=127.0.0.1:25283:25383
CFG
    java -Xmx1g ${ZK_FLAGS:-} -cp "$jars" org.apache.zookeeper.server.quorum.QuorumPeerMain "$work/zk$i.cfg" >"$work/zk$i.log" 2>&1 &
    pids[zookeeper]+=" $!"
done
base=24000
"$quorate" up --base-port $base --data "$work/q" >"$work/up.log" 2>&1 &
up=$!
for _ in $(seq 300); do grep -q '^ready:' "$work/up.log" && break; sleep 0.1; done
pids[quorate]=$(cat "$work"/q/node-*/pid)
# The port for ZooKeeper's clients is 8 behind that for Quorate's own.
hosts[quorate]=127.0.0.1:$((base + 8)),127.0.0.1:$((base + 28)),127.0.0.1:$((base + 48))

# One run, as a line of JSON: the load's own, and the processor time of all servers for a request.
run() {
    local server=$1 before after line; shift
    # shellcheck disable=SC2086
    before=$(cpu_ms ${pids[$server]})
    line=$("$load" --hosts "${hosts[$server]}" "$@")
    # shellcheck disable=SC2086
    after=$(cpu_ms ${pids[$server]})
    python3 -c 'import json, sys
line = json.loads(sys.argv[2])
line["server"] = sys.argv[1]
line["cpu_us"] = round(1000 * int(sys.argv[3]) / line["all"], 1)
line["load_average"] = float(open("/proc/loadavg").read().split()[0])
print(json.dumps(line))' "$server" "$line" $((after - before))
}

for _ in $(seq 60); do
    run zookeeper --op get --in-flight 1 --seconds 1 >/dev/null 2>&1 && break; sleep 1
done
# The machine code of ZooKeeper is still being made during the first half minute. Quorate gets the same.
echo "load average before the warm-up: $(cut -d' ' -f1-3 /proc/loadavg)"
for server in zookeeper quorate; do
    for op in set get; do run $server --op $op --in-flight 1024 --seconds "$warm_up" >/dev/null; done
done
for round in $(seq "$rounds"); do
    for op in set get; do
        for in_flight in 1 16 128 1024; do
            for server in zookeeper quorate; do
                run $server --op $op --in-flight $in_flight --seconds "$seconds" | tee -a "$work/runs"
            done
        done
    done
done
python3 "$root/bench/zookeeper/table.py" "$work/runs"
