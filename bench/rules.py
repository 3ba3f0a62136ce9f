"""Security groups at scale: what a packet costs in the VPC's router, and how fast a change is in force.

    packets   bench/rules_packets.py   the ruleset beside accept-all and beside one linear rule for each group rule
    changes   bench/rules_changes.py   1,000 groups of 60 rules and 1,000 interfaces, through the API

`bench/rules.py [packets|changes] [--json] [--quick] [--plot DIRECTORY]`, as root or not; enters the lab's sandbox by
itself. It needs iperf3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rules_changes
import rules_packets
from rules_plot import Line, plot
from wicketgate.lab import sandbox

CHECKOUT = Path(__file__).resolve().parent.parent
TARGETS = {"ours 60": 2.0, "ours 1000": 18.0}
"""Microseconds that a first packet may cost more than with accept-all."""
ESTABLISHED_TARGET, TCP_TARGET = 0.3, 0.95
P50_TARGET, P99_TARGET = 6.0, 15.0
LOAD_TARGET, RECONCILE_TARGET, MEMORY_TARGET = 5.0, 2.0, 200.0


def middle(values: Sequence[float], digits: int = 2) -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def over(figures: rules_packets.Figures, key: str, name: str) -> list[float]:
    """What a ruleset adds to accept-all in the same router, round by round."""
    baseline = figures[f"{key.split(maxsplit=1)[0]} accept"][name]
    return [value - base for value, base in zip(figures[key][name], baseline, strict=True)]


def show_packets(figures: rules_packets.Figures) -> None:
    """Table of all rulesets."""
    print(f"{'interfaces':>10}  {'ruleset':16} {'first packet us':22} {'added us':22} {'established us':20} added us")
    for key, found in figures.items():
        size, _, variant = key.partition(" ")
        added = ["", ""]
        if variant != "accept":
            added = [middle(over(figures, key, name)) for name in ("first", "established")]
        first, same = middle(found["first"]), middle(found["established"])
        print(f"{size:>10}  {variant:16} {first:22} {added[0]:22} {same:20} {added[1]}")
    print("TCP, one stream, Gbit/s, and as a share of accept-all in the same round (target 0.95)")
    for key, found in figures.items():
        if "gbit" in found:
            size, _, variant = key.partition(" ")
            base = figures[f"{size} accept"]["gbit"]
            shares = [value / other for value, other in zip(found["gbit"], base, strict=True)]
            print(f"{size:>10}  {variant:16} {middle(found['gbit'], 1):22} {middle(shares)}")
    for variant, target in TARGETS.items():
        for size in rules_packets.SIZES:
            if f"{size} {variant}" in figures:
                found_us = statistics.median(over(figures, f"{size} {variant}", "first"))
                same_us = statistics.median(over(figures, f"{size} {variant}", "established"))
                print(
                    f"{variant} rules, {size} interfaces: first packet {found_us:+.1f} us (target {target:+.0f}), "
                    f"established {same_us:+.2f} us (target {ESTABLISHED_TARGET:+.1f})"
                )


def plots(figures: rules_packets.Figures, directory: Path) -> None:
    """rules-interfaces.svg and rules-rules.svg: growth over network interfaces and over rules."""

    def line(name: str, keys: Sequence[tuple[float, str]]) -> Line:
        points = [(x, over(figures, key, "first")) for x, key in keys if key in figures]
        return Line(name, [(x, statistics.median(ys), min(ys), max(ys)) for x, ys in points])

    def over_sizes(variant: str) -> list[tuple[float, str]]:
        return [(size, f"{size} {variant}") for size in rules_packets.SIZES]

    title = "A flow's first packet: what the rules add to accept-all, us"
    lines = [
        line("wicketgate, 60 rules", over_sizes("ours 60")),
        line("wicketgate, 1,000", over_sizes("ours 1000")),
        line("linear, 60 rules", over_sizes("linear 60")),
    ]
    (directory / "rules-interfaces.svg").write_text(plot(title, "network interfaces of the VPC", "us", lines))
    small = rules_packets.SIZES[0]
    lines = [
        line(name, [(60, f"{small} {kind} 60"), (1000, f"{small} {kind} 1000")])
        for name, kind in (("wicketgate", "ours"), ("linear", "linear"))
    ]
    title = f"The same over rules, with {small} interfaces"
    (directory / "rules-rules.svg").write_text(plot(title, "effective rules of the receiver", "us", lines))


def show_changes(found: dict[str, Any]) -> None:
    """Times of calls, loading, memory and restart."""
    print(
        f"{rules_changes.GROUPS} groups of {rules_changes.RULES} rules, {rules_changes.INTERFACES} interfaces; ms, "
        f"median of rounds (minimum-maximum); targets p50 {P50_TARGET:.0f}, p99 {P99_TARGET:.0f}"
    )
    for kind, rounds in found["seconds"].items():
        ordered = [sorted(1000 * value for value in times) for times in rounds]
        p50 = [statistics.median(times) for times in ordered]
        everything = sorted(value for times in ordered for value in times)
        p99 = everything[min(len(everything) - 1, int(len(everything) * 0.99))]
        print(f"{kind:22} p50 {middle(p50):20} p99 of all {len(everything)}: {p99:.2f}")
    memory = found["netd"]
    print(
        f"load: netd {found['load_seconds']:.2f} s (target {LOAD_TARGET:.0f}), all of serve "
        f"{found['start_seconds']:.2f} s; netd then {memory['settled_mb']:.0f} MB (target {MEMORY_TARGET:.0f}), "
        f"at its most {memory['peak_mb']:.0f} MB"
    )
    print(
        f"restart of netd, nothing changed: {found['reconcile_seconds']:.2f} s (target {RECONCILE_TARGET:.0f}), "
        f"written: {len(found['written'])} lines of nft monitor and ip monitor"
    )
    for line in found["written"][:10]:
        print(f"    {line}")


def machine() -> str:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    iperf = subprocess.run(["iperf3", "--version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    ids = "all ids mapped" if sandbox.all_ids() else "one id mapped"
    return f"{os.cpu_count()} x {model}, kernel {platform.release()}, {iperf}, load {load}, user namespace: {ids}"


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", nargs="?", choices=("packets", "changes"), help="one half alone")
    parser.add_argument("--json", action="store_true", help="every figure as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller VPCs")
    parser.add_argument("--plot", type=Path, metavar="DIRECTORY", help="write the growth of packets' cost as SVG there")
    arguments = parser.parse_args()
    if shutil.which("iperf3") is None:
        parser.error("iperf3 is missing (Debian package iperf3)")
    if not sandbox.inside():
        return sandbox.run([sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.path.insert(0, str(CHECKOUT))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    found: dict[str, Any] = {"machine": machine()}
    if arguments.half != "changes":
        sizes = rules_packets.SIZES[:2] if arguments.quick else rules_packets.SIZES
        found["packets"] = rules_packets.measure(3 if arguments.quick else 7, 2000, sizes)
        if arguments.plot:
            plots(found["packets"], arguments.plot)
    if arguments.half != "packets":
        found["changes"] = rules_changes.measure(*((40, 3) if arguments.quick else (100, 7)))
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    print(found["machine"])
    if "packets" in found:
        show_packets(found["packets"])
    if "changes" in found:
        show_changes(found["changes"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
