#!/usr/bin/env python3
"""What comes before the first run: making a plan, and packing the weights.

Usage: bench/plan.py [--layers A,B] [--threads N] [--out build/bench]

For every line of bench/layers.txt: the median time of convt3d_plan_create() in each
direction; and of convt3d_weights_pack(), its memory's allocation included, as the bytes
read and written per second, next to the rate at which one thread copies on this machine
(bench/machine.c, non-temporal writes, far beyond the caches: small weights may be faster).

SPDX-License-Identifier: MIT
"""

import argparse
import ctypes
import os
import statistics
import time
from pathlib import Path

import numpy

import compare
import layers
import peers
import report

PACKED = ("forward", "backward_input")
SHORT = {"forward": "fwd", "backward_input": "bwd in", "backward_weight": "bwd w"}
TURN_SECONDS = 0.02


def timed(make, free):
    """The median time of make(error) in seconds; what it makes is freed in between."""
    times, made, start = [], ctypes.c_void_p(), time.perf_counter()
    error = peers.Error()
    while not times or time.perf_counter() - start < TURN_SECONDS:
        begin = time.perf_counter()
        failed = make(ctypes.byref(made), ctypes.byref(error))
        times.append(time.perf_counter() - begin)
        if failed:
            raise SystemExit(error.text.decode())
        free(made)
    return statistics.median(times)


def time_plan(ours, layer, direction):
    request, create = ours.request(layer, direction), ours.library.convt3d_plan_create
    return timed(lambda plan, error: create(*request, plan, error), ours.library.convt3d_plan_free)


def time_packing(ours, layer, direction):
    """(seconds, bytes read and written)"""
    library, plan = ours.library, ours.make_plan(layer, direction)
    weight = numpy.ones(layer.weight_shape, numpy.float32)
    view, packed, pack = peers.view(weight), ctypes.c_void_p(), library.convt3d_weights_pack
    ours.call("weights_pack", plan, view, ctypes.byref(packed))
    moved = weight.nbytes + library.convt3d_weights_size(packed)
    library.convt3d_weights_free(packed)
    seconds = timed(lambda made, error: pack(plan, view, made, error), library.convt3d_weights_free)
    library.convt3d_plan_free(plan)
    return seconds, moved


def row(ours, layer, copy_gbs):
    cells = [layer.name]
    cells += [f"{time_plan(ours, layer, d) * 1e6:.1f}" for d in layers.DIRECTIONS]
    cells.append(f"{numpy.prod(layer.weight_shape) * 4 / 2**20:.2f}")
    for direction in PACKED:
        seconds, moved = time_packing(ours, layer, direction)
        rate = moved / seconds * 1e-9
        cells += [f"{seconds * 1e3:.3f}", f"{rate:.1f}", f"{rate / copy_gbs:.0%}"]
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="", help="names, with commas; all by default")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=layers.ROOT / "build/bench")
    args = parser.parse_args()
    known = layers.read()
    names = args.layers.split(",") if args.layers else list(known)
    if not set(names) <= set(known):
        parser.error(f"--layers: legal are {' '.join(known)}")
    args.out.mkdir(parents=True, exist_ok=True)
    copy_gbs = compare.measure_machine(1, args.out)["copy_gbs"]
    ours = peers.Convt3d(args.threads)
    ours.library.convt3d_weights_size.restype = ctypes.c_size_t
    print(f"{report.cpu_name()}, plans for {args.threads} threads; one thread copies at "
          f"{copy_gbs} GB/s, reading and writing counted\n")  # fmt: skip
    rows = [["layer"] + [f"plan {SHORT[d]}, us" for d in layers.DIRECTIONS] + ["weights MiB"]]
    for direction in PACKED:
        rows[0] += [f"pack {SHORT[direction]}, ms", "GB/s", "of copy"]
    rows += [row(ours, known[name], copy_gbs) for name in names]
    report.print_rows(rows)


if __name__ == "__main__":
    main()
