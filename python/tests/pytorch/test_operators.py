"""The operators as PyTorch's compilers see them: opcheck, fake tensors, compile, export, traces.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sysconfig
from pathlib import Path

import problems
import pytest
import torch
from torch_cases import (
    HAS_OPERATORS,
    MODES,
    assert_exact,
    expected,
    function,
    integers,
    module,
    plain,
    symmetric,
    typical,
)

from convt3d.torch import ConvTranspose3d, is_packed

needs_operators = pytest.mark.skipif(
    not HAS_OPERATORS, reason="this PyTorch has no torch.library.custom_op"
)
# What PyTorch's default backend needs for the C++ that it writes.
CAN_COMPILE = (
    bool(shutil.which("g++") or shutil.which("c++"))
    and (Path(sysconfig.get_path("include")) / "Python.h").exists()
)


def arguments(layer):
    padding = list(layer["padding"])
    if padding[0::2] == padding[1::2]:
        padding = padding[0::2]
    lists = [list(layer["stride"]), padding, list(layer["output_padding"])]
    return [*lists, layer["groups"], list(layer["dilation"]), layer["padding_mode"]]


def calls(layer, seed, last=False, unbatched=False):
    """The three operators' arguments; the first in eval has no gradients."""
    x, w, b, dy = integers(seed, layer)
    if last:
        x, dy = (t.to(memory_format=torch.channels_last_3d) for t in (x, dy))
    if unbatched:
        x, dy = x[0], dy[0]
    x, w, dy = (t.requires_grad_(seed % 3 != 0) for t in (x, w, dy))
    rest = arguments(layer)
    return {
        "conv_transpose3d": (x, w, b, *rest),
        "conv_transpose3d_backward_input": (dy, w, list(layer["input_size"]), *rest),
        "conv_transpose3d_backward_weight": (
            *(dy, x, list(layer["kernel_size"]), layer["bias"]),
            *rest,
        ),
    }


def operator(name):
    return getattr(torch.ops.convt3d, name).default


CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


@needs_operators
@pytest.mark.parametrize("name", calls(plain(), 1))
@pytest.mark.parametrize("mode", MODES)
def test_opcheck(mode, name):
    """PyTorch's own examination: schema, registrations, shapes and strides, gradients."""
    for seed in range(5):
        last, unbatched = seed == 1, seed == 2
        layer = symmetric(seed, padding_mode=mode, **({"batch": 1} if unbatched else {}))
        inputs = calls(layer, seed, last, unbatched)[name]
        torch.library.opcheck(operator(name), inputs, test_utils=CHECKS)
    layer = typical(mode)
    for last in (False, True):
        torch.library.opcheck(operator(name), calls(layer, 1, last)[name])


@needs_operators
@pytest.mark.parametrize("block", range(4))
def test_fake_results_are_like_real_ones(block):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for seed in range(block * 25, (block + 1) * 25):
        layer = problems.random_layer(seed)  # of paddings that differ as well
        inputs = calls(layer, seed, last=seed % 2 == 0, unbatched=seed % 5 == 0)
        for name, given in inputs.items():
            with torch.no_grad():
                real = operator(name)(*given)
                with FakeTensorMode() as mode:
                    fake = [mode.from_tensor(t) if torch.is_tensor(t) else t for t in given]
                    fake = operator(name)(*fake)
            several = isinstance(real, tuple)
            for a, b in zip(real if several else [real], fake if several else [fake]):
                assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype), layer


def network(mode):
    """Small integers in and out, so that nothing is rounded."""
    torch.manual_seed(4)
    layers = [
        torch.nn.Conv3d(2, 4, 3, padding=1),
        torch.nn.ReLU(),
        ConvTranspose3d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode=mode),
        torch.nn.LeakyReLU(0.5),
        ConvTranspose3d(6, 2, 2, dilation=(1, 2, 1), padding_mode=mode),
    ]
    made = torch.nn.Sequential(*layers).double()
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randint(-3, 4, p.shape))
    return made


def gradients(made, x):
    made.zero_grad()
    x = x.clone().requires_grad_()
    y = made(x)
    (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in made.parameters())]


def samples(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(-4, 5, s, dtype=torch.float64, generator=generator)
        for s in (sizes or [(5, 2, 3, 4, 6), (4, 2, 5, 3, 7), (3, 2, 4, 6, 5)])
    ]


@needs_operators
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_compile(mode, dynamic):
    made = network(mode)
    torch._dynamo.reset()
    backend = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(made, fullgraph=True, dynamic=dynamic, backend=backend)
    inputs = samples() if dynamic else samples()[:1]
    for x in inputs:
        wanted = gradients(made, x)
        assert all(torch.equal(a, b) for a, b in zip(gradients(compiled, x), wanted))
    assert ["convt3d" in str(graph.graph) for graph in backend.graphs].count(True) == 1
    made.eval()
    with torch.no_grad():
        for x in inputs:
            assert torch.equal(compiled(x), made(x))


