"""Tables, CSV, JSON and a plot of what bench/compare.py measured.

SPDX-License-Identifier: MIT
"""

import csv
import dataclasses
import datetime
import json
import math
import re
import statistics
import subprocess
from pathlib import Path

import layers

TITLES = {"onednn_dropin": "oneDNN drop-in", "onednn_best": "oneDNN best", "torch": "PyTorch",
          "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}  # fmt: skip
# What is told apart by colour is told apart by form as well: (marker, colour, size).
MARKS = {"onednn_best": ("|", "#0072b2", 11), "onednn_dropin": ("o", "#0072b2", 6),
         "torch": ("s", "#d55e00", 6), "onnxruntime": ("v", "#009e73", 5),
         "openvino": ("D", "#8a4f9e", 4)}  # fmt: skip
COLOURS = ("#0072b2", "#d55e00", "#009e73")


@dataclasses.dataclass
class Run:
    machine: dict
    versions: dict
    threads: int
    rounds: int
    results: list

    def of(self, direction):
        return [r for r in self.results if r["direction"] == direction]


def bound_seconds(machine, threads, layer, direction):
    """(seconds, whether arithmetic decides): useful operations at the FMA peak, or every
    byte once at the bandwidths of reading and of non-temporal writing."""
    read, written = layer.bytes(direction)
    compute = layer.useful / (machine["fma_gflops"][str(threads)] * 1e9)
    memory = read / (machine["read_gbs"] * 1e9) + written / (machine["nt_write_gbs"] * 1e9)
    return max(compute, memory), compute >= memory


def ratios(result):
    return {c: p["seconds"] / result["seconds"] for c, p in result["peers"].items()}


def progress(result):
    text = "  ".join(f"{TITLES[c]} {r:.2f}" for c, r in ratios(result).items())
    print(f"{result['direction']:15} {result['layer'].name:15} "
          f"{result['seconds'] * 1e3:9.2f} ms  {text}", flush=True)  # fmt: skip


def geomean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values))


def cpu_name():
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return match[1] if match else "unknown"


# ---- Tables ----------------------------------------------------------------------------


def table(run, direction):
    """Rows of text, the heading first."""
    results = run.of(direction)
    columns = [c for c in TITLES if any(c in r["peers"] for r in results)]
    rows = [["layer", "ms", "GFLOP/s", "bound ms", "ms/bound", "extra MiB"]
            + [TITLES[c] for c in columns]]  # fmt: skip
    for r in results:
        bound, compute = bound_seconds(run.machine, run.threads, r["layer"], direction)
        ratio = ratios(r)
        rows.append([
            r["layer"].name, f"{r['seconds'] * 1e3:.2f}",
            f"{r['layer'].work / r['seconds'] * 1e-9:.0f}",
            f"{bound * 1e3:.2f}{'' if compute else 'm'}", f"{r['seconds'] / bound:.2f}",
            f"{(r['extra_bytes'] or 0) / 2**20:.1f}",
        ] + [f"{ratio[c]:.2f}" if c in ratio else "" for c in columns])  # fmt: skip
    for name, function in (("geometric mean", geomean), ("median", statistics.median)):
        values = [[ratios(r)[c] for r in results if c in r["peers"]] for c in columns]
        rows.append([name, "", "", "", "", ""] + [f"{function(v):.2f}" for v in values])
    return rows


def print_rows(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        first = row[0].ljust(widths[0])
        print("  ".join([first] + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:])]))


def print_tables(run):
    m = run.machine
    print(f"\n{cpu_name()}, {run.threads} threads, {datetime.date.today()}; medians of "
          f"{run.rounds} rounds or more")  # fmt: skip
    print(f"FMA {m['fma_gflops']} GFLOP/s, read {m['read_gbs']}, non-temporal write "
          f"{m['nt_write_gbs']}, copy {m['copy_gbs']} GB/s")  # fmt: skip
    print(", ".join(f"{name} {version}" for name, version in run.versions.items()))
    for direction in layers.DIRECTIONS:
        if not run.of(direction):
            continue
        print(f"\n{direction}: ratios are the peer's time / convt3d's; m: memory decides\n")
        print_rows(table(run, direction))
        print_choices(run.of(direction))
        print_losses(run.of(direction))


def print_choices(results):
    print("\nwhat each peer chose:")
    for r in results:
        chosen = ", ".join(f"{TITLES[c]}: {p['variant']} {p['implementation']}"
                           for c, p in r["peers"].items() if c.startswith("onednn")
                           or c == "openvino")  # fmt: skip
        print(f"  {r['layer'].name}: {chosen}")


def print_losses(results):
    lost = [f"{r['layer'].name} ({TITLES[c]} {v:.2f})"
            for r in results for c, v in ratios(r).items() if v < 1]  # fmt: skip
    print(f"\nlines that convt3d loses: {', '.join(lost) if lost else 'none'}")


# ---- Files -----------------------------------------------------------------------------


