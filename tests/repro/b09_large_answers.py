"""A list whose names are more than 64 MiB, and a request above the limit of a message. Neither may cost its session anything."""
from cluster import *

def main(dir):
    example = EXAMPLES + "/large_answers"
    if not os.access(example, os.X_OK): raise Skip(f"no {example}; cargo build --release -p client-sdk --examples")
    node, = ensemble(dir)
    p = subprocess.run([example, node.endpoint, "8500"], capture_output=True, text=True, timeout=200)
    assert p.returncode == 0, (p.stdout + p.stderr)[-500:]
    told = dict(l.split(": ", 1) for l in p.stdout.splitlines() if ": " in l)
    holds("8,500 names of 8,106 bytes are listed", told["listed"] == "8500", told["listed"])
    holds("a request above 4 MiB fails alone", "TooLarge" in told["large request"], told["large request"])
    holds("the write before them is carried out", told["write"] == "done", told["write"])
    holds("the session lives", told["session"] == "the same" and told["events"] == "none", p.stdout[-300:])
    at_most("memory", node.memory_of("VmHWM"), MEMORY, " MiB")

if __name__ == "__main__": script(main)
