#!/usr/bin/env python3
# make_golden: writes tests/golden, the values from PyTorch that the tests of the
# layer and of the module compare with.  The tests need only the files; this is
# for whoever wants to see where they come from, or to add a case.
#
# Made with Python 3.11, torch 2.13.0 (CPU), numpy 2.4 and safetensors 0.8:
#     python3 -m venv venv && venv/bin/pip install torch numpy safetensors
#     venv/bin/python tools/make_golden.py            (write the files)
#     venv/bin/python tools/make_golden.py --check    (compare with what is there)
#
# SPDX-License-Identifier: MIT
"""Golden values from PyTorch.

layers.txt              one problem string per layer
layers.safetensors      NAME/input, weight, bias, grad_output in the layer's
                        dtype; NAME/output, grad_input, grad_weight, grad_bias
                        from PyTorch, always in float64
init.txt                seed, hash of the weight, hash of the bias ("-": none),
                        problem string of the layer
init.safetensors        NAME/weight, NAME/bias: some of these layers in full
state_dict.safetensors  one module's state_dict, as its users save it
activation.txt          one problem string per layer that is followed by activations
activation.safetensors  NAME/input, weight, bias in the layer's dtype; NAME/conv and, after
                        each activation, NAME/relu, leaky_relu (slope 0.2), gelu, gelu_tanh,
                        sigmoid, tanh from PyTorch, always in float64
generator.txt           steps that draw from one stream, in order: see golden_stream()
generator.safetensors   float32/normal, float64/normal: the results of its "normal"
                        steps, one after another

All operands of a layer are multiples of 2^-20 below 4, which makes every sum of
products exact in float64: the values are what the mathematics says, and carry
no rounding of PyTorch's own.  Random numbers do carry it: uniform ones need a CPU
with FMA, and normal ones in float32 one with AVX2, to come out with these bits.
"""
import argparse
import filecmp
import math
import pathlib
import random as python_random
import tempfile

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

GRAIN = 2.0**-20
HERE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"


def three(value):
    return list(value) if isinstance(value, (list, tuple)) else [value] * 3


