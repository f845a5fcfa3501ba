"""The medians of the runs of wire.sh, as a table."""

import json
import statistics
import sys

runs = [json.loads(line) for line in open(sys.argv[1])]
print()
print("| | in flight | | ZooKeeper | Quorate | ratio |")
print("|---|---|---|---|---|---|")
for op, name in [("set", "writes"), ("get", "reads")]:
    for in_flight in sorted({run["in_flight"] for run in runs}):
        here = [run for run in runs if (run["op"], run["in_flight"]) == (op, in_flight)]
        first = (name, f"{in_flight:,}")
        for key, what, digits in [
            ("ops_per_second", f"{name}/s", 0),
            ("p50_ms", "p50, ms", 2),
            ("p99_ms", "p99, ms", 2),
            ("cpu_us", "server CPU of each, us", 1),
        ]:
            zookeeper, quorate = (
                statistics.median(run[key] for run in here if run["server"] == server) for server in ("zookeeper", "quorate")
            )
            print(f"| {first[0]} | {first[1]} | {what} | {zookeeper:,.{digits}f} | {quorate:,.{digits}f} | {quorate / max(zookeeper, 1e-9):.2f} |")
            first = ("", "")
failed = sum(run["failed"] for run in runs)
loads = [run["load_average"] for run in runs]
print(f"\n{failed} requests failed; load average {min(loads):.1f} to {max(loads):.1f}")
