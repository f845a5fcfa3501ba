"""b05_churn.py [COUNT]: a session with COUNT (15,000) results that are not acknowledged, then one failing write a second. What the process
writes to its disk must follow from what changes, not from what is kept."""
from cluster import *
from rawgrpc import *

def churns(port, count):
    conn = Conn(port, window=WIDE, keep=False)
    stream = conn.open("Session")
    conn.message(stream, open_session(60000))
    path = "/" + "x" * 8100
    for n in range(1, count + 1): conn.message(stream, request(n, DELETE, about(path), n))
    while not conn.dead:
        time.sleep(1); n += 1
        conn.message(stream, request(n, DELETE, about("/nothing"), n))

def main(dir):
    node, = ensemble(dir)
    def written():
        with open(f"/proc/{node.process.pid}/io") as f:
            return next(int(l.split()[1]) for l in f if l.startswith("write_bytes")) / (1 << 20)
    churner = client(churns, node.ports.client, int(sys.argv[1]) if len(sys.argv) > 1 else 15000)
    def quiet():
        before = written(); time.sleep(4)
        return written() - before < 4
    time.sleep(8)
    wait_for("the results are made", quiet, 60)
    # Longer than the time between two checkpoints.
    began, before = time.time(), written()
    with Others(node, clients_too=False) as others: time.sleep(40)
    holds("the churning client is served", churner.is_alive())
    at_most("written to disk", (written() - before) / (time.time() - began), 2, " MiB/s")
    others.check()

if __name__ == "__main__": script(main)
