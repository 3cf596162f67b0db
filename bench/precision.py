"""Precisions of float32: their errors, and their speed against an isa without AMX.

Usage: python bench/precision.py [--parts errors,speed] [--rounds N] [--layers a,b]
           [--directions forward,backward_input] [--threads N] [--out FOLDER]

errors: root mean square of |error| / (u*S), u = 2^-24, S the sum of the magnitudes of a result's
        products, of layers with K products a result, K = 8 to 32,768, and five kinds of data.
speed:  each line of bench/layers.txt by the isa x86_avx512 and, at each precision, by x86_amx, in
        alternating rounds of one process, weights packed; medians.
Writes FOLDER/precision.md and, where matplotlib is there, FOLDER/precision.svg.

SPDX-License-Identifier: MIT
"""

import argparse
import ctypes
import os
import statistics
import sys
import time

import layers
import report

sys.path.insert(0, str(layers.ROOT / "python/src"))
os.environ.setdefault("CONVT3D_LIBRARY", str(layers.ROOT / "build/libconvt3d.so"))

import numpy  # noqa: E402

from convt3d import _arrays, _layer, _library  # noqa: E402

PRECISIONS = ("highest", "high", "medium")
# (what, isa, precision); the first is what the others are compared with.
WAYS = [("FMA", b"x86_avx512", "highest"), *((p, b"x86_amx", p) for p in PRECISIONS)]
DIRECTIONS = {"forward": _library.FORWARD, "backward_input": _library.BACKWARD_INPUT}


class Way:
    """A plan of one isa and precision, and packed weights."""

    def __init__(self, layer, direction, shapes, weight, isa, precision, threads):
        dtype = _arrays.dtype_code("weight", weight)
        problem, _ = _layer.make_problem(layer, dtype, *shapes)
        options, error = _library.Options(), _library.CError()
        _library.library.convt3d_options_init(ctypes.byref(options))
        options.threads, options.isa = threads, isa
        options.precision = _library.PRECISIONS[precision]
        self.handle = ctypes.c_void_p()
        status = _library.library.convt3d_plan_create(
            ctypes.byref(problem), direction, ctypes.byref(options), ctypes.byref(self.handle),
            ctypes.byref(error),
        )  # fmt: skip
        if status:
            raise _library.failure(status, error)
        self.direction = direction
        self.weights = _layer.Weights(self, _arrays.pack("weight", weight, weight.dtype))

    def __del__(self):
        _library.library.convt3d_plan_free(self.handle)

    def terms(self):
        size = _library.library.convt3d_plan_describe(self.handle, None, 0) + 1
        text = ctypes.create_string_buffer(size)
        _library.library.convt3d_plan_describe(self.handle, text, size)
        return b"where they fit its range" in text.value

    def run(self, source, result):
        error, arguments = _library.CError(), [self.handle, source, None, self.weights.handle]
        if self.direction == _library.FORWARD:
            function, arguments = _library.library.convt3d_forward, [*arguments, None, result]
        else:
            function, arguments = _library.library.convt3d_backward_input, [*arguments, result, 0]
        status = function(*arguments, None, ctypes.byref(error))
        if status:
            raise _library.failure(status, error)


# ---- Errors --------------------------------------------------------------------


def wide(rng, shape):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-15, 16, shape)


def scaled(rng, shape, axis, sign):
    """Channels of very unlike sizes, largest where the other operand's are smallest."""
    sizes = 2.0 ** (sign * (numpy.arange(shape[axis]) % 41 - 20))
    return rng.standard_normal(shape) * sizes.reshape([-1 if a == axis else 1 for a in range(5)])


KINDS = {
    "normal": lambda rng, shape, axis, sign: rng.standard_normal(shape),
    "uniform": lambda rng, shape, axis, sign: rng.uniform(-1, 1, shape),
    "positive": lambda rng, shape, axis, sign: numpy.abs(rng.standard_normal(shape)),
    "wide range": lambda rng, shape, axis, sign: wide(rng, shape),
    "badly scaled": scaled,
}
CHANNELS, POSITIONS = 64, (2, 4, 32)


