#!/usr/bin/env python3
"""How convt3d's speed goes with threads, with the input's size and with the instruction set.

Usage: bench/scaling.py [--parts threads,sizes,memory] [--layers A,B] [--directions forward,...]
                        [--sizes 4,5,6] [--rounds 7] [--threads 2] [--out build/bench]

threads  lines of bench/layers.txt that arithmetic bounds: how many times as fast --threads
         threads are as one, next to the same ratio of the FMA peak; and what part of AVX2's
         own FMA peak the AVX2 kernels reach.  The layer and the peaks take turns.
sizes    two layers from 4^3 inputs on, the work about doubled at each step: the time of a
         useful operation, relative to the curve's best; and the slowest doubling
memory   scratch of every line, which may be 10 % of input, output and weights, plus 16 MiB

Tables on standard output; scaling.json and, where matplotlib is there, scaling.svg to --out.

SPDX-License-Identifier: MIT
"""

import argparse
import json
import math
import os
import re
import statistics
from pathlib import Path

import numpy

import compare
import layers
import peers
import report

CURVES = {
    "k3 s2 p1 op1, 32 to 32 channels": "n1ci32co32i{}k3s2p1op1",
    "k2 s2, 64 to 32 channels": "n1ci64co32i{}k2s2",
}
SIZES = (4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 51, 64, 80, 101, 128, 160)
MOST_BYTES = 6e9
ONE_ROUND_BYTES = 256e6  # larger inputs are filled once, and timed in one go
TURN_SECONDS = 0.02
LARGE_RUNS = 2
SCRATCH_PART, SCRATCH_BYTES = 0.1, 16 * 2**20


def material(layer, direction):
    """Input data and an output, for contenders to share."""
    shape = peers.result_shape(layer, direction)
    return peers.make_data(layer, direction), numpy.zeros(shape, numpy.float32)


# ---- Threads, and AVX2 --------------------------------------------------------------------


def measure_threads(args, layer, direction):
    """The quotients of one line, each the median over rounds of what one round gave."""
    contenders = {"one": (1, "plain"), "all": (args.threads, "plain"),
                  "avx2": (args.threads, "x86_avx2")}  # fmt: skip
    ready, shared = {}, material(layer, direction)
    for key, (threads, variant) in contenders.items():
        ready[key] = peers.Convt3d(threads)
        ready[key].prepare(layer, direction, variant, *shared)
        ready[key].run()
    rounds = []
    for _ in range(args.rounds):
        seconds = {}
        peak = compare.measure_machine(args.threads, args.out, "fma")["fma_gflops"]
        for key in ("one", "all"):
            seconds[key] = peers.timed_runs(ready[key].run, TURN_SECONDS)
        peak_avx2 = compare.measure_machine(args.threads, args.out, "avx2", "fma")["fma_gflops"]
        seconds["avx2"] = peers.timed_runs(ready["avx2"].run, TURN_SECONDS)
        every, gflop = str(args.threads), layer.useful * 1e-9
        rounds.append({
            "ms_one": seconds["one"] * 1e3,
            "ms": seconds["all"] * 1e3,
            "ms_avx2": seconds["avx2"] * 1e3,
            "speedup": seconds["one"] / seconds["all"],
            "peak_speedup": peak[every] / peak["1"],
            "kept": seconds["one"] / seconds["all"] * peak["1"] / peak[every],
            "of_peak": gflop / seconds["all"] / peak[every],
            "avx2_of_peak": gflop / seconds["avx2"] / peak_avx2[every],
        })  # fmt: skip
    for contender in ready.values():
        contender.drop()
    return {k: round(statistics.median(r[k] for r in rounds), 4) for k in rounds[0]}


def thread_rows(lines):
    rows = [["layer", "ms on 1", "ms on all", "speedup", "peak's", "kept", "of peak", "AVX2 ms",
             "of AVX2 peak"]]  # fmt: skip
    for name, m in lines.items():
        rows.append([name, f"{m['ms_one']:.2f}", f"{m['ms']:.2f}", f"{m['speedup']:.2f}",
                     f"{m['peak_speedup']:.2f}", f"{m['kept']:.2f}", f"{m['of_peak']:.0%}",
                     f"{m['ms_avx2']:.2f}", f"{m['avx2_of_peak']:.0%}"])  # fmt: skip
    return rows


