"""The port for `quorate gateway`: connections that never speak, streams that never begin, half messages, a gateway that reads nothing. Clients of the
client port, and those of a good gateway, go on."""
from cluster import *
from rawgrpc import *
from rawzk import ZkOthers

PORT = "/quorate.internal.v1.StorePort/"
HELLO = f_bytes(1, f_bytes(1, "repro") + f_int(3, 1))
def begin(timeout_ms=30000): return f_bytes(1, HELLO + f_bytes(3, f_int(2, timeout_ms)))
def ask(body): return f_bytes(2, f_bytes(1, f_bytes(1, body)))

def requested(xid, op, body): return f_int(1, xid) + f_bytes(op, body)

def silent(port):
    held = []
    while True:
        held.append(socket.create_connection(("127.0.0.1", port), 5)); held = held[-400:]; time.sleep(0.005)

def never_begins(port):
    while True:
        conn = Conn(port)
        for _ in range(100): conn.open(PORT + "Session")
        time.sleep(1); kept.append(conn)

def half_messages(port):
    while True:
        conn = Conn(port)
        for _ in range(60): conn.write(conn.open(PORT + "Session"), grpc(begin() + b"x" * 4000000)[:60000], timeout=0.2)
        time.sleep(1); kept.append(conn)

def zero_window(port):
    while True:
        conn = Conn(port, window=0, give_back=False, keep=False)
        streams = [conn.open(PORT + "Session") for _ in range(60)]
        for stream in streams: conn.message(stream, begin(), timeout=1)
        for n in range(1, 100):
            for stream in streams: conn.message(stream, ask(requested(n, CHILDREN, about("/c"))) + ask(requested(n + 1000, GET, about("/f/0000000"))), timeout=0.05)
        time.sleep(2); kept.append(conn)

def unread_calls(port):
    while True:
        conn = Conn(port, window=0, give_back=False, keep=False)
        for _ in range(100): conn.message(conn.open(PORT + "Call"), HELLO + f_bytes(3, f_bytes(1, requested(1, GET, about("/f/0000000")))), end=True, timeout=0.2)
        time.sleep(1); kept.append(conn)

def many_streams(port):
    while True:
        conn = Conn(port, keep=False)
        for _ in range(120):
            conn.message(conn.open(PORT + "Session"), begin(4000), timeout=1)
        time.sleep(0.2); conn.close()

kept = []
KINDS = {f.__name__: f for f in (silent, never_begins, half_messages, zero_window, unread_calls, many_streams)}

def main(dir):
    node, = ensemble(dir, gateway=True)
    apart = Gateway(dir, node)
    fill(node.ports.client, "/c", 20000)
    fill(node.ports.client, "/f", 1, 900000)
    for kind in sys.argv[1:] or KINDS:
        with Others(node) as others, ZkOthers(apart.zookeeper) as zk:
            one = client(KINDS[kind], node.ports.store)
            time.sleep(15)
            gone([one])
        others.check(kind)
        zk.check(kind)
        time.sleep(2)

if __name__ == "__main__": script(main)
