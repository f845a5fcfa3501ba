"""b07_memory.py [KIND...]: what one client costs a node in memory. Each kind has a fresh node whose `limits.memory` is 512 MiB."""
from cluster import *
from rawgrpc import *

def sandwich(port):
    """40 KiB of alternating writes and lists of 20,000 children on one stream, unread."""
    conn = Conn(port, window=0, keep=False, give_back=False)
    stream = conn.open("Session")
    conn.message(stream, open_session(30000))
    for n in range(1, 1500):
        conn.message(stream, request(2 * n, SET, about("/c"), n) + request(2 * n + 1, CHILDREN, about("/c")), timeout=1)

def children(port):
    """250 unary lists, unread."""
    for _ in range(3):
        conn = Conn(port, window=0, keep=False, give_back=False)
        for _ in range(100): conn.message(conn.open("Children"), about("/c"), end=True, timeout=1)
        kept.append(conn)

def amplify(port):
    """As many empty requests as fit into a message."""
    for size in (19 << 20, 4 << 20, 3 << 20, 30000):
        conn = Conn(port, window=0, keep=False, give_back=False)
        for _ in range(20):
            stream = conn.open("Session")
            conn.message(stream, open_session(30000) + f_bytes(2, b"") * (size // 2), timeout=3)
        kept.append(conn)

def multis(port):
    """Empty parts of multis."""
    for _ in range(8):
        conn = Conn(port, window=0, keep=False, give_back=False)
        for _ in range(20): conn.message(conn.open("Multi"), f_bytes(1, b"") * (2 << 20), end=True, timeout=2)
        kept.append(conn)

def partial(port):
    """100 unary calls without their last byte."""
    for _ in range(10):
        conn = Conn(port, keep=False)
        for _ in range(10):
            body = grpc(about("/a") + f_bytes(2, b"x" * (1 << 20)))
            conn.write(conn.open("Set"), body[:-1], timeout=2)
        kept.append(conn)

def unread(port):
    """Unary reads of 1 MB, unread."""
    for _ in range(40):
        conn = Conn(port, window=0, keep=False, give_back=False)
        for _ in range(100): conn.message(conn.open("Get"), about("/large"), end=True, timeout=1)
        kept.append(conn)

def rests(port):
    """200 session streams that each have sent a message of nearly 4 MiB, and rest. What a stream has carried must not stay in memory."""
    some = []
    for _ in range(10):
        conn = Conn(port, keep=False)
        for _ in range(20):
            stream = conn.open("Session"); conn.message(stream, open_session(30000), timeout=2); some.append((conn, stream))
        kept.append(conn)
    reads = f_bytes(1, f_bytes(1, about("/" + "y" * 8000)))
    for conn, stream in some: conn.message(stream, b"".join(request(i, MULTI_READ, reads) for i in range(1, 481)), timeout=5)
    time.sleep(30)

def rests_answered(port):
    """The same, and each was sent a value of 1 MB."""
    conn = [Conn(port, keep=False) for _ in range(10)]
    for n in range(200):
        stream = conn[n % 10].open("Session")
        conn[n % 10].message(stream, open_session(30000) + request(1, GET, about("/f/0000000")), timeout=2)
    kept.extend(conn)
    time.sleep(30)

KINDS = {f.__name__: f for f in (sandwich, children, amplify, multis, partial, unread, rests, rests_answered)}
kept = []

def again(function, port):
    while True:
        try: function(port)
        except OSError: pass
        time.sleep(1)

def main(dir):
    for kind in sys.argv[1:] or KINDS:
        node, = ensemble(f"{dir}/{kind}")
        if kind in ("sandwich", "children"): fill(node.ports.client, "/c", 20000 if kind == "sandwich" else 100000)
        done("create", "/large", "v" * 100000, at=node)
        fill(node.ports.client, "/f", 1, 1000000)
        with Others(node) as others:
            one = client(again, KINDS[kind], node.ports.client)
            time.sleep(20)
        gone([one])
        others.check(kind)
        node.stop()

if __name__ == "__main__": script(main)
