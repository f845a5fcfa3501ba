"""Multis and multiReads of the ZooKeeper port that are as large as a frame may be, and larger: many small parts, many large answers, long paths; all
answers are read."""
from cluster import *
from rawzk import *
import threading

def asks(port, body):
    """8 sessions, each with 4 requests under way."""
    def one():
        while True:
            try:
                zk = Zk(port, 30000, source="127.0.0.2"); threading.Thread(target=drains, args=(zk,), daemon=True).start()
                n = 0
                while True: n += 1; zk.s.sendall(request(n, *body)); time.sleep(0.01)
            except OSError: time.sleep(0.1)
    def drains(zk):
        try:
            zk.s.settimeout(None)
            while zk.s.recv(1 << 20): pass
        except OSError: pass
        zk.close()
    threads = [threading.Thread(target=one, daemon=True) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()

KINDS = {
    "multiRead of 20,000 small values": (MULTI_READ, parts([(GET_DATA, read("/v"))] * 20000)),
    "multiRead of 60,000 missing znodes": (MULTI_READ, parts([(GET_DATA, read("/n"))] * 60000)),
    "multiRead of 100 lists of 20,000": (MULTI_READ, parts([(GET_CHILDREN, read("/c"))] * 100)),
    "multiRead of 1,000 values of 900 kB": (MULTI_READ, parts([(GET_DATA, read("/f/0000000"))] * 1000)),
    "multi of 50,000 checks": (MULTI, parts([(13, buf("/") + struct.pack(">i", -1))] * 50000)),
    "multi of 20,000 sets": (MULTI, parts([(SET_DATA, set_data("/v", b""))] * 20000)),
    "multi of 120 long creates": (MULTI, parts([(CREATE, create("/none/" + "x" * 8000))] * 120)),
}

def main(dir):
    from rawgrpc import fill
    node, = ensemble(dir, gateway=True)
    apart = Gateway(dir, node)
    fill(node.ports.client, "/c", 20000)
    fill(node.ports.client, "/f", 1, 900000)
    done("create", "/v", "v" * 80, at=node)
    for where, target, pid in (("node", node.ports.zookeeper, node.process.pid), ("gateway", apart.zookeeper, apart.process.pid)):
        for kind, body in KINDS.items():
            if sys.argv[1:] and kind not in sys.argv[1:]: continue
            with Others(node, pid=pid) as others, ZkOthers(target) as zk:
                one = client(asks, target, body)
                time.sleep(8)
                gone([one])
            others.check(f"{where}, {kind}")
            zk.check(f"{where}, {kind}")
            time.sleep(1)

if __name__ == "__main__": script(main)
