"""The drop-in's values: against the definition, exactly, over the whole argument space.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import oracle
import problems
import pytest
import torch
import torch.nn.functional as F
from torch_cases import (
    MODES,
    assert_exact,
    both,
    expected,
    integers,
    module,
    plain,
    run,
    symmetric,
    typical,
)

import convt3d
from convt3d.torch import ConvTranspose3d, conv_transpose3d

BLOCK, BLOCKS = 30, 12


@pytest.mark.parametrize("block", range(BLOCKS))
def test_modules_are_exact(block):
    """In training, and in eval without gradients, where weights may be packed."""
    nonzero = 0
    for seed in range(problems.SEED + block * BLOCK, problems.SEED + (block + 1) * BLOCK):
        layer = symmetric(seed)
        tensors = integers(seed, layer)
        x, w, b, dy = tensors
        made = module(layer, w, b)
        output_size = list(dy.shape[-3:]) if seed % 3 == 0 else None
        found = run(made, x, dy, output_size)
        assert all(t.dtype is x.dtype and t.is_contiguous() for t in found)
        wanted = expected(layer, tensors)
        assert_exact(found, wanted, (seed, layer))
        with torch.no_grad():
            assert_exact([made.eval()(x, output_size)], wanted[:1], (seed, layer))
        nonzero += sum(int(t.count_nonzero()) for t in found)
    assert nonzero > 100 * BLOCK  # zeros equal to zeros would show nothing


@pytest.mark.parametrize("block", range(4))
def test_functions_are_exact(block):
    """With padding of six values, which a module can't have."""
    for seed in range(block * 25, (block + 1) * 25):
        layer = problems.random_layer(seed)
        tensors = integers(seed, layer)
        x, w, b, dy = tensors
        before, after = layer["padding"][0::2], layer["padding"][1::2]
        named = {name: layer[name] for name in ("stride", "dilation", "groups", "padding_mode")}
        named["output_padding"] = layer["output_padding"]
        leaves = [t.requires_grad_() for t in (x, w, b) if t is not None]
        y = conv_transpose3d(x, w, b, padding=tuple(zip(before, after)), **named)
        found = (y, *torch.autograd.grad(y, leaves, dy))
        assert_exact(found, expected(layer, tensors), (seed, layer))


@pytest.mark.parametrize("seed", range(10))
def test_functions_take_torchs_arguments(seed):
    """In its order; integers and sequences of one or three of them."""
    layer = symmetric(seed, padding_mode="zeros")
    x, w, b, _ = integers(seed, layer)
    arguments = [layer["stride"], layer["padding"][::2], layer["output_padding"]]
    arguments += [layer["groups"], layer["dilation"]]
    assert_exact([conv_transpose3d(x, w, b, *arguments)], [F.conv_transpose3d(x, w, b, *arguments)])
    wide = torch.ones(1, 2, 4, 5, 6), torch.ones(2, 3, 3, 3, 3)
    wanted = F.conv_transpose3d(*wide, None, 2, 1, 1, 1, 1)
    for two, one in ((2, 1), ([2], (1,)), (torch.Size((2, 2, 2)), [1, 1, 1])):
        assert_exact([conv_transpose3d(*wide, None, two, one, one, 1, one)], [wanted])


@pytest.mark.parametrize("seed", range(20))
def test_unbatched(seed):
    layer = symmetric(seed, batch=1)
    tensors = integers(seed, layer)
    x, w, b, dy = tensors
    made = module(layer, w, b)
    wanted = expected(layer, tensors)
    for output_size in (None, dy.shape[-3:], dy.shape[-4:]):
        y, dx, *others = run(made, x[0], dy[0], output_size)
        assert (y.dim(), dx.dim()) == (4, 4)
        assert_exact((y[None], dx[None], *others), wanted, layer)
    with torch.no_grad():
        assert_exact([made.eval()(x[0])[None]], wanted[:1])


@pytest.mark.parametrize("seed", range(20))
def test_empty_batch(seed):
    layer = symmetric(seed, batch=0)
    x, w, b, dy = integers(seed, layer)
    found = run(module(layer, w, b), x, dy)
    assert [list(t.shape) for t in found] == [
        list(problems.shapes(layer)[i]) for i in (3, 0, 1, 2)[: len(found)]
    ]
    assert not any(t.any() for t in found[2:])  # sums of nothing


@pytest.mark.parametrize("mode", MODES)
def test_every_output_size(mode):
    layer = typical(mode)
    x, w, b, _ = integers(1, layer)
    made = module(layer, w, b)
    least = oracle.output_size({**layer, "output_padding": (0, 0, 0)})
    for more in ((0, 0, 0), (1, 1, 2), (0, 1, 0)):
        sized = {**layer, "output_padding": more}
        wanted = [torch.from_numpy(oracle.forward(sized, *(t.numpy() for t in (x, w, b))))]
        size = [n + m for n, m in zip(least, more)]
        for given in (size, tuple(size), torch.Size((2, 6, *size)), [2, 6, *size]):
            assert_exact([made(x, output_size=given)], wanted)


