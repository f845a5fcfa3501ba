"""Connections that say nothing, on the client, ZooKeeper, HTTP, quorum and election ports of nodes with 1,024 open files. Clients are served, and
members find each other through restarts. All these connections come from one address, that of the other clients is another."""
from cluster import *

def silent(ports, count, say=b""):
    """Keeps this many connections open at each port, and replaces those that are closed."""
    held = []
    while True:
        held = [(p, s) for p, s in held if open_still(s)]
        for port in ports:
            for _ in range(count - sum(p == port for p, _ in held)):
                try:
                    s = socket.create_connection(("127.0.0.1", port), 1, ("127.0.0.2", 0))
                    if say: s.sendall(say)
                    s.setblocking(False); held.append((port, s))
                except OSError: pass
        time.sleep(0.05)

def open_still(s):
    try: return s.recv(65536) != b""
    except BlockingIOError: return True
    except OSError: return False

def main(dir):
    nodes = ensemble(dir, 3, ulimit=1024)
    done("create", "/a", "0", at=nodes)
    first = nodes[0].ports
    with Others(nodes[0]) as others:
        held = [client(silent, [first.client, first.zookeeper], 500)]
        held.append(client(silent, [first.http], 60, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20))
        time.sleep(25)
    others.check()
    held += [client(silent, [n.ports.quorum, n.ports.election], 96) for n in nodes]
    time.sleep(3)
    for node in (nodes[2], nodes[1]):
        at_most("a node stops in", node.stop(), 6, " s")
        node.start()
        at_most("is ready again in", all_ready([node]), 15, " s")
        at = time.time()
        done("set", "/a", "1", at=nodes)
        at_most("a write takes", time.time() - at, WAIT, " s")
    at_most("a node stops in", nodes[0].stop(), 6, " s")
    gone(held)

if __name__ == "__main__": script(main)
