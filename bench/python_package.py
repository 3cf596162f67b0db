"""What Python costs, and PyTorch's own layer against this one through PyTorch.

Usage: python bench/python_package.py [--parts overhead,layers] [--layers a,b]
           [--rounds N] [--out FOLDER]

overhead: one call of a small layer by NumPy and by PyTorch, and the C call in it.
layers:   each line of bench/layers.txt as torch.nn.ConvTranspose3d and as what
          convt3d.torch.accelerate() makes of it, in alternating rounds of one process:
          forward in eval mode without gradients, and a training step, forward and the
          gradients of input, weight and bias.  Medians of the rounds.
Writes FOLDER/python.md.

SPDX-License-Identifier: MIT
"""

import argparse
import ctypes
import datetime
import math
import os
import statistics
import sys
import time

import layers

sys.path.insert(0, str(layers.ROOT / "python/src"))
os.environ.setdefault("CONVT3D_LIBRARY", str(layers.ROOT / "build/libconvt3d.so"))

import numpy  # noqa: E402

import convt3d  # noqa: E402
from convt3d import _arrays, _layer, _library, conv_transpose3d  # noqa: E402

SMALL = {"stride": 2, "padding": 1, "output_padding": 1}


def seconds_each(function, budget):
    """Seconds a call, over as many calls as the budget has room for."""
    start, count = time.perf_counter(), 0
    while True:
        function()
        count += 1
        passed = time.perf_counter() - start
        if passed > budget:
            return passed / count


def alternating(functions, rounds, budget):
    """For each function its median of the rounds, in which they take turns."""
    for function in functions:
        function()
    times = [[] for _ in functions]
    for number in range(rounds):
        order = list(enumerate(functions))
        for index, function in order if number % 2 == 0 else reversed(order):
            times[index].append(seconds_each(function, budget))
    return [statistics.median(t) for t in times]


# ---- Overhead ------------------------------------------------------------------


def small_layer():
    """Arrays of a layer that takes about ten microseconds."""
    rng = numpy.random.default_rng(0)
    return [rng.standard_normal(shape, numpy.float32)
            for shape in ((1, 4, 3, 4, 5), (4, 3, 3, 3, 3), (3,))]  # fmt: skip


def overhead(rounds):
    x, w, b = small_layer()
    # One thread: waking another takes longer than this layer.
    convt3d.set_num_threads(1)
    out = conv_transpose3d(x, w, b, **SMALL)
    layer = _layer.make_layer(2, 1, 1, 1, 1, "zeros")
    plan = _layer.make_plan(layer, _library.FORWARD, _library.FLOAT32, x.shape, w.shape, 1)
    tensors = [_arrays.pack("array", a, a.dtype) for a in (x, w, b, out)]
    error, run = _library.CError(), _library.Run()
    forward = _library.library.convt3d_forward
    _library.library.convt3d_run_init(ctypes.byref(run))
    scratch = ctypes.create_string_buffer(plan.scratch_size)  # as the package gives it
    run.scratch, run.scratch_size = ctypes.addressof(scratch), plan.scratch_size

    def in_c():
        forward(plan.handle, tensors[0], tensors[1], None, tensors[2], tensors[3], run, error)

    names = ["the C call alone (by ctypes)", "convt3d.conv_transpose3d",
             "convt3d.conv_transpose3d with out="]  # fmt: skip
    calls = [in_c, lambda: conv_transpose3d(x, w, b, **SMALL),
             lambda: conv_transpose3d(x, w, b, out=out, **SMALL)]  # fmt: skip
    try:
        import torch

        import convt3d.torch as front
    except ImportError:
        pass
    else:
        own = torch.nn.ConvTranspose3d(4, 3, 3, **SMALL).eval()
        ours = front.ConvTranspose3d(4, 3, 3, **SMALL).eval()
        tensor = torch.from_numpy(x)
        names += ["convt3d.torch.ConvTranspose3d, eval", "torch.nn.ConvTranspose3d, eval"]
        calls += [torch.no_grad()(lambda: ours(tensor)), torch.no_grad()(lambda: own(tensor))]
    times = alternating(calls, rounds, 0.2)
    convt3d.set_num_threads(None)
    yield "| one call of a small layer | microseconds | above the C call |"
    yield "|---|---|---|"
    for name, seconds in zip(names, times):
        yield f"| {name} | {1e6 * seconds:.1f} | {1e6 * (seconds - times[0]):.1f} |"


