"""Walks that are begun and abandoned: with a window of 0, unread, reset at once, as many as a client can. Others are served, and a good walk is
given a place."""
from cluster import *
from rawgrpc import *

def zero_window(port):
    conn = Conn(port, window=0, give_back=False, keep=False)
    for _ in range(100): conn.message(conn.open("Walk"), about("/c") + f_int(4, 1), end=True, timeout=1)
    kept.append(conn); time.sleep(1)

def unread(port):
    conn = Conn(port, window=WIDE, read=False, buffer=4096, keep=False)
    for i in range(100): conn.s.sendall(b"".join((frame(HEADERS, 4, 2 * i + 1, call_headers(method("Walk"))), frame(DATA, 1, 2 * i + 1, grpc(about("/c") + f_int(4, 1))))))
    kept.append(conn); time.sleep(1)

def resets(port):
    conn = Conn(port, keep=False)
    for _ in range(300):
        stream = conn.open("Walk"); conn.message(stream, about("/c") + f_int(4, 1), end=True, timeout=1)
        conn.send(frame(RST, 0, stream, struct.pack(">I", 8)))
    conn.close()

kept = []
KINDS = {f.__name__: f for f in (zero_window, unread, resets)}

def again(function, port):
    while True:
        try: function(port)
        except OSError: pass

def main(dir):
    node, = ensemble(dir)
    fill(node.ports.client, "/c", 100000, 100)
    for kind in sys.argv[1:] or KINDS:
        with Others(node) as others:
            some = [client(again, KINDS[kind], node.ports.client) for _ in range(2)]
            for i in range(15):
                time.sleep(1); quorate("set", f"/c/{i:07d}", "x" * 1000, at=node)
            gone(some)
        others.check(kind)
        good = Conn(node.ports.client)
        def walks():
            stream = good.open("Walk"); good.message(stream, about("/c"), end=True)
            good.wait(lambda: stream in good.ended, 60)
            return any(field(m, 3) for m in good.messages(stream))
        at_most("a good walk begins within", wait_for("a walk is whole", walks, 40, 0.5), 15, " s")
        good.close()

if __name__ == "__main__": script(main)
