"""One connection with a window of 0 and 24 streams asks for large answers and never takes any. All others must be served, and the node must
end the connection; the same of clients that read nothing from the socket, that read a byte each 5 s, and that
begin messages and do not go on."""
from cluster import *
from rawgrpc import *

def wedge(port, **kw):
    conn = Conn(port, keep=False, give_back=False, **kw)
    asked = [conn.open("Session") for _ in range(24)]
    for stream in asked: conn.message(stream, open_session(30000))
    began = time.time()
    for round in range(200):
        if conn.dead: break
        op, body = ((GET, about("/large")), (CHILDREN, about("/many")), (SET, about("/small") + f_bytes(2, b"x" * 20000)))[round % 3]
        for i, stream in enumerate(asked):
            number = round // 3 + 1 if op == SET else 0
            conn.write(stream, grpc(request(round + 1, op, body, number)), timeout=0.05)
    while not conn.dead and time.time() - began < 40: time.sleep(0.1)
    return conn.dead, time.time() - began

def wedges(port, out, kw):
    while True:
        dead, took = wedge(port, **kw)
        with open(out, "a") as f: f.write(f"{took:.1f} {dead}\n")

def byte_by_byte(port):
    """Six connections of one address with 40 large answers each, of which they take a byte each 5 s; and as many that begin large messages and do
    not go on."""
    def one():
        while True:
            try:
                conn = Conn(port, window=0, give_back=False, keep=False, source="127.0.0.2")
                asked = [conn.open("Get") for _ in range(40)]
                for stream in asked: conn.message(stream, about("/f/0000000"), end=True, timeout=1)
                while not conn.dead:
                    time.sleep(5)
                    for stream in asked: conn.send(frame(WINDOW, 0, stream, struct.pack(">I", 1)))
            except OSError: pass
    def other():
        while True:
            try:
                conn = Conn(port, keep=False, source="127.0.0.2")
                for _ in range(40): conn.write(conn.open("Set"), b"\0" + struct.pack(">I", 4 << 20), timeout=1)
                while not conn.dead: time.sleep(1)
            except OSError: pass
    for work in (one, other) * 6: threading.Thread(target=work, daemon=True).start()
    time.sleep(600)

def main(dir):
    node, = ensemble(f"{dir}/bytes")
    fill(node.ports.client, "/f", 1, 900000)
    with Others(node) as others:
        one = client(byte_by_byte, node.ports.client)
        time.sleep(30)
    gone([one])
    others.check("byte by byte")
    node.stop()
    for kind, kw in (("zero window", dict(window=0)), ("no reads", dict(window=WIDE, buffer=4096, read=False))):
        node, = ensemble(f"{dir}/{kind[:2]}")
        fill(node.ports.client, "/many", 5000)
        done("create", "/large", "v" * 100000, at=node)
        done("create", "/small", "", at=node)
        out = f"{dir}/{kind[:2]}-ends"
        with Others(node) as others:
            wedged = [client(wedges, node.ports.client, out, kw)]
            time.sleep(30)
        gone(wedged)
        others.check(kind)
        if "read" not in kw:
            ends = [float(l.split()[0]) for l in open(out)] if os.path.exists(out) else []
            if holds("the node ends the connection", ends, case=kind): at_most("connection ended after", max(ends), 20, " s", kind)
        node.stop()

if __name__ == "__main__": script(main)
