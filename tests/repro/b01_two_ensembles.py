"""Two ensembles with one name. A node of A is pointed at B for 6 s. B must not notice, and A's node must come back."""
from cluster import *

def main(dir):
    a, b = ensemble(dir + "/a", 3), ensemble(dir + "/b", 3)
    done("create", "/important", "data", at=b)
    done("create", "/other", "a", at=a)
    for node in a: node.stop()
    odd, own = a[2], a[2].members
    odd.members = {i: (n.ports.client, n.ports.quorum, n.ports.election) for i, n in ((1, b[0]), (2, b[1]), (3, odd))}
    odd.configure()
    with Others(b[0]) as others:
        odd.start()
        time.sleep(6)
        odd.stop()
        holds("B is ready", all(n.ready() for n in b))
    others.check()
    said = [l for l in odd.log().splitlines() if "refuse" in l or "another ensemble" in l or "other ensemble" in l]
    holds("the odd node logs the refusal", said)
    odd.members = own; odd.configure()
    for node in b: node.stop()
    for node in b: node.start()
    at_most("B restarts in", all_ready(b), 15, " s")
    holds("B has its data", done("get", "/important", at=b) == "data")
    done("set", "/important", "new", at=b)
    for node in a: node.start()
    at_most("A restarts in", all_ready(a), 15, " s")
    holds("A has its data", done("get", "/other", at=a) == "a")
    code, text = quorate("status", at=b)
    holds("status of B ends with 0", code == 0, f"{code}: {text[-300:]}")

if __name__ == "__main__": script(main)