# ---- Layers --------------------------------------------------------------------


def modules(line):
    import torch

    import convt3d.torch as front

    arguments = {
        "in_channels": line.in_channels, "out_channels": line.out_channels,
        "kernel_size": line.kernel, "stride": line.stride, "padding": line.padding,
        "output_padding": line.output_padding, "groups": line.groups, "bias": line.bias,
        "dilation": line.dilation,
    }  # fmt: skip
    own = torch.nn.ConvTranspose3d(**arguments)
    ours = torch.nn.ConvTranspose3d(**arguments)
    ours.load_state_dict(own.state_dict())
    front.accelerate(ours)
    return own, ours


def compare(line, rounds):
    """Seconds (own, ours) of forward and of a training step."""
    import torch

    own, ours = modules(line)
    x, budget = torch.randn(line.input_shape), 0.15

    def forward(module):
        module.eval()

        def run():
            with torch.no_grad():
                return module(x)

        return run

    def step(module):
        module.train()
        leaf = x.clone().requires_grad_()

        def run():
            module.zero_grad()
            leaf.grad = None
            output = module(leaf)
            output.backward(gradient)

        return run

    first = alternating([forward(own), forward(ours)], rounds, budget)
    gradient = torch.randn(line.output_shape)
    second = alternating([step(own), step(ours)], rounds, budget)
    return first, second


def table(names, rounds):
    yield "| layer | forward: PyTorch | convt3d | ratio | step: PyTorch | convt3d | ratio |"
    yield "|---|---|---|---|---|---|---|"
    ratios = [[], []]
    for name, line in layers.read().items():
        if names and name not in names:
            continue
        row = []
        for found, (own, ours) in zip(ratios, compare(line, rounds)):
            found.append(own / ours)
            row += [f"{1e3 * own:.2f} ms", f"{1e3 * ours:.2f} ms", f"{own / ours:.2f}"]
        yield f"| {name} | " + " | ".join(row) + " |"
    means = [math.exp(statistics.fmean(map(math.log, r))) for r in ratios]
    yield f"| geometric mean | | | {means[0]:.2f} | | | {means[1]:.2f} |"
    yield ""
    for what, found in zip(("forward", "a training step"), ratios):
        slower = sum(r < 1 for r in found)
        yield f"In {what}, {slower} of {len(found)} lines are slower than PyTorch's own."


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="overhead,layers")
    parser.add_argument("--layers", default="", help="names of bench/layers.txt, by comma")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="build/bench")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    names = set(filter(None, options.layers.split(",")))
    parts = {"overhead": lambda: overhead(options.rounds),
             "layers": lambda: table(names, options.rounds)}  # fmt: skip
    with open(os.path.join(options.out, "python.md"), "w", encoding="utf-8") as report:

        def say(text):
            print(text, flush=True)
            report.write(text + "\n")

        name = ctypes.create_string_buffer(128)
        _library.library.convt3d_cpu_name(name, 128)
        versions = f"NumPy {numpy.__version__}"
        if "torch" in sys.modules or "layers" in options.parts:
            versions += f", PyTorch {__import__('torch').__version__}"
        say(f"{name.value.decode()}, {_library.library.convt3d_cpu_count()} CPUs, "
            f"Python {sys.version.split()[0]}, {versions}, "
            f"{datetime.date.today()}, {options.rounds} rounds\n")  # fmt: skip
        for part in options.parts.split(","):
            for text in parts[part]():
                say(text)
            say("")


if __name__ == "__main__":
    main()