def part_threads(args, known):
    machine = compare.measure_machine(args.threads, args.out)
    found = {}
    for direction in args.directions:
        lines = {
            name: measure_threads(args, known[name], direction)
            for name in args.layers
            if report.bound_seconds(machine, args.threads, known[name], direction)[1]
        }
        found[direction] = lines
        print(f"\n{direction}: lines that arithmetic bounds; 1 and {args.threads} threads; "
              "kept: speedup / the FMA peak's\n")  # fmt: skip
        report.print_rows(thread_rows(lines))
        for key, title in (("kept", "kept"), ("avx2_of_peak", "of AVX2's peak")):
            if lines:
                mean = report.geomean(m[key] for m in lines.values())
                least, worst = min((m[key], name) for name, m in lines.items())
                print(f"{title}: geometric mean {mean:.2f}, least {least:.2f} ({worst})")
    return {"machine": machine, "lines": found}


# ---- Sizes -------------------------------------------------------------------------------


def most_bytes():
    """The cap, or less where the machine has less to give."""
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    available = re.search(r"MemAvailable: *(\d+) kB", text)
    return min(MOST_BYTES, 0.8 * 1024 * int(available[1])) if available else MOST_BYTES


def time_size(contender, layer, direction):
    """Seconds of a run; of layers that are worth a round only, of several."""
    contender.prepare(layer, direction, "plain", *material(layer, direction))
    contender.run()
    seconds = peers.timed_runs(contender.run, TURN_SECONDS)
    if sum(layer.bytes(direction)) > ONE_ROUND_BYTES:
        seconds = peers.timed_runs(contender.run, LARGE_RUNS * seconds)
    contender.drop()
    return seconds


def measure_curve(args, text, direction):
    """Points by size: the median time, and the time of an operation relative to the best."""
    contender, limit = peers.Convt3d(args.threads), most_bytes()
    sizes = {size: layers.parse(text.format(size)) for size in args.sizes}
    sizes = {size: layer for size, layer in sizes.items() if sum(layer.bytes(direction)) <= limit}
    times = {size: [] for size in sizes}
    for i in range(args.rounds):
        for size, layer in sizes.items():
            if i == 0 or sum(layer.bytes(direction)) <= ONE_ROUND_BYTES:
                times[size].append(time_size(contender, layer, direction))
    points = []
    for size, layer in sizes.items():
        seconds = statistics.median(times[size])
        points.append({"size": size, "useful": layer.useful, "ms": round(seconds * 1e3, 6),
                       "gflops": round(layer.useful / seconds * 1e-9, 2)})  # fmt: skip
    best = max(p["gflops"] for p in points)
    for before, p in zip([None] + points, points):
        p["relative"] = round(best / p["gflops"], 3)
        # Steps are not quite doublings: as if they were.
        p["doubling"] = round(2 * before["gflops"] / p["gflops"], 3) if before else None
    return points


def size_rows(points):
    rows = [["input", "useful GFLOP", "ms", "GFLOP/s", "time/op", "doubling"]]
    for p in points:
        rows.append([f"{p['size']}^3", f"{p['useful'] * 1e-9:.4f}", f"{p['ms']:.3f}",
                     f"{p['gflops']:.0f}", f"{p['relative']:.2f}",
                     f"{p['doubling']:.2f}" if p["doubling"] else ""])  # fmt: skip
    return rows


def part_sizes(args, _):
    found = {}
    for title, text in CURVES.items():
        found[title] = {}
        for direction in args.directions:
            points = measure_curve(args, text, direction)
            found[title][direction] = points
            print(f"\n{title}, {direction}, {args.threads} threads; time/op: of a useful "
                  "operation, relative to the best\n")  # fmt: skip
            report.print_rows(size_rows(points))
            steps = [(p["doubling"], p["size"]) for p in points if p["doubling"]]
            if steps:
                time, size = max(steps)
                print(f"slowest doubling of the work: {time:.2f} times the time, to {size}^3")
    return found


