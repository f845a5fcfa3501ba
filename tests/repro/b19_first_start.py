"""b19_first_start.py [COUNT]: kill -9 at COUNT (60) moments of a first start, from 1 to 60 ms. The next start works."""
from cluster import *

def main(dir):
    count, longest = int(sys.argv[1]) if len(sys.argv) > 1 else 60, 0
    for i in range(count):
        node, = ensemble(f"{dir}/{i}", start=False)
        node.start(); time.sleep(0.001 * (1 + 60 * i / count)); node.stop(signal.SIGKILL)
        node.start()
        longest = max(longest, wait_for(f"it starts after a kill at {1 + 60 * i / count:.0f} ms", lambda: node.ready() or not node.alive(), 20, 0.02))
        if not node.ready(): faults.append(f"after a kill at {1 + 60 * i / count:.0f} ms: {node.log()[-300:]}"); break
        node.stop(signal.SIGKILL)
    at_most(f"{count} kills; the longest next start", longest, 10, " s")

if __name__ == "__main__": script(main)
