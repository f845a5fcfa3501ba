"""The ZooKeeper port, of a node and of `quorate gateway`: connections that never speak, that send half a frame, that open sessions and vanish, as fast
as they can. They come from another address than the other clients: sessions have a rate for each."""
from cluster import *
from rawzk import *

def floods(port, say, per_round=200, hold=True):
    held = []
    while True:
        for _ in range(per_round):
            try:
                s = socket.create_connection(("127.0.0.1", port), 1, ("127.0.0.2", 0))
                if say: s.sendall(say)
                if hold: held.append(s)
                else: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
            except OSError: pass
        for s in held[:-1500]: s.close()
        held = held[-1500:]
        time.sleep(0.02)

KINDS = {
    "silent": (b"", True),
    "half of a length": (b"\0\0", True),
    "half of a first frame": (hello()[:30], True),
    "a session and half a frame": (hello(4000) + request(1, SET_DATA, set_data("/", b"x" * 900000))[:20000], True),
    "a session, then a reset": (hello(4000), False),
    "a word, then a reset": (b"srvr", False),
    "a frame of 2 GiB": (b"\x7f\xff\xff\xff" + b"x" * 1000, True),
    "a frame of -1": (b"\xff\xff\xff\xff" * 8, True),
    "random bytes": (os.urandom(2000), True),
}

def main(dir):
    node, = ensemble(dir, gateway=True)
    apart = Gateway(dir, node)
    for where, target, pid in (("node", node.ports.zookeeper, node.process.pid), ("gateway", apart.zookeeper, apart.process.pid)):
        for kind, (say, hold) in KINDS.items():
            if sys.argv[1:] and kind not in sys.argv[1:]: continue
            with Others(node, pid=pid) as others, ZkOthers(target) as zk:
                one = client(floods, target, say, 200, hold)
                time.sleep(6)
                gone([one])
            others.check(f"{where}, {kind}")
            zk.check(f"{where}, {kind}")
            holds("the process lives", apart.alive())
            time.sleep(1)

if __name__ == "__main__": script(main)
