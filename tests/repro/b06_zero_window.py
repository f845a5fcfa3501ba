"""One connection with a window of 0 and 24 streams asks for large answers and never takes any. All others must be served, and the node must
end the connection; the same of clients that read nothing from the socket."""
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

def main(dir):
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