def rms(kind, products):
    """Of each way; K products are as many input channels, or eight taps of an eighth."""
    rng = numpy.random.default_rng(products)
    taps = 2 if products >= 512 else 1
    channels = products // taps**3
    layer = _layer.Layer(padding_before=(taps // 2,) * 3, padding_after=(taps // 2,) * 3)
    shape, weight_shape = (1, channels, *POSITIONS), (channels, CHANNELS, taps, taps, taps)
    x = KINDS[kind](rng, shape, 1, 1).astype("float32")
    w = KINDS[kind](rng, weight_shape, 0, -1).astype("float32")
    shapes = (shape, weight_shape)
    exact, sums = (
        compute(layer, shapes, f(x.astype("float64")), f(w.astype("float64")), *WAYS[0][1:])
        for f in (numpy.asarray, numpy.abs)
    )
    for _, isa, precision in WAYS:
        error = (compute(layer, shapes, x, w, isa, precision) - exact) / (2.0**-24 * sums)
        yield float(numpy.sqrt(numpy.mean(error**2)))


def compute(layer, shapes, x, w, isa, precision):
    y = numpy.empty(_layer.make_problem(layer, _arrays.dtype_code("x", x), *shapes)[1], x.dtype)
    way = Way(layer, _library.FORWARD, shapes, w, isa, precision, 2)
    way.run(_arrays.pack("x", x, x.dtype), _arrays.pack("y", y, y.dtype))
    return y


def errors(out):
    sizes = [2**n for n in range(3, 16)]
    yield "Root mean square error in u*S: " + ", ".join(name for name, *_ in WAYS)
    yield ""
    yield "| K | " + " | ".join(KINDS) + " |"
    yield "|---|" + "---|" * len(KINDS)
    found = {}
    for k in sizes:
        for kind in KINDS:
            found[kind, k] = list(rms(kind, k))
        cells = (" / ".join(f"{e:.3g}" for e in found[kind, k]) for kind in KINDS)
        yield f"| {k} | " + " | ".join(cells) + " |"
    plot(sizes, found, os.path.join(out, "precision.svg"))


def plot(sizes, found, path):
    pyplot = report.load_pyplot()
    if not pyplot:
        return
    marks = dict(zip((name for name, *_ in WAYS), ("s", "o", "v", "D")))
    figure, axes = pyplot.subplots(1, len(KINDS), sharey=True, figsize=(12, 3.6),
                                   layout="constrained")  # fmt: skip
    for axis, kind in zip(axes, KINDS):
        for i, (name, mark) in enumerate(marks.items()):
            axis.plot(sizes, [found[kind, k][i] for k in sizes], mark + "-", markersize=4,
                      linewidth=0.8, label=name, markerfacecolor="none")  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=10)
        axis.set_title(kind, fontsize=10)
        axis.grid(linewidth=0.3)
    axes[0].set_ylabel("rms error / (u S)")
    figure.supxlabel("K, products of a result", fontsize=10)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=4,
                  fontsize=8, frameon=False)  # fmt: skip
    figure.savefig(path, metadata={"Date": None})


# ---- Speed ---------------------------------------------------------------------


def normals(rng, shape):
    array = _arrays.empty(shape, numpy.dtype("float32"))
    array[...] = rng.standard_normal(shape, numpy.float32)
    return array


def seconds(way, source, result):
    start, count = time.perf_counter(), 0
    while True:
        way.run(source, result)
        count += 1
        passed = time.perf_counter() - start
        if passed > 0.1:
            return passed / count


def times(line, direction, rounds, threads):
    """(medians by way, whether "highest" multiplies terms)."""
    rng = numpy.random.default_rng(1)
    layer = _layer.make_layer(line.stride, line.padding, line.output_padding, line.groups,
                              line.dilation, "zeros")  # fmt: skip
    shapes = (line.input_shape, line.weight_shape)
    forward = direction == "forward"
    weight = normals(rng, line.weight_shape)
    source = normals(rng, line.input_shape if forward else line.output_shape)
    result = normals(rng, line.output_shape if forward else line.input_shape)
    packed = [_arrays.pack("array", a, a.dtype) for a in (source, result)]
    ways = [Way(layer, DIRECTIONS[direction], shapes, weight, *way[1:], threads) for way in WAYS]
    found = [[] for _ in ways]
    for number in range(-1, rounds):
        order = list(enumerate(ways))
        for i, way in order if number % 2 else reversed(order):
            passed = seconds(way, *packed)
            if number >= 0:
                found[i].append(passed)
    return [statistics.median(f) for f in found], ways[1].terms()


def speed(directions, names, rounds, threads):
    for direction in directions:
        yield f"| {direction} | FMA | highest | high | medium |"
        yield "|---|---|---|---|---|"
        ratios = [[], [], []]
        for name, line in layers.read().items():
            if names and name not in names:
                continue
            (fma, *others), terms = times(line, direction, rounds, threads)
            cells = [f"{fma / t:.2f}" for t in others]
            for found, t in zip(ratios, others):
                if terms:
                    found.append(fma / t)
            if not terms:
                cells[0] += " (FMA)"
            yield f"| {name} | {1e3 * fma:.2f} ms | " + " | ".join(cells) + " |"
        means = " | ".join(f"{report.geomean(r):.2f}" if r else "" for r in ratios)
        yield f"| geometric mean where \"highest\" isn't FMA ({len(ratios[0])}) | | {means} |"
        yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="errors,speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", default="", help="names of bench/layers.txt, by comma")
    parser.add_argument("--directions", default=",".join(DIRECTIONS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="build/bench")
    options = parser.parse_args()
    if not _library.library.convt3d_isa_supported(b"x86_amx"):
        sys.exit("this CPU has no AMX")
    os.makedirs(options.out, exist_ok=True)
    names = set(filter(None, options.layers.split(",")))
    directions = options.directions.split(",")
    parts = {"errors": lambda: errors(options.out),
             "speed": lambda: speed(directions, names, options.rounds, options.threads)}  # fmt: skip
    with open(os.path.join(options.out, "precision.md"), "w", encoding="utf-8") as file:
        for part in options.parts.split(","):
            for text in parts[part]():
                print(text, flush=True)
                file.write(text + "\n")


if __name__ == "__main__":
    main()
