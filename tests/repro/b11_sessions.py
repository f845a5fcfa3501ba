"""b11_sessions.py [SECONDS]: one client opens sessions of 60 s and leaves them, as fast as it can. It gets `session.opens_per_second` (100) and ten
times that at once, and no other client waits."""
from cluster import *
from rawgrpc import *

def opens(port):
    while True:
        conn = Conn(port)
        for _ in range(20):
            ids = [conn.open("Session") for _ in range(100)]
            for stream in ids: conn.message(stream, open_session(60000), end=True)
            conn.wait(lambda: all(s in conn.ended for s in ids), 10)
        conn.close()

def main(dir):
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20
    node, = ensemble(dir)
    with Others(node) as others:
        opener = client(opens, node.ports.client)
        time.sleep(seconds)
        gone([opener])
    opened = node.metric("quorate_sessions")
    at_most("open sessions", opened, 1000 + 100 * seconds * 1.1)
    holds("sessions were opened", opened > 100, opened)
    others.check()

if __name__ == "__main__": script(main)
