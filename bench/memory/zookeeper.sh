#!/usr/bin/env bash
# What many znodes cost an ensemble of three ZooKeeper servers on this machine: resident memory of each server after the
# load and after restarts, and the time of load and restarts. Compare with compare.sh in the same quiet hour. Needs the
# packages zookeeper and default-jdk-headless.
#
#   bench/memory/zookeeper.sh [ZNODES] [IN_FLIGHT]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
znodes=${1:-1000000} inflight=${2:-1024}
jars=/usr/share/java/slf4j-nop.jar:/usr/share/java/zookeeper.jar
work=$(mktemp -d)
zk=()
trap 'kill -9 "${zk[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
javac -proc:none -implicit:none -cp "$jars" -d "$work" "$here/ZkLoad.java"

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
memory() {
    local pid
    for pid in "${zk[@]}"; do
        awk '/VmRSS/ { rss = $2 } /VmHWM/ { most = $2 } END { printf " %d (%d)", rss / 1024, most / 1024 }' "/proc/$pid/status"
    done
}
# The answer of a server to a four letter word.
word() { { exec 3<>"/dev/tcp/127.0.0.1/2518$1" && printf '%s' "$2" >&3 && cat <&3; } 2>/dev/null || true; }
start() {
    local i began
    began=$(now)
    zk=()
    for i in 1 2 3; do
        mkdir -p "$work/zk$i"; echo "$i" >"$work/zk$i/myid"
        cat >"$work/zk$i.cfg" <<CFG
tickTime=2000
initLimit=60
syncLimit=5
dataDir=$work/zk$i
clientPort=2518$i
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=srvr
server.1=127.0.0.1:25281:25381
server.2=127.0.0.1:25282:25382
server.3=127.0.0.1:25283:25383
CFG
        java -Xmx1g -cp "$jars" org.apache.zookeeper.server.quorum.QuorumPeerMain "$work/zk$i.cfg" >"$work/zk$i.log" 2>&1 &
        zk+=($!)
    done
    for i in 1 2 3; do
        until word "$i" srvr | grep -q '^Mode:'; do
            kill -0 "${zk[@]}" || { tail "$work"/zk*.log; exit 1; }
            sleep 0.05
        done
    done
    echo "  ready after $(since "$began"), MiB (most):$(memory)"
}

echo "ZooKeeper, $znodes znodes"
start
echo "  load: $(java -cp "$work:$jars" ZkLoad 127.0.0.1:25183 "$znodes" "$inflight"), MiB (most):$(memory)"
sleep 5
echo "  5 s later, MiB (most):$(memory)"
for signal in KILL TERM; do
    echo "  kill -$signal of all servers"
    kill "-$signal" "${zk[@]}"
    wait "${zk[@]}" 2>/dev/null || true
    start
    sleep 5
    echo "  5 s later, MiB (most):$(memory)"
done