def write_svg(pyplot, curves, threads, path):
    figure, axes = pyplot.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False,
                                   figsize=(11, 4.2))  # fmt: skip
    for axis, (title, directions) in zip(axes[0], curves.items()):
        for (direction, points), style in zip(directions.items(), ("o-", "s-", "^-")):
            colour = report.COLOURS[list(layers.DIRECTIONS).index(direction)]
            axis.plot([p["useful"] * 1e-9 for p in points], [p["relative"] for p in points], style,
                      color=colour, label=direction, markersize=4, linewidth=1.2)  # fmt: skip
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_title(title, fontsize=10)
        axis.grid(linewidth=0.3)
        work = {p["size"]: p["useful"] * 1e-9 for points in directions.values() for p in points}
        above = axis.secondary_xaxis("top")
        shown = [size for size in work if math.log2(size) % 1 == 0]
        above.set_xticks([work[s] for s in shown], [f"{s}³" for s in shown], fontsize=8)
        above.minorticks_off()
        axis.title.set_position((0.5, 1.1))
        axis.set_xlabel("useful operations of a run, in 10⁹ (above: the input)")
    axes[0][0].set_ylabel("time of an operation, best = 1")
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"{report.cpu_name()}, {threads} threads, float32", fontsize=10, x=0.02,
                    ha="left")  # fmt: skip
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


# ---- Memory ------------------------------------------------------------------------------


def part_memory(args, known):
    contender, found = peers.Convt3d(args.threads), {}
    print("\nscratch, with packed weights; the limit is 10 % of input, output and weights, "
          "plus 16 MiB\n")  # fmt: skip
    rows = [["direction", "most of its limit", "MiB", "limit MiB", "lines above their limit"]]
    for direction in args.directions:
        lines = {}
        for name in args.layers:
            tensors = sum(known[name].bytes(direction))
            lines[name] = {"extra_bytes": contender.scratch(known[name], direction),
                           "limit": int(SCRATCH_PART * tensors) + SCRATCH_BYTES}  # fmt: skip
        found[direction] = lines
        part = {name: m["extra_bytes"] / m["limit"] for name, m in lines.items()}
        worst = max(part, key=part.get)
        above = ", ".join(f"{name} {p:.2f}" for name, p in part.items() if p > 1)
        rows.append([direction, f"{worst} {part[worst]:.2f}",
                     f"{lines[worst]['extra_bytes'] / 2**20:.1f}",
                     f"{lines[worst]['limit'] / 2**20:.1f}", above or "none"])  # fmt: skip
    report.print_rows(rows)
    return found


PARTS = {"threads": part_threads, "sizes": part_sizes, "memory": part_memory}


# ---- The program ---------------------------------------------------------------------------


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--layers", default="", help="names, with commas; all by default")
    parser.add_argument("--directions", default=",".join(layers.DIRECTIONS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="of inputs, ascending")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--out", type=Path, default=layers.ROOT / "build/bench")
    args = parser.parse_args()
    known = layers.read()
    args.parts, args.directions = args.parts.split(","), args.directions.split(",")
    args.layers = args.layers.split(",") if args.layers else list(known)
    args.sizes = [int(size) for size in args.sizes.split(",")]
    for option, legal in (("parts", PARTS), ("layers", known), ("directions", layers.DIRECTIONS)):
        if not set(getattr(args, option)) <= set(legal):
            parser.error(f"--{option}: legal are {' '.join(legal)}")
    return args, known


def main():
    args, known = read_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    summary = {**report.origin(), "threads_used": args.threads, "rounds": args.rounds}
    print(f"{summary['cpu']}, {args.threads} threads, {summary['date']}")
    for part in args.parts:
        summary[part] = PARTS[part](args, known)
    written = ["scaling.json"]
    (args.out / written[0]).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    pyplot = report.load_pyplot() if "sizes" in args.parts else None
    if pyplot:
        written.append("scaling.svg")
        write_svg(pyplot, summary["sizes"], args.threads, args.out / written[1])
    print(f"\nwritten to {args.out}: {', '.join(written)}")


if __name__ == "__main__":
    main()
