#!/usr/bin/env python3
"""Times convt3d's forward against the PyTorch that this Python has.

Usage: bench/compare_torch.py [--library build/libconvt3d.so] [--rounds 7] [NAME ...]

NAME is that of a line of bench/layers.txt (default: page_k352).  Both run in
turn in this process on the same data, float32, plain NCDHW in and out, on the
same number of threads; convt3d's weights are packed beforehand, and its output
is reused, while PyTorch allocates its own, as each of them is used.  Prints the
median of each and of the ratio of neighbouring runs, and compares the results.
SPDX-License-Identifier: MIT
"""

import argparse
import ctypes
import re
import statistics
import time
from pathlib import Path

import numpy
import torch

ROOT = Path(__file__).resolve().parent.parent
FORWARD, FLOAT32 = 0, 1


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("size", ctypes.c_int64 * 5),
        ("stride", ctypes.c_int64 * 5),
    ]


class Problem(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("dtype", ctypes.c_int),
        ("padding_mode", ctypes.c_int),
        ("bias", ctypes.c_int32),
        ("batch", ctypes.c_int64),
        ("in_channels", ctypes.c_int64),
        ("out_channels", ctypes.c_int64),
        ("groups", ctypes.c_int64),
    ] + [
        (name, ctypes.c_int64 * 3)
        for name in (
            "input_size",
            "kernel_size",
            "stride",
            "padding_before",
            "padding_after",
            "output_padding",
            "dilation",
        )
    ]


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("text", ctypes.c_char * 508)]


def tensor(array):
    view = Tensor(array.ctypes.data, FLOAT32, array.ndim)
    view.size[: array.ndim] = array.shape
    view.stride[: array.ndim] = [s // 4 for s in array.strides]
    return view


class Convt3d:
    """One layer, planned and packed."""

    def __init__(self, library, string, weight, bias, output_shape):
        self.library, self.error = library, Error()
        self.problem, self.plan, self.packed = Problem(), ctypes.c_void_p(), ctypes.c_void_p()
        self.check("problem_parse", string.encode(), self.problem, None, ctypes.c_size_t(0))
        self.check("plan_create", self.problem, FORWARD, None, self.plan)
        self.check("weights_pack", self.plan, tensor(weight), self.packed)
        self.bias = None if bias is None else ctypes.byref(tensor(bias))
        self.output = numpy.zeros(output_shape, numpy.float32)

    def check(self, name, *args):
        args = [ctypes.byref(a) if isinstance(a, ctypes.Structure) else a for a in args]
        out = {"plan_create": 3, "weights_pack": 2}.get(name)
        if out is not None:
            args[out] = ctypes.byref(args[out])
        if getattr(self.library, "convt3d_" + name)(*args, ctypes.byref(self.error)):
            raise SystemExit(self.error.text.decode())

    def run(self, x):
        self.check("forward", self.plan, tensor(x), None, self.packed, self.bias,
                   tensor(self.output), None)  # fmt: skip
        return self.output


def layers():
    for line in (ROOT / "bench/layers.txt").read_text().splitlines():
        match = re.fullmatch(r'([^#:]+):"(\w+)"', line)
        if match:
            yield match[2], match[1]


def triple(string, key, default):
    match = re.search(rf"(?<![a-z]){key}(\d+(?:x\d+)*)", string)
    values = [int(v) for v in match[1].split("x")] if match else [default]
    return tuple(values * 3) if len(values) == 1 else tuple(values)


def compare(library, name, string, rounds):
    n, ci, co, g = (triple(string, key, 1)[0] for key in ("n", "ci", "co", "g"))
    size, kernel = triple(string, "i", 0), triple(string, "k", 0)
    random = numpy.random.default_rng(1)
    x = random.standard_normal((n, ci, *size), numpy.float32)
    weight = random.standard_normal((ci, co // g, *kernel), numpy.float32)
    bias = None if "nb" in string else random.standard_normal(co).astype(numpy.float32)
    arguments = {
        "stride": triple(string, "s", 1),
        "padding": triple(string, "p", 0),
        "output_padding": triple(string, "op", 0),
        "groups": g,
        "dilation": triple(string, "d", 1),
    }
    tx, tw = torch.from_numpy(x), torch.from_numpy(weight)
    tb = None if bias is None else torch.from_numpy(bias)

    def peer():
        with torch.no_grad():
            return torch.nn.functional.conv_transpose3d(tx, tw, tb, **arguments).numpy()

    expected = peer()
    ours = Convt3d(library, string, weight, bias, expected.shape)
    difference = numpy.abs(ours.run(x) - expected).max() / numpy.abs(expected).max()
    times = [[], []]
    for _ in range(rounds):
        for which, call in enumerate((lambda: ours.run(x), peer)):
            start = time.perf_counter()
            call()
            times[which].append(time.perf_counter() - start)
    work = 2.0 * weight.size * n * numpy.prod(size)
    mine, theirs = (statistics.median(t) for t in times)
    ratio = statistics.median(b / a for a, b in zip(*times))
    print(
        f"{name:15} {mine * 1e3:8.1f} ms {work / mine * 1e-9:6.0f} GFLOP/s   "
        f"PyTorch {theirs * 1e3:8.1f} ms   ratio {ratio:6.2f}   difference {difference:.1e}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", default=ROOT / "build/libconvt3d.so")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("names", nargs="*", default=["page_k352"], metavar="NAME")
    args = parser.parse_args()
    library = ctypes.CDLL(str(args.library))
    library.convt3d_version.restype = ctypes.c_char_p
    threads = library.convt3d_cpu_count()
    torch.set_num_threads(threads)
    print(f"convt3d {library.convt3d_version().decode()} on {threads} threads, "
          f"PyTorch {torch.__version__}; ratio = PyTorch's time / convt3d's")  # fmt: skip
    known = dict(layers())
    for name in args.names:
        if name not in known:
            parser.error(f"{name} is not in bench/layers.txt; there are {' '.join(known)}")
        compare(library, name, known[name], args.rounds)


if __name__ == "__main__":
    main()
