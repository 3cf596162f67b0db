"""Tensors of any memory layout, views of all kinds and memory that is shared: the same numbers.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import numpy as np
import problems
import pytest
import torch
from torch_cases import (
    HAS_OPERATORS,
    MODES,
    Tagged,
    assert_exact,
    both,
    expected,
    integers,
    module,
    normal,
    plain,
    run,
    same_bytes,
    symmetric,
    typical,
)

from convt3d.torch import conv_transpose3d, is_packed


def permuted(tensor, order):
    """The same values, with the axes in this order in memory."""
    return tensor.permute(order).contiguous().permute(np.argsort(order).tolist())


def within(tensor, step):
    """Every 'step'th element on each axis of something larger, whose others are NaN."""
    large = torch.full([(n + 1) * step for n in tensor.shape], float("nan"), dtype=tensor.dtype)
    view = large[tuple(slice(1, 1 + n * step, step) for n in tensor.shape)]
    return view.copy_(tensor)


def misaligned(tensor):
    """At an address that is no multiple of the element's size."""
    memory = bytearray(1) + tensor.contiguous().numpy().tobytes()
    view = torch.frombuffer(memory, dtype=tensor.dtype, offset=1, count=tensor.numel())
    assert view.data_ptr() % tensor.element_size()
    return view.view(tensor.shape)


def negated(tensor):
    """A view that PyTorch negates as it reads it."""
    view = torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    assert view.is_neg() and torch.equal(view, tensor)
    return view


LAYOUTS = {
    "channels last": lambda t: permuted(t, [0, *range(2, t.dim()), 1]) if t.dim() > 1 else t,
    "column-major": lambda t: permuted(t, list(range(t.dim()))[::-1]),
    "width first": lambda t: permuted(t, [t.dim() - 1, *range(t.dim() - 1)]),
    "every second": lambda t: within(t, 2),
    "a part of a larger one": lambda t: within(t, 1),
    "one element off": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
    "misaligned": misaligned,
    "negated": negated,
    "of a subclass": lambda t: t.as_subclass(Tagged),
}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_any_tensor(layout, place):
    for mode in MODES:
        layer = typical(mode)
        tensors = integers(11, layer)
        wanted = expected(layer, tensors)
        tensors[place] = LAYOUTS[layout](tensors[place])
        x, w, b, dy = tensors
        leaves = [t.detach().requires_grad_() for t in (x, w, b)]
        y = conv_transpose3d(
            *leaves,
            layer["stride"],
            layer["padding"][::2],
            layer["output_padding"],
            layer["groups"],
            layer["dilation"],
            padding_mode=mode,
        )
        gradients = torch.autograd.grad(y, leaves, dy)
        assert_exact([t.as_subclass(torch.Tensor) for t in (y.detach(), *gradients)], wanted)
        if layout == "of a subclass" and HAS_OPERATORS and place < 3:
            assert type(y) is Tagged


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_in_eval(layout):
    """By packed weights or not; a weight's views are kept as parameters."""
    layer = typical("circular")
    tensors = integers(12, layer)
    x, w, b, _ = tensors
    made = module(layer, w, b).eval()
    with torch.no_grad():
        first = made(x)
        assert is_packed(made)
        assert_exact([made(LAYOUTS[layout](x)).as_subclass(torch.Tensor)], [first])
        made.weight = torch.nn.Parameter(LAYOUTS[layout](w))
        made.bias = torch.nn.Parameter(LAYOUTS[layout](b))
        assert_exact([made(x).as_subclass(torch.Tensor)], [first])
    assert_exact([first], expected(layer, tensors)[:1])


