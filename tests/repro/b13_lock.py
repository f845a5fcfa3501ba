"""b13_lock.py [TIMEOUT_S [CUT_S]]: a client of node 3, which follows, holds an ephemeral. Node 3 and the client are cut off from the others, CUT_S
after the create. The others may take the ephemeral away only once its holder has been told that it may have lost its session."""
from cluster import *

def main(dir):
    example = EXAMPLES + "/lock"
    if not os.access(example, os.X_OK): raise Skip(f"no {example}; cargo build --release -p client-sdk --examples")
    timeout = float(sys.argv[1]) if len(sys.argv) > 1 else 9.0
    cut = float(sys.argv[2]) if len(sys.argv) > 2 else timeout / 3 - 0.7
    nodes, pumps = piped(dir, [(1, 3), (2, 3), (3, 1), (3, 2)])
    for node in nodes[:2]: node.start()
    all_ready(nodes[:2])
    nodes[2].start(); all_ready(nodes)
    out = dir + "/lock"
    with open(out, "w") as f: holder = subprocess.Popen([example, str(timeout), "/lock", nodes[2].endpoint], stdout=f, stderr=f)
    clients.append(holder)
    told = lambda word: next((float(l.split()[0]) for l in open(out) if word in l), None)
    wait_for("the lock is held", lambda: told("created"), step=0.01)
    time.sleep(max(0, told("created") + cut - time.time()))
    for pump in pumps: pump.silent = True
    from rawgrpc import Session, EXISTS, about, field, parse
    watcher, taken = None, None
    until = time.time() + 2 * timeout + 10
    while time.time() < until and not (taken and told("Suspended")):
        try:
            watcher = watcher or Session(next(n for n in nodes[:2] if n.ready()).ports.client)
            if taken is None and field(field(watcher.ask(EXISTS, about("/lock")), EXISTS, b""), 1) is None: taken = time.time()
        except (EOFError, OSError, TimeoutError, StopIteration): watcher = None
        time.sleep(0.02)
    suspended = told("Suspended")
    if holds("the holder is told", suspended) and holds("the ephemeral is taken away", taken):
        at_most("told after the cut", suspended - told("created") - cut, timeout, " s")
        note("before others have it the holder is told, by", f"{taken - suspended:.2f} s")
        holds("the holder is told before the others have it", taken >= suspended, f"{taken - suspended:.2f} s")
        at_most("taken away after the cut", taken - told("created") - cut, timeout * 1.5 + 2, " s")

if __name__ == "__main__": script(main)
