"""Three nodes on file systems of 300 MiB, and a client that writes until they are full. No node ends; deletes and reads are served, also behind a
restart; writes are, once there is room."""
from cluster import *

def main(dir):
    if os.geteuid() != 0: raise Skip("no root, to mount file systems")
    for i in (1, 2, 3):
        os.makedirs(f"{dir}/node-{i}")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", f"{dir}/node-{i}"], capture_output=True).returncode:
            raise Skip("no right to mount file systems")
        mounted.append(f"{dir}/node-{i}")
    try: fill_up(dir)
    finally:
        for node in nodes: node.stop(signal.SIGKILL)
        for path in mounted: subprocess.run(["umount", path])

mounted = []

def fill_up(dir):
    three = ensemble(dir, 3)
    done("create", "/keep", "kept", at=three)
    bench = subprocess.Popen([QUORATE, "bench", "set", "--in-flight", "64", "--size", "100000", "--znodes", "4000", "--seconds", "60",
                              "--endpoints", everywhere(three)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    clients.append(bench)
    room = lambda: max(n.metric("quorate_disk_room") for n in three)
    wait_for("a disk is nearly full", lambda: room() > 0, 60)
    refused = wait_for("a write is refused", lambda: "DISK_FULL" in (said := quorate("create", "/larger", "v" * 100000, at=three, timeout=8)[1])
                       or "disk" in said or quorate("delete", "/larger", at=three) is None, 30)
    note("seconds from the mark to a refusal", f"{refused:.0f}")
    time.sleep(10)
    bench.kill(); bench.wait()
    for node in three: holds("a node lives on", node.alive(), f"node {node.id}: {node.log().splitlines()[-1][:400]}")
    for how in ("full", "restarted"):
        if how == "restarted":
            for node in three: node.stop(signal.SIGKILL)
            for node in three: node.start()
            at_most("full nodes restart in", all_ready(three, 60), 30, " s")
        at = time.time()
        holds(f"{how}: a read is served", quorate("get", "/keep", at=three)[1].startswith("kept"))
        done("get", "/keep", "--level", "stale", at=three)
        at_most("two reads take", time.time() - at, 3, " s")
    znodes = [line for line in done("ls", "/", at=three).split() if line.strip("/") not in ("keep", "larger")]
    at = time.time()
    for name in znodes: done("delete", "-r", "/" + name.strip("/"), at=three, timeout=60)
    done("delete", "-r", "/keep", at=three)
    at_most("deletes take", time.time() - at, 10, " s")
    at_most("writes are taken again after", wait_for("there is room", lambda: quorate("set", "/", "v" * 100000, at=three)[0] == 0, 60), 45, " s")
    holds("/readyz is 200", all(n.ready() for n in three))

if __name__ == "__main__": script(main)
