"""Two of three are thought to be lost, and one is started alone with `members` cut down to itself. Then the others come back, and it gets
its old configuration again. Alone it must not serve, and all must have one history."""
from cluster import *

def main(dir):
    nodes = ensemble(dir, 3)
    done("create", "/a", "0", at=nodes)
    for odd in (nodes[2], nodes[0]):
        others, whole = [n for n in nodes if n is not odd], odd.members
        for node in nodes: node.stop()
        odd.members = {odd.id: whole[odd.id]}; odd.configure(); odd.start()
        wait_for("the odd node warns", lambda: "Settings count for the first start only" in odd.log(), 15)
        code, text = quorate("set", "/a", "alone", at=[odd])
        holds(f"node {odd.id} alone takes no write", code != 0, text[-300:])
        for node in others: node.start()
        all_ready(others)
        for i in range(5): done("set", "/a", f"{odd.id}-{i}", at=others)
        odd.stop(); odd.members = whole; odd.configure(); odd.start()
        at_most(f"node {odd.id} rejoins in", all_ready(nodes), 15, " s")
        read = [(done("sync", at=n), done("get", "/a", at=n))[1] for n in nodes]
        holds("all nodes read the same", set(read) == {f"{odd.id}-4"}, read)
    code, text = quorate("status", at=nodes)
    holds("status ends with 0", code == 0, f"{code}: {text[-300:]}")

if __name__ == "__main__": script(main)