class Layer:
    """The arguments of one layer, in PyTorch's words; padding is three pairs."""

    def __init__(self, name, in_channels, out_channels, size, kernel_size, stride=1, padding=0,
                 output_padding=0, dilation=1, groups=1, bias=True, mode="zeros", batch=1,
                 unbatched=False, output_size=None, double=False):
        self.name = name
        self.channels = in_channels, out_channels
        self.groups, self.bias, self.mode = groups, bias, mode
        self.batch, self.unbatched = batch, unbatched
        self.size, self.kernel_size, self.stride = three(size), three(kernel_size), three(stride)
        self.dilation = three(dilation)
        self.padding = [tuple(p) if isinstance(p, (list, tuple)) else (p, p)
                        for p in three(padding)]
        self.output_size = output_size
        self.output_padding = three(output_padding)
        if output_size:
            self.output_padding = [o - f for o, f in zip(output_size, self.out())]
        self.dtype = torch.float64 if double else torch.float32

    def out(self):
        return [(i - 1) * s - sum(p) + d * (k - 1) + op + 1
                for i, s, p, d, k, op in zip(self.size, self.stride, self.padding, self.dilation,
                                             self.kernel_size, self.output_padding)]

    def symmetric(self):
        return all(before == after for before, after in self.padding)

    def problem(self):
        """The layer as a problem string, without what is default anyway."""
        def field(key, values, default):
            if all(v == default for v in values):
                return ""
            same = all(v == values[0] for v in values)
            return key + (str(values[0]) if same else "x".join(map(str, values)))

        padding = ([p[0] for p in self.padding] if self.symmetric() else
                   [side for pair in self.padding for side in pair])
        return "".join([
            field("n", [self.batch], 1), "ci%dco%d" % self.channels,
            field("g", [self.groups], 1), field("i", self.size, 0),
            field("k", self.kernel_size, 0), field("s", self.stride, 1),
            field("p", padding, 0), field("op", self.output_padding, 0),
            field("d", self.dilation, 1), "" if self.bias else "nb",
            "f64" if self.dtype == torch.float64 else "",
            "" if self.mode == "zeros" else "m" + self.mode, ':"%s"' % self.name])

    def weight_shape(self):
        return [self.channels[0], self.channels[1] // self.groups] + self.kernel_size

    def module(self, output_padding=None):
        return torch.nn.ConvTranspose3d(
            *self.channels, tuple(self.kernel_size), stride=tuple(self.stride),
            padding=tuple(p[0] for p in self.padding), output_padding=tuple(output_padding or self.output_padding),
            groups=self.groups, bias=self.bias, dilation=tuple(self.dilation), dtype=self.dtype)


# ---- What the layers compute ---------------------------------------------------


def by_module(layer, x, w, b):
    """PyTorch's own layer; output_size goes through its own arithmetic."""
    if layer.output_size:
        module = layer.module([0, 0, 0]).to(torch.float64)
        tensors = {"weight": w} if b is None else {"weight": w, "bias": b}
        return torch.func.functional_call(module, tensors, (x,),
                                          {"output_size": layer.output_size})
    return F.conv_transpose3d(x, w, b, layer.stride, [p[0] for p in layer.padding],
                              layer.output_padding, layer.groups, layer.dilation)


def by_gradient(layer, x, w, b):
    """The gradient, with respect to its input, of a Conv3d with that padding_mode.

    Conv3d's output may be longer than x where output_padding >= stride; what is
    beyond x gets no gradient.
    """
    shape = list(x.shape[:-4]) + [layer.channels[1]] + layer.out()
    z = torch.zeros(shape, dtype=x.dtype, requires_grad=True)
    pads = [side for pair in reversed(layer.padding) for side in pair]
    mode = "constant" if layer.mode == "zeros" else layer.mode
    # F.pad knows no padding of three axes without a batch.
    padded = F.pad(z if z.dim() == 5 else z[None], pads, mode=mode)
    conv = F.conv3d(padded, w, None, layer.stride, 0, layer.dilation, layer.groups)
    kept = conv[..., :layer.size[0], :layer.size[1], :layer.size[2]]
    kept = kept.reshape(x.shape)
    (y,) = torch.autograd.grad(kept, z, x, create_graph=True)
    return y if b is None else y + b.reshape(-1, 1, 1, 1)


def compute(layer, x, w, b, dy):
    function = by_module if layer.mode == "zeros" and layer.symmetric() else by_gradient
    known = [t for t in (x, w, b) if t is not None]
    for t in known:
        t.requires_grad_()
    y = function(layer, x, w, b)
    return [y.detach()] + list(torch.autograd.grad(y, known, dy))


def operand(random, shape):
    values = numpy.clip(random.standard_normal(shape), -3.9, 3.9)
    return torch.from_numpy(numpy.round(values / GRAIN) * GRAIN)


def assert_exact(layer, x, w, b, dy):
    """No sum of magnitudes leaves 53 bits, so no result above was ever rounded."""
    sums = compute(layer, x.detach().abs(), w.detach().abs(),
                   None if b is None else b.detach().abs(), dy.abs())
    assert max(s.max().item() for s in sums) / GRAIN**2 < 2**53, layer.name


def golden_layer(layer, random):
    batch = [] if layer.unbatched else [layer.batch]
    x = operand(random, batch + [layer.channels[0]] + layer.size)
    w = operand(random, layer.weight_shape())
    b = operand(random, [layer.channels[1]]) if layer.bias else None
    dy = operand(random, batch + [layer.channels[1]] + layer.out())
    results = compute(layer, x, w, b, dy)
    assert list(results[0].shape) == list(dy.shape), layer.name
    assert_exact(layer, x, w, b, dy)
    tensors = {"input": x, "weight": w, "grad_output": dy}
    if layer.bias:
        tensors["bias"] = b
    tensors = {key: value.detach().to(layer.dtype) for key, value in tensors.items()}
    names = ["output", "grad_input", "grad_weight"] + ["grad_bias"] * layer.bias
    tensors.update(zip(names, results))
    return {layer.name + "/" + key: value.contiguous() for key, value in tensors.items()}


LAYERS = [
    Layer("plain", 3, 4, (4, 5, 6), 3),
    Layer("page_like", 4, 3, (3, 6, 9), (3, 5, 2), (2, 1, 1), (0, 4, 2)),
    Layer("page_like_k3s2", 5, 7, (3, 4, 5), 3, 2, batch=2),
    Layer("unet_k2s2", 6, 3, (3, 4, 5), 2, 2),
    Layer("gan_k4s2p1", 4, 3, (3, 4, 5), 4, 2, 1, bias=False),
    Layer("unbatched", 3, 2, (3, 4, 5), (2, 3, 4), (2, 1, 3), (1, 0, 2), unbatched=True),
    Layer("all_differ", 2, 3, (2, 3, 4), (4, 3, 2), (1, 2, 3), (2, 1, 0), (0, 1, 2), (2, 3, 1)),
    Layer("groups", 6, 9, (3, 3, 4), 3, 2, 1, 1, groups=3, batch=2),
    Layer("depthwise", 7, 7, (3, 4, 5), 4, 2, 1, groups=7, bias=False),
    Layer("depthwise_multiplier", 3, 6, (3, 4, 5), 3, (1, 2, 3), 1, groups=3),
    Layer("dilation", 3, 4, (3, 4, 5), 3, dilation=2),
    Layer("dilation_and_stride", 3, 2, (3, 4, 5), 3, (2, 3, 2), (2, 1, 3), (1, 2, 2), (2, 2, 3)),
    Layer("stride_is_dilation", 2, 3, (3, 4, 5), (3, 2, 3), 2, 1, dilation=2),
    Layer("output_padding", 2, 3, (3, 4, 5), 3, (2, 3, 4), 1, (1, 2, 3)),
    Layer("output_padding_beyond_stride", 2, 3, (3, 4, 5), 2, 1, (0, 1, 2), (2, 1, 3), (3, 2, 4)),
    Layer("output_size", 3, 2, (3, 4, 5), 3, 2, 1, output_size=(6, 7, 10)),
    Layer("output_size_dilation", 2, 3, (3, 4, 5), (3, 2, 3), (3, 2, 1), 1, dilation=(2, 3, 1),
          output_size=(11, 9, 5)),
    Layer("stride_beyond_kernel", 3, 4, (3, 4, 2), (2, 1, 2), (3, 2, 4)),
    Layer("padding_beyond_kernel", 3, 2, (6, 7, 8), (2, 3, 1), 1, (2, 3, 1)),
    Layer("kernel_beyond_input", 2, 3, (1, 2, 3), (5, 6, 7), (1, 2, 1), (1, 2, 3)),
    Layer("pointwise", 9, 5, (3, 4, 5), 1, batch=2),
    Layer("one_voxel", 17, 5, 1, 4, 1, batch=3),
    Layer("one_channel", 1, 1, (4, 5, 37), (3, 3, 5), (1, 1, 2), 1),
    Layer("many_channels", 33, 16, (2, 2, 3), 2, 2),
    Layer("wide_row", 3, 2, (1, 2, 67), (1, 2, 3), (1, 1, 2), (0, 0, 1)),
    Layer("double", 5, 3, (3, 4, 5), 3, 2, 1, 1, double=True),
    Layer("double_groups", 4, 6, (3, 4, 5), (3, 2, 4), (1, 2, 3), (1, 0, 2), (0, 1, 1), (2, 1, 1),
          groups=2, double=True, batch=2),
    Layer("asymmetric", 3, 2, (3, 4, 5), 4, 2, ((0, 1), (2, 1), (1, 3)), (1, 0, 1)),
    Layer("asymmetric_double", 2, 2, (3, 4, 5), 3, (2, 1, 2), ((1, 0), (0, 2), (4, 0)),
          double=True, bias=False),
    Layer("reflect", 3, 2, (3, 4, 5), 3, 2, 1, mode="reflect"),
    Layer("reflect_asymmetric", 2, 3, (3, 4, 5), (4, 3, 3), (2, 1, 2), ((3, 1), (0, 2), (2, 1)),
          (1, 0, 1), mode="reflect", batch=2),
    Layer("reflect_deep", 2, 2, (5, 6, 9), 3, 1, (2, 2, 3), groups=2, mode="reflect"),
    Layer("reflect_beyond_stride", 2, 2, (3, 4, 5), 3, 1, (1, 2, 1), (1, 2, 0), (2, 3, 2),
          mode="reflect", double=True),
    Layer("replicate", 3, 2, (3, 4, 5), 4, 2, 1, mode="replicate"),
    Layer("replicate_asymmetric", 2, 4, (3, 4, 5), 3, (1, 2, 3), ((2, 0), (1, 3), (0, 4)),
          (0, 1, 2), groups=2, mode="replicate"),
    Layer("replicate_deep", 2, 2, (4, 4, 5), (3, 5, 4), 1, (2, 3, 3), mode="replicate",
          unbatched=True),
    Layer("replicate_double", 2, 2, (3, 4, 5), 3, 2, (1, 2, 3), 1, 2, mode="replicate",
          double=True, bias=False),
    Layer("circular", 3, 2, (3, 4, 5), 3, 2, 1, 1, mode="circular"),
    Layer("circular_whole", 2, 3, (3, 3, 6), 5, 1, (2, 2, 3), mode="circular", batch=2),
    Layer("circular_asymmetric", 2, 2, (3, 4, 5), (3, 4, 3), (2, 3, 1), ((2, 0), (1, 4), (0, 3)),
          mode="circular"),
    Layer("circular_dilation", 4, 2, (3, 4, 5), 2, (2, 1, 3), (1, 2, 2), (1, 1, 0), (3, 2, 2),
          groups=2, mode="circular", double=True),
]

# ---- Activations ---------------------------------------------------------------

ACTIVATED = [
    Layer("activated", 3, 4, (2, 3, 4), 3, 2, 1),
    Layer("activated_holes", 2, 3, (2, 2, 3), (2, 1, 2), (2, 3, 4), batch=2),
    Layer("activated_reflect", 2, 3, (2, 3, 4), 3, (2, 1, 2), 1, mode="reflect", double=True),
    Layer("activated_circular", 3, 2, (2, 3, 4), (3, 2, 1), (2, 1, 3), (1, 0, 2), (0, 0, 1),
          mode="circular"),
]

ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": lambda y: F.leaky_relu(y, 0.2),
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def golden_activations(layer, random):
    x = operand(random, [layer.batch, layer.channels[0]] + layer.size)
    w, b = operand(random, layer.weight_shape()), operand(random, [layer.channels[1]])
    function = by_module if layer.mode == "zeros" else by_gradient
    y = function(layer, x.requires_grad_(), w, b).detach()
    known = {"input": x.detach(), "weight": w, "bias": b}
    tensors = {key: value.to(layer.dtype) for key, value in known.items()}
    tensors["conv"] = y
    tensors.update((name, f(y)) for name, f in ACTIVATIONS.items())
    return {layer.name + "/" + key: value.contiguous() for key, value in tensors.items()}


# ---- Initial values ------------------------------------------------------------

SEEDS = [0, 1, 42, 5489, 2**31 - 1, 2**32 - 1, 2**32, 2**32 + 42, 2**63 + 12345, 2**64 - 1]

INITS = [
    Layer("page", 16, 33, 4, 3, 2),
    Layer("small", 3, 4, 4, (3, 5, 2)),
    Layer("grouped", 6, 9, 4, (1, 2, 3), groups=3),
    Layer("depthwise", 5, 5, 4, 4, groups=5, bias=False),
    Layer("pointwise", 7, 3, 4, 1),
    Layer("one", 1, 1, 4, 1),
    Layer("prime", 13, 11, 4, (5, 3, 7)),
    Layer("unet", 128, 64, 4, 2, 2),
]

IN_FULL = {("small", 42), ("grouped", 2**32 + 42), ("pointwise", 0), ("depthwise", 2**64 - 1)}


def fnv1a(tensor):
    """64 bits of FNV-1a: enough to tell any wrong bit, and a few lines in C."""
    value = 0xCBF29CE484222325
    for byte in tensor.detach().contiguous().numpy().tobytes():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return "%016x" % value


def golden_inits():
    lines, tensors = [], {}
    for i, layer in enumerate(INITS):
        for dtype in (torch.float32, torch.float64):
            layer.dtype = dtype
            for seed in SEEDS if math.prod(layer.weight_shape()) < 5000 else [i, 2**33 + i]:
                torch.manual_seed(seed)
                module = layer.module()
                bias = fnv1a(module.bias) if layer.bias else "-"
                lines.append("%d %s %s %s" % (seed, fnv1a(module.weight), bias, layer.problem()))
                if (layer.name, seed) in IN_FULL:
                    name = "%s_%s" % (layer.name, str(dtype).split(".")[1])
                    for key, value in module.state_dict().items():
                        tensors[name + "/" + key] = value
    return lines, tensors


# ---- One stream ----------------------------------------------------------------

DTYPES = {"float32": torch.float32, "float64": torch.float64}
SIZES = list(range(36)) + [47, 48, 49, 63, 64, 65, 100, 624]
BOUNDS = [(0, 1), (-1, 1), (-0.1, 0.3), (2, 2), (-1.5e38, 1.5e38), (1e-30, 1e-20)]


class Stream:
    """Takes steps and writes them down: seed S, uniform DTYPE COUNT FROM TO HASH,
    normal DTYPE COUNT, module HASH-OF-WEIGHT HASH-OF-BIAS PROBLEM."""

    def __init__(self):
        self.lines = []
        self.normals = {name: [] for name in DTYPES}

    def seed(self, seed):
        torch.manual_seed(seed)
        self.lines.append("seed %d" % seed)

    def uniform(self, dtype, count, bounds=(0, 1)):
        values = torch.empty(count, dtype=DTYPES[dtype]).uniform_(*bounds)
        self.lines.append("uniform %s %d %r %r %s" % (dtype, count, *bounds, fnv1a(values)))

    def normal(self, dtype, count):
        self.normals[dtype].append(torch.randn(count, dtype=DTYPES[dtype]))
        self.lines.append("normal %s %d" % (dtype, count))

    def module(self, layer):
        module = layer.module()
        bias = fnv1a(module.bias) if layer.bias else "-"
        self.lines.append("module %s %s %s" % (fnv1a(module.weight), bias, layer.problem()))


def golden_stream():
    """Every size from a fresh seed, then anything after anything."""
    stream = Stream()
    for dtype in DTYPES:
        for size in SIZES:
            stream.seed(2**32 - 50 + size)
            stream.normal(dtype, size)
            stream.uniform("float32", 1)
            stream.normal("float64", 1)
            stream.uniform(dtype, 2, BOUNDS[size % len(BOUNDS)])
    choice = python_random.Random(16)
    for _ in range(300):
        dtype, kind = choice.choice(list(DTYPES)), choice.randrange(20)
        if kind == 0:
            stream.seed(choice.getrandbits(64))
        elif kind < 5:
            layer = choice.choice(INITS[1:6])
            layer.dtype = DTYPES[dtype]
            stream.module(layer)
        elif kind < 11:
            stream.uniform(dtype, choice.randrange(9), choice.choice(BOUNDS))
        else:
            stream.normal(dtype, choice.choice([choice.randrange(8), choice.randrange(40)]))
    return stream


# ---- Files ---------------------------------------------------------------------


def write(folder):
    random = numpy.random.default_rng(20260803)
    tensors = {}
    for layer in LAYERS:
        tensors.update(golden_layer(layer, random))
    save_file(tensors, folder / "layers.safetensors")
    (folder / "layers.txt").write_text("".join(layer.problem() + "\n" for layer in LAYERS))

    random, tensors = numpy.random.default_rng(20261122), {}
    for layer in ACTIVATED:
        tensors.update(golden_activations(layer, random))
    save_file(tensors, folder / "activation.safetensors")
    (folder / "activation.txt").write_text("".join(l.problem() + "\n" for l in ACTIVATED))

    lines, tensors = golden_inits()
    save_file(tensors, folder / "init.safetensors")
    (folder / "init.txt").write_text("\n".join(lines) + "\n")

    stream = golden_stream()
    save_file({name + "/normal": torch.cat(values) for name, values in stream.normals.items()},
              folder / "generator.safetensors")
    (folder / "generator.txt").write_text("\n".join(stream.lines) + "\n")

    torch.manual_seed(2024)
    module = torch.nn.ConvTranspose3d(4, 6, (3, 2, 3), stride=2, groups=2)
    save_file(module.state_dict(), folder / "state_dict.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, don't write")
    if not parser.parse_args().check:
        write(HERE)
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write(folder)
        names = sorted(p.name for p in folder.iterdir())
        differ = [n for n in names
                  if not (HERE / n).exists() or not filecmp.cmp(HERE / n, folder / n, False)]
    if differ:
        raise SystemExit("differ from what PyTorch gives: " + ", ".join(differ))
    print("%d files are what PyTorch gives" % len(names))


if __name__ == "__main__":
    main()
