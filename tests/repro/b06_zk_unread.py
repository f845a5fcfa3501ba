"""Clients of the ZooKeeper port, of a node and of `quorate gateway`, that ask for large answers and events and read nothing, with the smallest buffer
that the kernel gives."""
from cluster import *
from rawzk import *

def unread(port, body):
    """Sessions of 24 connections, each with 2,000 requests, and nothing is read behind the answer to the first frame."""
    while True:
        some = []
        for _ in range(24):
            try:
                zk = Zk(port, 30000, source="127.0.0.2", buffer=2048); some.append(zk)
                zk.s.settimeout(0.2)
                for n in range(1, 2000): zk.s.sendall(body(n))
            except OSError: pass
        time.sleep(12)
        for zk in some: zk.close()

KINDS = {
    "values of 900 kB": lambda n: request(n, GET_DATA, read("/f/0000000")),
    "lists of 20,000": lambda n: request(n, GET_CHILDREN, read("/c")),
    "a write between lists": lambda n: request(2 * n, SET_DATA, set_data("/c", b"")) + request(2 * n + 1, GET_CHILDREN, read("/c")),
    "multiReads of 100 values": lambda n: request(n, MULTI_READ, parts([(GET_DATA, read("/v"))] * 100)),
    "pings": lambda n: request(-2, PING) * 100,
    "watches": lambda n: request(n, GET_DATA, read("/w", True)),
    "setWatches": lambda n: request(-8, SET_WATCHES, struct.pack(">qi", 0, 1000) + buf("/w") * 1000 + struct.pack(">ii", 0, 0)),
}

def main(dir):
    from rawgrpc import fill
    node, = ensemble(dir, gateway=True)
    apart = Gateway(dir, node)
    fill(node.ports.client, "/c", 20000)
    fill(node.ports.client, "/f", 1, 900000)
    done("create", "/v", "v" * 8000, at=node); done("create", "/w", "", at=node)
    for where, target, pid in (("node", node.ports.zookeeper, node.process.pid), ("gateway", apart.zookeeper, apart.process.pid)):
        for kind, body in KINDS.items():
            if sys.argv[1:] and kind not in sys.argv[1:]: continue
            with Others(node, pid=pid) as others, ZkOthers(target) as zk:
                one = client(unread, target, body)
                for i in range(14): time.sleep(1); quorate("set", "/w", str(i), at=node)
                gone([one])
            others.check(f"{where}, {kind}")
            zk.check(f"{where}, {kind}")
            time.sleep(1)

if __name__ == "__main__": script(main)
