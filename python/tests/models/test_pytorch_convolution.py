"""What PyTorch's test_convolution.py checks of ConvTranspose3d, which isn't shipped, in own words.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from pytorch_lists import (
    FORMS,
    HAS_OPERATORS,
    LAST,
    OP,
    THEIRS,
    Case,
    check_all,
    close,
    dtypes,
    pair,
    run,
    spread,
)
from torch.autograd import grad
from torch.testing._internal import common_nn

from convt3d.torch import ConvTranspose3d, conv_transpose3d

# ---- test_convolution.py, in own words ----------------------------------------------


def test_output_size():
    """test_convolution: every output_size that can be reached, and those around them"""
    ours, theirs = pair(3, 4, 3, 3, 0, 2)
    x = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64)
    for size in itertools.product(range(5, 10), repeat=3):
        if all(6 <= n <= 8 for n in size):
            close(ours(x, output_size=size), theirs(x, output_size=list(size)))
        else:
            for module in (ours, theirs):
                with pytest.raises(ValueError, match=r"output.size"):
                    module(x, size)


@pytest.mark.parametrize("size", range(3, 9))
def test_output_size_of_dilation(size, by_design):
    """test_convolution: output_size where the dilation is larger than the stride"""
    ours, theirs = pair(3, 4, 2, dilation=3)
    x = torch.randn(1, 3, 2, 2, 2, dtype=torch.float64)
    if 5 <= size <= 7:
        theirs.output_padding = (size - 5,) * 3
        close(ours(x, output_size=(size,) * 3), theirs(x))
    if size != 5:
        for module in (ours, theirs) if size not in (6, 7) else (theirs,):
            with pytest.raises(ValueError, match=r"output.size"):
                module(x, output_size=(size,) * 3)
    if size in (6, 7):
        by_design("accepted, since output_padding may be this; PyTorch goes up to stride - 1")


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_output_size_round_trip(kernel):
    """test_convolution: output_size leads back from Conv3d to the size that went in"""
    for stride, padding, dilation in itertools.product([1, 2, 3], [0, 1, 2], [1, 2, 3, 4]):
        layer = {"stride": stride, "padding": padding, "dilation": dilation}
        down = torch.nn.Conv3d(2, 1, kernel, **layer).double()
        ours, theirs = pair(1, 2, kernel, **layer)
        for size in ((13, 13, 14), (14, 15, 13)):
            x = down(torch.randn(1, 2, *size, dtype=torch.float64))
            found = ours(x, output_size=(1, 2, *size))
            assert found.shape == (1, 2, *size)
            close(found, theirs(x, output_size=size))


def test_output_size_with_channels():
    """test_convolution: output_size with batch and channels in front, as many as the input has"""
    ours, _ = pair(2, 2, 2)
    assert ours(torch.rand(1, 2, 1, 1, 1).double(), output_size=(1, 2, 2, 2, 2)).shape[2] == 2
    ours, theirs = pair(1, 1, 16, 16, 7, bias=False)
    x, size = torch.randn(1, 2, 3, 3, dtype=torch.float64), (1, 32, 40, 40)
    assert ours(x, output_size=size).shape == size
    close(ours(x, output_size=size), theirs(x, output_size=size))


LAYERS = {
    "kernel-1": ((3, 3, 1), {}, (2, 3, 3, 5, 5)),
    "kernel-1-stride": ((2, 2, 1), {"stride": 2}, (1, 2, 4, 4, 4)),
    "kernel-1-padding": ((2, 2, 1), {"padding": 1}, (1, 2, 4, 4, 4)),
    "kernel-1-both": ((2, 2, 1), {"stride": 2, "padding": 1}, (1, 2, 4, 4, 4)),
    "kernel-1-dilation": ((2, 2, 1), {"dilation": 2}, (1, 2, 4, 4, 4)),
    "output-padding": ((16, 8, 3, 2, 1, 1), {}, (1, 16, 6, 6, 6)),
    "output-padding-by-dilation": ((2, 3, 2, 1, 0, (2, 0, 1)), {"dilation": 3}, (1, 2, 3, 3, 3)),
    "kernel-over-input": ((2, 3, (7, 1, 9)), {"padding": (3, 0, 4)}, (1, 2, 2, 3, 1)),
    "stride-over-kernel": ((2, 3, 2), {"stride": (5, 3, 4)}, (1, 2, 3, 2, 3)),
    "one-voxel": ((5, 7, 3), {}, (5, 1, 1, 1)),
    "odd-sizes": (
        (13, 17, (3, 5, 2)),
        {"stride": (2, 1, 1), "padding": (0, 4, 2)},
        (13, 5, 11, 19),
    ),
    "depthwise": ((6, 6, 3), {"groups": 6}, (2, 6, 3, 4, 5)),
    "depthwise-twice": ((6, 12, 3), {"groups": 6, "bias": False}, (2, 6, 3, 4, 5)),
    "wide": ((130, 66, 3), {"groups": 2}, (1, 130, 3, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@dtypes
def test_layers(name, dtype):
    """test_convolution: kernels of one, large and odd sizes, output_padding, depthwise: output and
    gradients as PyTorch's, and the same bytes again"""
    arguments, keywords, shape = LAYERS[name]
    ours, theirs = pair(*arguments, dtype=dtype, **keywords)
    x = torch.randn(shape, dtype=dtype).requires_grad_()
    found = run(ours, x)
    close(found, run(theirs, x))
    assert all(map(torch.equal, found, run(ours, x)))


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("form", ["plain", "not-contiguous"])
def test_backends(bias, stride, dilation, form):
    """test_convolution: test_conv_backend's transposed layers of three groups, in 3-D, which
    PyTorch leaves out for want of memory: gradcheck, gradgradcheck and forward mode"""
    shapes = (2, 6, 3, 2, 4), (6, 4, 3, 3, 3), (12,)
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    tensors = [FORMS[form](t) for t in tensors[: 2 + bias]]
    layer = {"stride": stride, "dilation": dilation, "groups": 3}
    close(conv_transpose3d(*tensors, **layer), OP.op(*tensors, **layer))
    check_all(lambda *t: conv_transpose3d(*t, **layer), tensors, batched=HAS_OPERATORS)


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("multiplier", [1, 2, 4])
def test_groups(bias, multiplier):
    """test_convolution: a layer of two groups is two layers side by side"""
    whole, _ = pair(4, 4 * multiplier, 3, groups=2, bias=bias)
    x = torch.randn(2, 4, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    wanted = run(whole, x)
    given = torch.randn_like(wanted[0])
    parts = []
    for half in (slice(0, 2), slice(2, 4)):
        part, _ = pair(2, 2 * multiplier, 3, bias=bias)
        outputs = slice(half.start * multiplier, half.stop * multiplier)
        part.weight.data = whole.weight.data[half]
        if bias:
            part.bias.data = whole.bias.data[outputs]
        parts.append(run(part, x.detach()[:, half].requires_grad_(), given[:, outputs]))
    axes = (1, 1, 0, 0)
    close(run(whole, x, given), [torch.cat(both, axis) for both, axis in zip(zip(*parts), axes)])


@pytest.mark.parametrize("groups", [1, 4])
def test_empty_batch(groups):
    """test_convolution: an empty batch has zero gradients (_test_module_empty_input)"""
    ours, theirs = pair(4, 4, 3, 2, 1, groups=groups, dtype=torch.float32)
    x = torch.randn(0, 4, 4, 4, 4)
    common_nn._test_module_empty_input(Case(), ours, x, check_size=False)
    assert ours(x).shape == theirs(x).shape


@pytest.mark.parametrize("groups", [1, 3])
def test_expanded_weight(groups):
    """test_convolution: a weight that is the same in all channels, and takes memory for one"""
    weight = torch.randn(3, 3, 3).expand(3, 3 // groups, 3, 3, 3).requires_grad_()
    x = torch.randn(1, 3, 5, 5, 5, requires_grad=True)
    found, wanted = (f(x, weight, groups=groups) for f in (conv_transpose3d, OP.op))
    close(found, wanted)
    close(grad(found.sum(), (x, weight)), grad(wanted.sum(), (x, weight)))


def test_strides():
    """test_convolution: parameters that aren't contiguous; any stride on an axis of one"""
    ours, theirs = pair(3, 8, 5, 2, 3, dtype=torch.float32)
    x = torch.randn(1, 3, 6, 7, 8, requires_grad=True)
    wanted = run(theirs, x)
    for name in ("weight", "bias"):
        setattr(ours, name, torch.nn.Parameter(spread(getattr(ours, name))))
    close(run(ours, spread(x)), wanted)
    odd = x.detach().as_strided(x.shape, (20, *x.stride()[1:])).requires_grad_()
    close(run(ours, odd), wanted)


@pytest.mark.parametrize(
    "channels", [(2, 8, 4, 1), (2, 8, 8, 8), (1, 16, 16, 1), (1, 16, 32, 16)], ids=str
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last(channels, kernel):
    """test_convolution: memory formats of input, weight and gradient, exact on integers"""
    batch, inputs, outputs, groups = channels
    ours, _ = pair(inputs, outputs, kernel, groups=groups, dtype=torch.float32)
    for parameter in ours.parameters():
        parameter.data = torch.randint_like(parameter, -3, 3)
    x = torch.randint(-3, 3, (batch, inputs, 4, 5, 4)).float().requires_grad_()
    given = torch.randint_like(ours(x), -3, 3)
    wanted = run(ours, x, given)
    formats = (torch.contiguous_format, LAST)
    for of_input, of_weight, of_given in itertools.product(formats, repeat=3):
        ours.to(memory_format=of_weight)
        formed = x.detach().to(memory_format=of_input).requires_grad_()
        found = run(ours, formed, given.to(memory_format=of_given))
        assert all(map(torch.equal, found, wanted))
        assert found[0].is_contiguous(memory_format=of_input)


def test_convert_weight_memory_format(by_design):
    """test_convolution: torch.nn.utils.convert_conv3d_weight_memory_format"""
    if not hasattr(torch.nn.utils, "convert_conv3d_weight_memory_format"):
        pytest.skip("this PyTorch has no convert_conv3d_weight_memory_format")
    x = torch.randint(1, 10, (2, 8, 4, 4, 4), dtype=torch.float32)
    model = torch.nn.Sequential(ConvTranspose3d(8, 4, 3), torch.nn.BatchNorm3d(4)).eval()
    wanted = model(x)
    for format in (LAST, torch.contiguous_format):
        model = torch.nn.utils.convert_conv3d_weight_memory_format(model, format)
        assert model[0].weight.is_contiguous(memory_format=format)
        assert model(x).is_contiguous()
        close(model(x), wanted)
    by_design("the weight's memory format doesn't change the output's, only the input's does")


def test_backward_twice():
    """test_convolution: backward a second time is an error, and may be allowed"""
    module, x = ConvTranspose3d(3, 3, 3), torch.randn(2, 3, 3, 3, 3)
    y = module(x)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.sum().backward()


# Of ConvTranspose3d(3, 6, 4): other arguments, and what is said.
REFUSED = {
    "no-channels": ({"in_channels": 0}, "axis 0 is 0, but must be in_channels, 3"),
    "kernel-0": ({"kernel_size": 0}, "kernel_size is 0 on the depth axis"),
    "kernel-of-2": ({"kernel_size": (2, 3)}, "weight: shape .* has 4 axes"),
    "kernel-no-integer": ({"kernel_size": 2.0}, "float"),
    "stride-0": ({"stride": 0}, "stride is 0 on the depth axis"),
    "stride-negative": ({"stride": (1, 1, -1)}, "stride is -1 on the width axis"),
    "stride-no-integer": ({"stride": 2.0}, "float"),
    "dilation-0": ({"dilation": 0}, "dilation is 0 on the depth axis"),
    "padding-negative": ({"padding": (0, -1, 0)}, "padding .* is -1 on the height axis"),
    "padding-all": ({"padding": 4}, "output size on the depth axis would be"),
    "padding-same": ({"padding": "same"}, "padding: expected 3 values"),
    "output-padding-1": ({"output_padding": 1}, "output_padding is 1 on the depth axis"),
    "output-padding-negative": ({"output_padding": -1}, "output_padding is -1 on"),
    "groups-0": ({"groups": 0}, "groups must be a positive integer"),
    "groups-2": ({"groups": 2}, "in_channels must be divisible by groups"),
    "groups-3-of-4": ({"groups": 3, "out_channels": 4}, "out_channels must be divisible by"),
    "padding-mode": ({"padding_mode": "xyz"}, "padding_mode: 'xyz' is not one of"),
    "padding-mode-3": ({"padding_mode": 3}, "padding_mode: 3 is not one of"),
    # and on other inputs than 1 x 3 x 4 x 4 x 4
    "3-axes": (torch.rand(3, 3, 3), "input: shape .* has 3 axes"),
    "6-axes": (torch.rand((3,) * 6), "input: shape .* has 6 axes"),
    "other-channels": (torch.rand(1, 4, 4, 4, 4), "axis 0 is 3, but must be in_channels, 4"),
    "no-depth": (torch.rand(1, 3, 0, 4, 4), "input_size is 0 on the depth axis"),
    "other-dtype": (torch.rand(1, 3, 4, 4, 4).double(), "expected scalar type Double but found"),
    "no-input": (None, "input: expected a torch.Tensor, got NoneType"),
}


def refused(call_theirs, call_ours, text, by_design):
    errors = (RuntimeError, ValueError, TypeError, OverflowError)
    with pytest.raises(errors) as theirs:
        call_theirs()
    with pytest.raises(errors, match=text) as ours:
        call_ours()
    if (theirs.type, str(theirs.value)) != (ours.type, str(ours.value)):
        by_design(f"{ours.type.__name__} in place of {theirs.type.__name__}: {ours.value}")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_refused_layers(name, by_design):
    """What is refused: layers and inputs that PyTorch refuses, each with a text of its own"""
    given, text = REFUSED[name]
    layer, x = (given, torch.rand(1, 3, 4, 4, 4)) if isinstance(given, dict) else ({}, given)
    layer = {"in_channels": 3, "out_channels": 6, "kernel_size": 4, **layer}
    x = x[:, :, :1, :1, :1] if name == "padding-all" else x
    refused(lambda: THEIRS(**layer)(x), lambda: ConvTranspose3d(**layer)(x), text, by_design)


# Of the function on 1 x 2 x 3 x 3 x 3: weight, bias, other arguments.
WEIGHT = torch.rand(2, 2, 2, 2, 2)
REFUSED_CALLS = {
    "weight-dtype": ((WEIGHT.double(),), {}, "input is float32"),
    "weight-axes": ((WEIGHT[0],), {}, "weight: shape .* has 4 axes"),
    "weight-of-conv3d": ((torch.rand(4, 2, 2, 2, 2),), {}, "axes 0 and 1 look swapped"),
    "bias-dtype": ((WEIGHT, torch.rand(2).double()), {}, "bias is float64"),
    "bias-size": ((WEIGHT, torch.rand(3)), {}, "bias has size 3 on its out_channels axis"),
    "bias-axes": ((WEIGHT, torch.rand(2, 1)), {}, "bias has 2 axes, but must have 1"),
    "groups-3": ((WEIGHT,), {"groups": 3}, "must be divisible by groups"),
    "stride-of-2": ((WEIGHT,), {"stride": [2, 2]}, "stride: expected 1 or 3 integers"),
    "padding-huge": ((WEIGHT,), {"padding": 2**62}, "padding"),
}


@pytest.mark.parametrize("name", REFUSED_CALLS)
def test_refused_calls(name, by_design):
    """What is refused: calls of the function"""
    tensors, named, text = REFUSED_CALLS[name]
    x = torch.rand(1, 2, 3, 3, 3)
    calls = (functools.partial(f, x, *tensors, **named) for f in (OP.op, conv_transpose3d))
    refused(*calls, text, by_design)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode, by_design):
    """What is refused: padding modes, by PyTorch alone"""
    with pytest.raises(ValueError, match="zeros"):
        THEIRS(3, 3, 3, padding=1, padding_mode=mode)
    module = ConvTranspose3d(3, 3, 3, padding=1, padding_mode=mode)
    assert f"padding_mode={mode}" in repr(module)
    assert module(torch.rand(1, 3, 4, 4, 4)).shape == (1, 3, 4, 4, 4)
    by_design("accepted: convt3d has all four padding modes")


@pytest.mark.parametrize("what", ["CUDA, cuDNN and MIOpen", "MPS and XPU"])
def test_other_devices(what):
    """PyTorch's cases for other devices"""
    pytest.skip(f"{what}: layers there stay PyTorch's own")
