"""b08_lists.py [CHILDREN [CLIENTS]]: 200 clients list 200,000 children at once. Another session's requests must be answered meanwhile: at most
50 ms without other load (docs/reliability.md); this test allows for other load on the machine."""
from cluster import *

def main(dir):
    example = EXAMPLES + "/list_load"
    if not os.access(example, os.X_OK): raise Skip(f"no {example}; cargo build --release -p client-sdk --examples")
    count, lists = (sys.argv[1:] + ["200000", "200"][len(sys.argv) - 1:])[:2]
    nodes = ensemble(dir, 3, memory=1024)
    p = subprocess.run([example, nodes[0].endpoint, count, lists], capture_output=True, text=True, timeout=240)
    assert p.returncode == 0, p.stderr[-500:]
    words = p.stdout.split("waited at most ")[1]
    longest = float("".join(c for c in words.split()[0] if c.isdigit() or c == ".")) * {"s,": 1, "ms,": 0.001, "µs,": 1e-6}[
        "".join(c for c in words.split()[0] if not (c.isdigit() or c == "."))]
    at_most("another session's longest wait", longest, 0.2, " s")
    note("median", words.split("half the time ")[1].split(";")[0])
    holds("its session of 2 s lives", "its session lives" in p.stdout)
    at_most("memory", max(n.memory_of("VmHWM") for n in nodes), 1024, " MiB")

if __name__ == "__main__": script(main)
