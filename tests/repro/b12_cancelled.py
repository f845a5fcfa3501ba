"""1,000 calls cancelled at once, again and again, on the connection of a session. The session's stream goes on."""
from cluster import *
from rawgrpc import *

def main(dir):
    node, = ensemble(dir)
    session, longest = Session(node.ports.client), 0
    conn = session.conn
    with Others(node) as others:
        for round in range(30):
            for _ in range(10):
                streams = [conn.next + 2 * i for i in range(100)]
                conn.next += 200
                conn.send(b"".join(frame(HEADERS, 4, s, call_headers(method("Exists"))) + frame(RST, 0, s, struct.pack(">I", 8)) for s in streams))
            at = time.time(); session.ping(); longest = max(longest, time.time() - at)
            time.sleep(0.1)
    at_most("30,000 cancelled calls; longest ping on their connection", longest, WAIT, " s")
    holds("its connection is open", conn.dead is None, conn.dead)
    others.check()
    lines = len(node.log().splitlines())
    at_most("lines in the log", lines, 60)

if __name__ == "__main__": script(main)