@pytest.mark.parametrize("seed", range(12))
def test_channels_last_stays_channels_last(seed):
    layer = symmetric(seed, in_channels=4, out_channels=6, groups=2, batch=2)
    layer["input_size"] = tuple(n + 1 for n in layer["input_size"])
    if not problems.legal(layer):
        pytest.fail("a larger input is legal wherever a smaller one is")
    tensors = integers(seed, layer)
    x, w, b, dy = tensors
    last = torch.channels_last_3d
    made = module(layer, w, b)
    found = run(made, x.to(memory_format=last), dy.to(memory_format=last))
    assert_exact(found, expected(layer, tensors), layer)
    with torch.no_grad():
        packed = made.eval()(x.to(memory_format=last))
    for t in (found[0], found[1], packed):
        assert t.is_contiguous(memory_format=last), layer
    assert found[2].is_contiguous()
    assert_exact([packed], [found[0]])
    made.to(memory_format=last)  # the weight as well
    assert_exact(run(made, x, dy), expected(layer, tensors))


@pytest.mark.parametrize("mode", MODES)
def test_expanded_views(mode):
    """Strides of 0: one sample for all, one channel for all, one gradient for all."""
    layer = typical(mode)
    x, w, b, dy = integers(13, layer)
    x = x[:1, :, :1].expand_as(x)
    w = w[:, :1, :, :, :1].expand_as(w)
    dy = dy[:, :1, :1, :1, :1].expand_as(dy)
    b = b[:1].expand_as(b)
    wanted = expected(layer, [x.contiguous(), w.contiguous(), b.contiguous(), dy.contiguous()])
    made = module(layer)
    made.weight, made.bias = torch.nn.Parameter(w), torch.nn.Parameter(b)
    assert 0 in made.weight.stride() and 0 in dy.stride()
    assert_exact(run(made, x, dy), wanted)
    with torch.no_grad():
        assert_exact([made.eval()(x)], wanted[:1])


@pytest.mark.parametrize("mode", MODES)
def test_all_tensors_in_one_memory(mode):
    layer = plain(batch=2, in_channels=2, out_channels=2, input_size=(3, 3, 3), padding_mode=mode)
    layer.update(kernel_size=(3, 3, 3), padding=(1,) * 6)
    x, _, _, _ = integers(14, layer)
    before = x.clone()
    leaf = x.requires_grad_()
    bias = leaf[0, :, 0, 0, 0]
    y = conv_transpose3d(leaf, leaf, bias, padding=1, padding_mode=mode)
    y.backward(x.detach())
    wanted = expected(layer, [before, before, before[0, :, 0, 0, 0], before])
    assert_exact([y.detach()], wanted[:1])
    total = wanted[1] + wanted[2]
    total[0, :, 0, 0, 0] += wanted[3]
    assert torch.equal(leaf.grad.double(), total) and torch.equal(leaf.detach(), before)


def test_results_are_memory_of_their_own():
    made, own = both(plain())
    x = torch.ones(2, 2, 2, 3, 4)
    first = made(x).detach()
    kept = first.clone()
    second = made(2 * x)
    assert torch.equal(first, kept) and first.data_ptr() != second.data_ptr()
    results = []
    for m in (made, own):
        y = m(x).relu_()  # in place, as networks do
        y.sum().backward()
        results.append((y, m.weight.grad))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*results))


def test_large_results_on_huge_pages():
    """Beyond four megabytes memory is asked for otherwise."""
    layer = plain(batch=1, in_channels=2, out_channels=20, input_size=(40, 40, 40))
    tensors = integers(15, layer)
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):
        x = tensors[0].to(memory_format=memory_format)
        y, dx, dw, db = run(module(layer, *tensors[1:3]), x, tensors[3])
        assert y.numel() * 4 > 1 << 22 and y.is_contiguous(memory_format=memory_format)
        assert_exact((y, dx, dw, db), expected(layer, tensors))


def test_bytes_do_not_depend_on_alignment():
    layer = typical(input_size=(5, 6, 17))
    x, w, b, dy = normal(1, layer)
    made = module(layer, w, b)
    first = run(made, x, dy)
    for move in (LAYOUTS["one element off"], misaligned):
        again = run(made, move(x), move(dy))
        assert all(same_bytes(a, b) for a, b in zip(first, again))