def write_csv(run, path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["layer", "problem", "direction", "contender", "variant", "implementation",
                      "ms", "ratio"])  # fmt: skip
        for r in run.results:
            ours = [r["layer"].name, r["layer"].text, r["direction"]]
            out.writerow(ours + ["convt3d", "", r["implementation"], r["seconds"] * 1e3, 1])
            for c, p in r["peers"].items():
                out.writerow(ours + [c, p["variant"], p["implementation"], p["seconds"] * 1e3,
                                     p["seconds"] / r["seconds"]])  # fmt: skip


def summary_of(run, direction):
    results = run.of(direction)
    columns = [c for c in TITLES if any(c in r["peers"] for r in results)]
    by_column = {c: [(ratios(r)[c], r["layer"].name) for r in results if c in r["peers"]]
                 for c in columns}  # fmt: skip
    lines = {}
    for r in results:
        bound, _ = bound_seconds(run.machine, run.threads, r["layer"], direction)
        lines[r["layer"].name] = {
            "ms": round(r["seconds"] * 1e3, 4),
            "gflops": round(r["layer"].work / r["seconds"] * 1e-9, 2),
            "bound_ms": round(bound * 1e3, 4),
            "extra_bytes": r["extra_bytes"],
            "ratio": {c: round(v, 3) for c, v in ratios(r).items()},
        }
    return {
        "geomean": {c: round(geomean([v for v, _ in pairs]), 3) for c, pairs in by_column.items()},
        "median": {c: round(statistics.median(v for v, _ in pairs), 3)
                   for c, pairs in by_column.items()},
        "worst": {c: [min(pairs)[1], round(min(pairs)[0], 3)] for c, pairs in by_column.items()},
        "lines": lines,
    }  # fmt: skip


def origin():
    """Where and when figures were measured."""
    commit = subprocess.run(["git", "-C", str(layers.ROOT), "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True, check=False).stdout.strip()  # fmt: skip
    return {"commit": commit, "date": str(datetime.date.today()), "cpu": cpu_name()}


def write_json(run, path):
    summary = {
        **origin(),
        "threads": run.threads,
        "peers": {k: v for k, v in run.versions.items() if k != "convt3d"},
        "machine": run.machine,
        "highest": {d: summary_of(run, d) for d in layers.DIRECTIONS if run.of(d)},
    }
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def load_pyplot():
    """matplotlib's pyplot for reproducible SVG files; None, with a word, where it isn't there."""
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: no plot")
        return None
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "convt3d"
    from matplotlib import pyplot

    return pyplot


def plot_direction(axis, results, columns):
    """A row a layer and, at the end, one of geometric means: a mark for each peer."""
    rows = len(results)
    axis.axvspan(1e-3, 1, color="#f2f2f2", linewidth=0, zorder=0)
    axis.axvline(1, color="black", linewidth=1)
    axis.axhline(rows - 0.5, color="black", linewidth=0.5)
    for column in columns:
        points = [(ratios(r)[column], i) for i, r in enumerate(results) if column in r["peers"]]
        if not points:
            continue
        points.append((geomean([v for v, _ in points]), rows))
        style, colour, size = MARKS[column]
        axis.plot(*zip(*points), style, color=colour, markersize=size, label=TITLES[column],
                  markerfacecolor="none" if style in "vD" else colour)  # fmt: skip
    axis.set_yticks(range(rows + 1), [r["layer"].name for r in results] + ["geometric mean"],
                    fontsize=8)  # fmt: skip
    axis.set_ylim(rows + 0.6, -0.7)
    axis.grid(linewidth=0.3)
    axis.set_axisbelow(True)


def write_svg(run, path):
    pyplot = load_pyplot()
    if not pyplot:
        return
    directions = [d for d in layers.DIRECTIONS if run.of(d)]
    columns = [c for c in MARKS if any(c in r["peers"] for r in run.results)]
    values = [ratios(r)[c] for r in run.results for c in columns if c in r["peers"]] + [1]
    most = max(len(run.of(d)) for d in directions)
    figure, axes = pyplot.subplots(1, len(directions), sharex=True, squeeze=False,
                                   figsize=(2 + 3.4 * len(directions), 1.8 + 0.2 * most),
                                   layout="constrained")  # fmt: skip
    for axis, direction in zip(axes[0], directions):
        plot_direction(axis, run.of(direction), columns)
        axis.set_xscale("log", base=2)
        axis.set_xlim(min(values) / 1.3, max(values) * 1.3)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(direction, fontsize=11)
        axis.tick_params(labelleft=axis is axes[0][0])  # the lines are the same in all
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right",
                  ncols=len(columns), fontsize=8, frameon=False)  # fmt: skip
    figure.supxlabel("times as fast as the other library; right of 1, convt3d is faster",
                     fontsize=10)  # fmt: skip
    figure.suptitle(f"{cpu_name()}, {run.threads} threads, float32", fontsize=10, x=0.01, ha="left")
    figure.savefig(path, metadata={"Date": None})


def write_files(run, out):
    write_csv(run, out / "results.csv")
    write_json(run, out / "summary.json")
    write_svg(run, out / "summary.svg")
    print(f"\nwritten to {out}: results.csv, summary.json, summary.svg")