@needs_operators
def test_compiled_modules_with_output_size_and_formats():
    layer = typical("reflect")
    tensors = integers(31, layer)
    x, w, b, dy = tensors
    made = module(layer, w, b)
    torch._dynamo.reset()
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    assert_exact([compiled(x, list(dy.shape[-3:])).detach()], expected(layer, tensors)[:1])
    last = torch.channels_last_3d
    y = compiled(x.to(memory_format=last))
    assert y.is_contiguous(memory_format=last)
    assert_exact([y.detach()], expected(layer, tensors)[:1])
    with torch.no_grad():
        made.eval()(x)  # packed, which compiled code doesn't look at
        assert is_packed(made)
        made.weight.data[0, 0, 0, 0, 1] += 1
        assert torch.equal(compiled(x), module(layer, made.weight, b)(x))


@needs_operators
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not CAN_COMPILE, reason="no C++ compiler here, or no Python.h")
def test_compile_with_inductor():
    layer = typical("circular")
    x, w, b, dy = integers(34, layer)
    torch._dynamo.reset()
    call = function(layer)
    compiled = torch.compile(lambda x, w, b: 2 * call(x + 1, w, b - 1), fullgraph=True)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    found = compiled(*leaves)
    gradients = torch.autograd.grad(found, leaves, dy / 2)
    wanted = expected(layer, [x + 1, w, b - 1, dy])
    assert_exact([found.detach() / 2, *gradients], wanted)


@needs_operators
@pytest.mark.parametrize("mode", MODES)
def test_export(mode, tmp_path):
    made = network(mode).eval()
    one, other, third = samples((2, 2, 3, 4, 3), (2, 2, 3, 4, 3), (4, 2, 3, 4, 3))
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(made, (one,), dynamic_shapes=({0: batch},))
    targets = {str(node.target) for node in program.graph.nodes}
    assert "convt3d.conv_transpose3d.default" in targets
    torch.export.save(program, tmp_path / "m.pt2")
    again = torch.export.load(tmp_path / "m.pt2")
    for x in (one, other, third):
        for p in (program, again):
            assert torch.equal(p.module()(x), made(x))


@needs_operators
def test_make_fx():
    from torch.fx.experimental.proxy_tensor import make_fx

    layer = typical("replicate")
    x, w, b, dy = integers(32, layer)
    call = function(layer)

    def step(x, w, b, dy):
        leaves = [t.detach().requires_grad_() for t in (x, w, b)]
        y = call(*leaves)
        return (y, *torch.autograd.grad(y, leaves, dy))

    for tracing in ("real", "fake", "symbolic"):
        graph = make_fx(step, tracing_mode=tracing)(x, w, b, dy)
        targets = {str(node.target) for node in graph.graph.nodes}
        assert {f"convt3d.{name}.default" for name in calls(layer, 1)} <= targets
        found, wanted = graph(2 * x, w, b, dy), step(2 * x, w, b, dy)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
def test_jit_traces(mode):
    """Saved and loaded as well, where there are operators for the file, or PyTorch's own."""
    made = network(mode).eval()
    one, other, _ = samples()
    for context in (contextlib.nullcontext(), torch.no_grad()):
        with context:
            made(one)
            traced = torch.jit.trace(made, one, check_trace=False)
            assert torch.equal(traced(other), made(other))
    if HAS_OPERATORS or mode == "zeros":
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        assert torch.equal(loaded(other), made(other))
        wanted = gradients(made, other)
        assert all(torch.equal(a, b) for a, b in zip(gradients(loaded, other), wanted))


@needs_operators
def test_operators_refuse_what_functions_refuse():
    x, w, b, *rest = calls(plain(), 1)["conv_transpose3d"]
    with pytest.raises(ValueError, match="weight: axis 0 is 2"):
        torch.ops.convt3d.conv_transpose3d(x[:, :1], w, b, *rest)
    rest[0] = [1, 1]
    with pytest.raises(ValueError, match="stride: expected 3 values"):
        torch.ops.convt3d.conv_transpose3d(x, w, b, *rest)
    with pytest.raises(RuntimeError, match="missing value for argument"):
        torch.ops.convt3d.conv_transpose3d(x, w)


@needs_operators
@pytest.mark.parametrize("mode", MODES)
def test_operators_by_name_have_derivatives(mode):
    """The custom operators, as compiled code calls them, without the autograd functions."""
    layer = typical(mode, dtype="float64")
    x, w, b, dy = tensors = integers(33, layer)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    y = torch.ops.convt3d.conv_transpose3d(*leaves, *arguments(layer))
    first = torch.autograd.grad(y, leaves, dy.requires_grad_(), create_graph=True)
    assert_exact([t.detach() for t in (y, *first)], expected(layer, tensors))
    again = torch.autograd.grad(function(layer)(*leaves), leaves, dy, create_graph=True)
    # By all, and of the two results of one operator by one alone.
    for chosen in (slice(3), slice(1, 2), slice(2, 3)):
        results = []
        for gradients in (first, again):
            value = sum((g**2).sum() for g in gradients[chosen])
            allowed = {"allow_unused": True, "retain_graph": True}
            results.append(torch.autograd.grad(value, [dy, *leaves[:2]], **allowed))
        for a, b in zip(*results):
            # Nothing is as good as zeros.
            a, b = (torch.zeros(()) if t is None else t for t in (a, b))
            assert torch.equal(a, b) or not (a.any() or b.any())
