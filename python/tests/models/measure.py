#!/usr/bin/env python3
"""Times real models with PyTorch's own transposed convolutions and with convt3d's.

Usage: measure.py [--models A,B] [--rounds 5] [--modes inference,training] [--out FILE]

In one process, in alternating rounds: restore() and accelerate() between them, and each side
first in every other round.  A round is one call in eval mode without gradients, or forward
and backward of one training step; the times are medians.  Hooks add up the time spent in
the transposed convolutions.  Prints Markdown, and writes it to FILE.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import importlib.metadata
import math
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import torch
from torch import Tensor
from zoo import ZOO, tensors, transposed

import convt3d
from convt3d._library import library
from convt3d.torch import accelerate, restore

MODES = {
    "inference": "Inference (eval mode, no gradients)",
    "training": "Training step (forward and backward)",
}
PACKAGES = ("torch", "monai", "dynamic-network-architectures")
# Ratios within this of 1 are called equal.
NOISE = 0.02


class Times(NamedTuple):
    """Medians in milliseconds."""

    whole: float
    layers: float


class Line(NamedTuple):
    name: str
    patch: Sequence[int]
    layers: int
    torch: Times
    convt3d: Times

    @property
    def ratio(self) -> float:
        return self.torch.whole / self.convt3d.whole

    @property
    def layer_ratio(self) -> float:
        return self.torch.layers / self.convt3d.layers

    @property
    def share(self) -> float:
        return self.torch.layers / self.torch.whole


class Clock:
    """Adds up the time in a model's transposed convolutions, forward and backward.

    Backward is the time of one node of the graph, that of the layer's output.  (Full
    backward hooks don't allow that the output is changed in place, as SegResNetDS does.)
    """

    def __init__(self, model: torch.nn.Module):
        self.seconds = 0.0
        self._started = 0.0
        for layer in transposed(model).values():
            layer.register_forward_pre_hook(self._start)
            layer.register_forward_hook(self._forward)

    def _start(self, *_: object) -> None:
        self._started = time.perf_counter()

    def _stop(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started

    def _forward(self, layer: torch.nn.Module, inputs: object, output: Tensor) -> None:
        self._stop()
        if output.grad_fn is not None:
            output.grad_fn.register_prehook(self._start)
            output.grad_fn.register_hook(self._stop)


def infer(model: torch.nn.Module, input: Tensor) -> None:
    model.eval()
    with torch.no_grad():
        model(input)


def train(model: torch.nn.Module, input: Tensor) -> None:
    model.train()
    parts = [part.square().mean() for part in tensors(model(input))]
    torch.stack(parts).sum().backward()


def measure(name: str, mode: str, rounds: int) -> Line:
    model, input = ZOO[name].build(real=True)
    run = {"inference": infer, "training": train}[mode]
    clock = Clock(model)
    switches = {"torch": restore, "convt3d": accelerate}
    taken: Dict[str, List[Times]] = {side: [] for side in switches}
    for round in range(rounds + 1):
        for side in sorted(switches, reverse=round % 2 == 0):
            switches[side](model)
            model.zero_grad(set_to_none=True)
            clock.seconds = 0.0
            begun = time.perf_counter()
            run(model, input)
            whole = time.perf_counter() - begun
            if round:  # the first is for warming up
                taken[side].append(Times(whole * 1e3, clock.seconds * 1e3))
    medians = {
        side: Times(*(statistics.median(column) for column in zip(*times)))
        for side, times in taken.items()
    }
    return Line(name, input.shape[-3:], ZOO[name].layers, medians["torch"], medians["convt3d"])


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def table(lines: List[Line]) -> str:
    rows = [
        "| model | input | up-layers | whole, torch ms | convt3d ms | ratio "
        "| up-layers, torch ms | convt3d ms | ratio | share of the whole |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        size = "x".join(map(str, line.patch))
        cells = [
            line.name,
            size,
            line.layers,
            f"{line.torch.whole:.0f}",
            f"{line.convt3d.whole:.0f}",
            f"{line.ratio:.2f}",
            f"{line.torch.layers:.1f}",
            f"{line.convt3d.layers:.1f}",
            f"{line.layer_ratio:.2f}",
            f"{100 * line.share:.1f} %",
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def verdict(lines: List[Line]) -> str:
    """What the figures say, small shares first."""
    shares = [100 * line.share for line in lines]
    ratios = [line.ratio for line in lines]
    most = [1 / (1 - line.share) for line in lines]
    text = (
        f"The transposed convolutions take {min(shares):.1f} % to {max(shares):.1f} % of "
        f"PyTorch's time (median {statistics.median(shares):.1f} %): layers that took no time "
        f"at all would make these models {geometric_mean(most):.2f} times as fast.  convt3d's "
        f"are {geometric_mean([line.layer_ratio for line in lines]):.2f} times as fast as "
        f"PyTorch's, and the models {geometric_mean(ratios):.2f} times "
        f"({min(ratios):.2f} to {max(ratios):.2f}; all means are geometric)."
    )
    equal = [line.name for line in lines if abs(line.ratio - 1) < NOISE]
    slower = [line.name for line in lines if line.ratio <= 1 - NOISE]
    if equal:
        text += f"  No difference beyond {100 * NOISE:.0f} %: {', '.join(equal)}."
    if slower:
        text += f"  Slower: {', '.join(slower)}."
    return text


def heading(rounds: int) -> str:
    name = ctypes.create_string_buffer(128)
    library.convt3d_cpu_name(name, 128)
    versions = [f"convt3d {convt3d.__version__}"]
    versions += [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    return (
        f"{name.value.decode()}, {torch.get_num_threads()} threads, {datetime.date.today()}; "
        f"{', '.join(versions)}, Python {sys.version.split()[0]}.  float32, batch 1, random "
        f"weights; medians of {rounds} alternating rounds.  A ratio above 1 means that convt3d "
        "is faster."
    )


def names(kind: str, known: Sequence[str]):
    """An argument's type: some of the known names, with commas."""

    def parse(text: str) -> List[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{kind} {name!r} is not one of {list(known)}")
        return text.split(",")

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=names("model", list(ZOO)), default=list(ZOO))
    parser.add_argument("--modes", type=names("mode", list(MODES)), default=list(MODES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the models' own code
    parts = [heading(options.rounds)]
    for mode in options.modes:
        lines = []
        for name in options.models:
            lines.append(measure(name, mode, options.rounds))
            print(f"{mode}: {name}: {lines[-1].ratio:.2f}", file=sys.stderr, flush=True)
        parts += [f"### {MODES[mode]}", table(lines), verdict(lines)]
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
