"""Random layers of tests/shell/problems.py as modules and tensors.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import itertools

import oracle
import problems
import torch

from convt3d.torch import ConvTranspose3d, conv_transpose3d

Own = torch.nn.ConvTranspose3d
MODES = problems.MODES
NAMES = ("output", "gradient of input", "gradient of weight", "gradient of bias")

# What PyTorch has: torch.func and vmap of autograd functions since 2.0, custom operators since
# 2.4.
HAS_FUNC = hasattr(torch, "func")
HAS_OPERATORS = hasattr(torch.library, "custom_op")


class Tagged(torch.Tensor):
    """A subclass that says nothing for itself."""


def plain(**given):
    """A small layer with all arguments at their defaults but those that are given."""
    layer = {"batch": 2, "in_channels": 2, "out_channels": 3, "bias": True, "dtype": "float32"}
    layer.update(input_size=(2, 3, 4), kernel_size=(2, 2, 3), stride=(1,) * 3, padding=(0,) * 6)
    layer.update(output_padding=(0,) * 3, groups=1, dilation=(1,) * 3, padding_mode="zeros")
    assert layer.keys() >= given.keys()
    return {**layer, **given}


def typical(mode="zeros", **given):
    """One with groups, dilation and strides, legal in every padding mode."""
    layer = plain(in_channels=4, out_channels=6, groups=2, kernel_size=(3, 2, 3), stride=(2, 1, 3))
    layer.update(dilation=(1, 2, 1), padding=(1, 1, 0, 0, 1, 1), output_padding=(1, 0, 2))
    return {**layer, "padding_mode": mode, **given}


def symmetric(seed, **given):
    """A random one that a module can have: of one padding for both sides."""
    layer = problems.random_layer(seed, symmetric=True)
    if given.keys() - {"batch", "bias", "dtype"}:
        while not problems.legal({**layer, **given}):
            seed += 1000003
            layer = problems.random_layer(seed, symmetric=True)
    return {**layer, **given}


def function(layer, call=conv_transpose3d):
    """The layer as a function of input, weight and bias; 'call' may be PyTorch's own."""
    arguments = [layer["stride"], layer["padding"][::2], layer["output_padding"]]
    arguments += [layer["groups"], layer["dilation"]]
    named = {"padding_mode": layer["padding_mode"]} if call is conv_transpose3d else {}
    return lambda x, w, b=None: call(x, w, b, *arguments, **named)


def of(layer):
    """The size of the kernel and what else a module is made with."""
    named = {name: layer[name] for name in ("stride", "output_padding", "groups", "dilation")}
    return {**named, "padding": layer["padding"][::2], "kernel_size": layer["kernel_size"]}


def module(layer, weight=None, bias=None, kind=ConvTranspose3d):
    """A module of this layer; PyTorch's own only knows the mode 'zeros'."""
    made = kind(
        layer["in_channels"],
        layer["out_channels"],
        bias=layer["bias"],
        padding_mode=layer["padding_mode"] if kind is ConvTranspose3d else "zeros",
        dtype=getattr(torch, layer["dtype"]),
        **of(layer),
    )
    with torch.no_grad():
        if weight is not None:
            made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


def both(layer, *parameters):
    """The drop-in and PyTorch's own, with the same parameters."""
    ours = module(layer, *parameters)
    own = module(layer, kind=Own)
    own.load_state_dict(ours.state_dict())
    return ours, own


def integers(seed, layer):
    """Input, weight, bias and gradient of the output, of small integers."""
    arrays = problems.integers(seed, layer)
    return [None if a is None else torch.from_numpy(a) for a in arrays]


def normal(seed, layer):
    """Such of numbers whose sums are rounded, so that another order of additions shows."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, layer["dtype"])
    return [
        None if i == 2 and not layer["bias"] else torch.randn(s, dtype=dtype, generator=generator)
        for i, s in enumerate(problems.shapes(layer))
    ]


def expected(layer, tensors):
    """The output and the three gradients by the definition, in float64."""
    x, w, b, dy = (None if t is None else t.detach().numpy() for t in tensors)
    results = (oracle.forward(layer, x, w, b), *oracle.backward(layer, x, w, dy))
    return [torch.from_numpy(r) for r in results]


def definition(layer):
    """The layer from one of PyTorch's elementary operations, which it differentiates itself."""
    meets = []  # of each axis: whether input i meets tap k at output o
    for axis in range(3):
        sizes = (oracle.output_size(layer), layer["input_size"], layer["kernel_size"])
        meet = torch.zeros([s[axis] for s in sizes], dtype=getattr(torch, layer["dtype"]))
        found = dict(oracle.owners(layer, axis))
        for i, k in itertools.product(*map(range, meet.shape[1:])):
            position = i * layer["stride"][axis] + k * layer["dilation"][axis]
            if position in found:
                meet[found[position], i, k] += 1
        meets.append(meet)
    groups = layer["groups"]

    def call(x, w, b=None):
        batch = x if x.dim() == 5 else x[None]
        batch = batch.unflatten(1, (groups, -1))
        by_group = w.unflatten(0, (groups, -1))
        y = torch.einsum("ngcijk,gcmuvw,aiu,bjv,ekw->ngmabe", batch, by_group, *meets)
        y = y.flatten(1, 2) if x.dim() == 5 else y.flatten(1, 2)[0]
        return y if b is None else y + b[:, None, None, None]

    return call


def run(made, x, dy, output_size=None):
    """The output and the gradients of input, weight and bias, by a module."""
    x = x.detach().requires_grad_()
    y = made(x) if output_size is None else made(x, output_size)
    wanted = [x, made.weight] + ([] if made.bias is None else [made.bias])
    return (y.detach(), *torch.autograd.grad(y, wanted, dy))


def assert_exact(found, wanted, where=None):
    """The same numbers; 'wanted' may have a gradient of the bias too many."""
    assert len(found) in (len(wanted), len(wanted) - 1), where
    for name, a, b in zip(NAMES, found, wanted):
        assert a.shape == b.shape and torch.equal(a.double(), b.double()), (name, where)


def same_bytes(a, b):
    """torch.equal() takes 0.0 and -0.0 for the same, and NaN for different."""
    return a.shape == b.shape and a.dtype is b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


def outcome(function, *inputs):
    """What a call gives, or what it raises."""
    try:
        return function(*inputs)
    except Exception as error:
        return type(error), str(error)


def same_outcome(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype is b.dtype and torch.equal(a, b)
    return not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a == b