@pytest.mark.parametrize("training", [True, False])
def test_output_sizes_out_of_range(training):
    made = module(typical()).train(training)
    x = torch.ones(2, 4, 2, 3, 4)
    with torch.set_grad_enabled(training):
        for size, words in (
            ((5, 5, 10), "5 in depth can't be reached; legal: 3 to 4 (output_padding 0 to 1)"),
            ((3, 4, 10), "4 in height can't be reached; legal: 5 to 6 (output_padding 0 to 1)"),
            ((3, 5, 13), "13 in width can't be reached; legal: 10 to 12 (output_padding 0 to 2)"),
            ((3, 5), "expected 3 or 5 values (D, H, W last), got 2"),
            ((6, 3, 5, 10), "expected 3 or 5 values (D, H, W last), got 4"),
        ):
            with pytest.raises(convt3d.ShapeError) as raised:
                made(x, output_size=size)
            assert str(raised.value) == "output_size: " + words
        for rank in (2, 3, 6):
            for more in ({}, {"output_size": [3, 5, 10]}):
                with pytest.raises(convt3d.ShapeError, match=f"input: shape .* has {rank} axes"):
                    made(torch.ones((4,) * rank), **more)


ONES = {"input": torch.ones(1, 2, 3, 3, 3), "weight": torch.ones(2, 3, 2, 2, 2)}
NUMPY = ONES["input"].numpy()


@pytest.mark.parametrize(
    "error, words, given",
    [
        (convt3d.ArgumentError, "stride is 0 on the height axis, but", {"stride": (1, 0, 1)}),
        (convt3d.ArgumentError, "stride: expected 1 or 3 integers", {"stride": (1, 2)}),
        (TypeError, "stride: expected an integer, got 1.5", {"stride": 1.5}),
        (TypeError, "groups: expected an integer, got True", {"groups": True}),
        (convt3d.ArgumentError, "groups is 0, but must be at least 1", {"groups": 0}),
        (convt3d.Error, "in_channels is 2, but must be divisible by groups", {"groups": 3}),
        (convt3d.ArgumentError, "dilation is -1 on the depth axis", {"dilation": (-1, 1, 1)}),
        (convt3d.ArgumentError, "padding.* is -1 .*width axis", {"padding": (0, 0, -1)}),
        (convt3d.ArgumentError, "padding: expected 3 pairs", {"padding": ((0, 1), (1, 1))}),
        (convt3d.ShapeError, "output size on the depth axis", {"padding": 2}),
        (convt3d.ArgumentError, "output_padding is 1 on the depth axis", {"output_padding": 1}),
        (convt3d.ArgumentError, "padding_mode: 'same' is not one of", {"padding_mode": "same"}),
        (convt3d.ShapeError, "weight: axis 0 is 3", {"weight": torch.ones(3, 2, 2, 2, 2)}),
        (convt3d.ShapeError, "weight: shape .* has 4 axes", {"weight": torch.ones(2, 3, 2, 2)}),
        (convt3d.ShapeError, "bias", {"bias": torch.ones(2)}),
        (convt3d.DtypeError, "bias is float64", {"bias": torch.ones(3).double()}),
        (convt3d.DtypeError, "weight: dtype torch.int64", {"weight": ONES["weight"].long()}),
        (convt3d.DtypeError, "input is float64", {"input": ONES["input"].double()}),
        (TypeError, "input: expected a torch.Tensor, got ndarray", {"input": NUMPY}),
        (TypeError, "weight: expected a torch.Tensor, got NoneType", {"weight": None}),
        (TypeError, "bias: expected a torch.Tensor, got list", {"bias": [1, 2, 3]}),
    ],
)
def test_bad_arguments(error, words, given):
    with pytest.raises(error, match=words):
        conv_transpose3d(**{**ONES, **given})


def test_bad_modules():
    with pytest.raises(convt3d.ArgumentError) as raised:
        ConvTranspose3d(2, 3, 3, padding_mode="same")
    assert "'same' is not one of zeros, reflect, replicate, circular" in str(raised.value)
    with pytest.raises(ValueError, match="divisible by groups"):
        ConvTranspose3d(2, 3, 3, groups=2)
    x = torch.ones(1, 3, 4, 4, 4)
    ours, own = both(plain())
    for error in (convt3d.ShapeError, RuntimeError):
        with pytest.raises(error):
            (ours if error is convt3d.ShapeError else own)(x)
    for bad in (None, "x", x.numpy(), [1]):
        with pytest.raises(TypeError, match=r"input: expected a torch.Tensor, got"):
            ours(bad)
    for mode, padding, size in (("reflect", 2, 4), ("circular", 3, 6)):
        made = ConvTranspose3d(1, 1, 3, padding=padding, padding_mode=mode)
        with pytest.raises(convt3d.Error, match=f"padding.* is {padding} .*depth axis"):
            made(torch.ones(1, 1, size, 9, 9))
