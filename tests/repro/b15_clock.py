"""The wall clock of a node of three is a hundred years ahead for one start. Later writes have the right time; and in an ensemble of one, once its
clock is right again."""
import json
from datetime import datetime
from cluster import *

LIBRARY = next((f for f in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
                            "/usr/lib/faketime/libfaketime.so.1") if os.path.exists(f)), None)

def years_ahead(path, at):
    changed = datetime.fromisoformat(json.loads(done("stat", path, "-o", "json", at=at))["mtime"].replace("Z", "+00:00"))
    return (changed.timestamp() - time.time()) / (365.25 * 86400)

def main(dir):
    if not LIBRARY: raise Skip("no faketime (Debian: faketime)")
    fake = {"LD_PRELOAD": LIBRARY, "FAKETIME": "+36500d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    nodes = ensemble(dir + "/three", 3)
    odd = nodes[2]
    odd.stop(); odd.start(fake); all_ready(nodes)
    # The odd one is to lead.
    for node in nodes[:2]: node.stop(); node.start(); all_ready(nodes)
    done("create", "/a", "", at=nodes)
    at_most("of three: ahead", abs(years_ahead("/a", nodes)), 0.001, " years")
    code, text = quorate("status", at=nodes)
    holds("status ends with 4 and names the clock", code == 4 and "clock" in text, f"{code}: {text[-200:]}")
    for node in nodes: node.stop()
    node, = ensemble(dir + "/one")
    node.stop(); node.start(fake); all_ready([node]); done("create", "/ahead", "", at=node)
    note("of one, with the wrong clock: years ahead", f"{years_ahead('/ahead', node):.1f}")
    node.stop(); node.start(); all_ready([node]); done("create", "/after", "", at=node)
    at_most("with the right clock again: ahead", abs(years_ahead("/after", node)), 0.001, " years")

if __name__ == "__main__": script(main)
