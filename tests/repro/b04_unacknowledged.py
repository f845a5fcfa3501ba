"""b04_unacknowledged.py [COUNT]: one session deletes COUNT (17,000) times a znode that is not there, with a path of 8 KiB, and acknowledges
nothing. All nodes must live on, also through restarts."""
from cluster import *
from rawgrpc import *

def deletes(port, count):
    while True:
        conn = Conn(port, window=WIDE, keep=False)
        stream = conn.open("Session")
        conn.message(stream, open_session(60000))
        path = "/" + "x" * 8191
        for n in range(1, count + 1):
            if conn.message(stream, request(n, DELETE, about(path), n)): break
        time.sleep(5)
        conn.close()

def main(dir):
    nodes = ensemble(dir, 3)
    poisoner = client(deletes, nodes[0].ports.client, int(sys.argv[1]) if len(sys.argv) > 1 else 17000)
    with Others(nodes[0]) as others: time.sleep(40)
    gone([poisoner])
    others.check()
    holds("all nodes live", all(n.alive() for n in nodes))
    at_most("most memory of a node", max(n.memory_of("VmHWM") for n in nodes), MEMORY, " MiB")
    for node in nodes: node.stop(signal.SIGKILL)
    for node in nodes: node.start()
    at_most("all restart in", all_ready(nodes), 20, " s")
    done("create", "/behind", "x", at=nodes)
    holds("nothing is logged at ERROR", not any(" ERROR " in n.log() for n in nodes),
          [l[:200] for n in nodes for l in n.log().splitlines() if " ERROR " in l][:2])

if __name__ == "__main__": script(main)
