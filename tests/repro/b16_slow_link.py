"""b16_slow_link.py [MB_PER_S]: a multi of 18 MB (long paths, no data), and one of nearly 4 MiB, on links of MB_PER_S (1.2). The first is refused; the
second costs time, and no election."""
from cluster import *
from rawgrpc import *

def multi(parts): return b"".join(f_bytes(1, f_bytes(1, about(f"/m/{i:06d}" + "x" * 8100))) for i in range(parts))

def epochs(nodes):
    import json
    return {n["epoch"] for n in json.loads(done("status", "-o", "json", at=nodes))}

def main(dir):
    rate = float(sys.argv[1]) if len(sys.argv) > 1 else 1.2
    nodes, pumps = piped(dir, [(i, j) for i in (1, 2, 3) for j in (1, 2, 3) if i != j])
    for node in nodes: node.start()
    all_ready(nodes)
    done("create", "/m", "", at=nodes)
    before = epochs(nodes)
    for pump in pumps: pump.rate = rate * 1e6
    time.sleep(2)
    # A follower forwards it: its bytes go over two links, one after the other.
    for node in nodes:
        conn = Conn(node.ports.client)
        holds(f"18 MB to node {node.id} are refused", conn.call("Multi", multi(2300)) is None)
    longest, done_in = 0, []
    for node in nodes:
        session = Session(node.ports.client, 20000)
        began = time.time()
        session.number += 1
        xid = session.send(MULTI, multi(490), session.number)
        # Another client's small write waits behind it, and no longer.
        time.sleep(0.5)
        at = time.time(); other = Session(nodes[0].ports.client, 30000); other.write(SET, about("/m") + f_bytes(2, b"x"), 60)
        longest = max(longest, time.time() - at)
        session.until(lambda: xid in session.answers, 60)
        answer = session.answers.pop(xid)
        done_in.append(time.time() - began)
        holds("all nodes are ready", all(n.ready() for n in nodes))
        if node is not nodes[-1] and not field(answer, ERROR):
            session.ask(DELETE_TREE, about("/m") + f_int(5, 1), 60, session.number + 1, session.number)
        holds(f"4 MB by node {node.id} are carried out", not field(answer, ERROR), field(field(answer, ERROR, b""), 2, b""))
    # Twice 4 MB over a link, and as much again of the two others at one socket.
    at_most("the longest takes", max(done_in), 4 * 4.2 / rate + 2, " s")
    at_most("a small write behind it", longest, 4 * 4.2 / rate + 2, " s")
    holds("there is no election", epochs(nodes) == before, (before, epochs(nodes)))
    at_most("memory", max(n.memory_of("VmHWM") for n in nodes), MEMORY, " MiB")

if __name__ == "__main__": script(main)
