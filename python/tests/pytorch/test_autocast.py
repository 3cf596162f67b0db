"""torch.autocast: what goes in is cast as PyTorch casts it, and runs on convt3d.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch_cases import (
    HAS_OPERATORS,
    MODES,
    Own,
    both,
    integers,
    module,
    normal,
    outcome,
    plain,
    run,
    same_bytes,
    typical,
)

import convt3d
from convt3d.torch import conv_transpose3d, is_packed

LAYER = typical()
ONE = torch.ones(1, 1, 1, 1, 1)


def enabled(dtype):
    """In some versions there is no autocast to this: it stays off, or raises."""
    try:
        with torch.autocast("cpu", dtype=dtype):
            old = not hasattr(torch, "get_autocast_dtype")
            return torch.is_autocast_cpu_enabled() if old else torch.is_autocast_enabled("cpu")
    except RuntimeError:
        return False


pytestmark = pytest.mark.filterwarnings("ignore:.*not supported.*", "ignore:In CPU autocast")


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def asked(request):
    if not enabled(request.param):
        pytest.skip(f"this PyTorch has no autocast to {request.param} on CPUs")
    return request.param


@pytest.fixture
def cast(asked):
    """The dtype to which this version casts what transposed convolutions take."""
    with torch.autocast("cpu", dtype=asked):
        return F.conv_transpose3d(ONE, ONE).dtype


def by_hand(made, x, dy, dtype):
    """The same without autocast: the cast is a part of what is differentiated."""
    leaf = x.detach().requires_grad_()
    given = [None if t is None else t.to(dtype) for t in (leaf, made.weight, made.bias)]
    stride, padding, more = made.stride, made.padding, made.output_padding
    rest = (stride, padding, more, made.groups, made.dilation)
    y = conv_transpose3d(*given, *rest, padding_mode=made.padding_mode)
    leaves = [leaf, *made.parameters()]
    return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(dtype))]


@pytest.mark.parametrize("mode", MODES)
def test_modules_are_cast(mode, asked, cast):
    layer = typical(mode)
    x, w, b, dy = normal(1, layer)
    made = module(layer, w, b)
    wanted = by_hand(made, x, dy, cast)
    with torch.autocast("cpu", dtype=asked):
        leaf = x.detach().requires_grad_()
        y = made(leaf)
    found = [y.detach(), *torch.autograd.grad(y, [leaf, *made.parameters()], dy.to(y.dtype))]
    assert [t.dtype for t in found] == [cast] + [torch.float32] * 3
    assert all(map(torch.equal, found, wanted))
    if cast is not torch.float32:
        assert not torch.equal(found[0].float(), made(x))  # the cast is there


def test_values_are_as_exact_as_torchs(asked):
    """With integers, of which neither loses anything but by rounding the sums."""
    layer = plain()
    x, w, b, dy = integers(2, layer)
    results = []
    for made in both(layer, w, b):
        with torch.autocast("cpu", dtype=asked):
            y = made(x)
        results.append((y.detach(), *torch.autograd.grad(y, list(made.parameters()), dy.to(y))))
    for a, b in zip(*results):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("call", ["module", "function"])
def test_dtypes_are_torchs(call, asked):
    """float64 is left as it is, what is short already is cast as well; mixtures are refused."""
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    for of_input, of_weight in itertools.product(kinds, kinds):
        x = torch.ones(2, 4, 2, 3, 4, dtype=of_input)
        results = []
        for kind, own in ((Own, F.conv_transpose3d), (None, conv_transpose3d)):
            made = module(LAYER, kind=kind or convt3d.torch.ConvTranspose3d).to(of_weight)
            with torch.autocast("cpu", dtype=asked):
                if call == "module":
                    results.append(outcome(made, x))
                else:
                    results.append(outcome(own, x, made.weight, made.bias, 2, 1, 1, 2))
        kinds_of = [r.dtype if torch.is_tensor(r) else "refused" for r in results]
        assert kinds_of[0] == kinds_of[1], (of_input, of_weight)
        if call == "module" and kinds_of[0] == "refused":
            assert results[0] == results[1]  # in PyTorch's words


@pytest.mark.parametrize("mode", MODES)
def test_packed_weights(mode, asked, cast):
    """Of the cast dtype within, of their own without, and up to date in both."""
    layer = typical(mode)
    x, w, b, dy = normal(3, layer)
    made = module(layer, w, b).eval()
    for step in range(3):
        inside, outside = by_hand(made, x, dy, cast)[0], by_hand(made, x, dy, torch.float32)[0]
        for _ in range(2):
            with torch.no_grad():
                with torch.autocast("cpu", dtype=asked):
                    y = made(x)
                    assert is_packed(made) and y.dtype is cast and torch.equal(y, inside)
                    assert torch.equal(made(x.to(cast)), inside)
                    assert torch.equal(made(x), inside)
                assert same_bytes(made(x), outside)
        with torch.no_grad():
            made.weight.mul_(1.5 + step)


def test_packed_weights_are_kept(asked, monkeypatch):
    """They are cast once, not at each call."""
    from convt3d.torch import _packed

    made, x = module(LAYER).eval(), normal(4, LAYER)[0]
    packed = []
    real = _packed._Packed
    monkeypatch.setattr(_packed, "_Packed", lambda *a: packed.append(a) or real(*a))
    with torch.no_grad(), torch.autocast("cpu", dtype=asked):
        for _ in range(5):
            made(x)
    assert len(packed) == 1


def test_functions_are_cast(asked, cast):
    x, w, b, _ = normal(5, plain())
    with torch.autocast("cpu", dtype=asked):
        y = conv_transpose3d(x, w, b)
        assert conv_transpose3d(x, w).dtype is cast
        with torch.autocast("cpu", enabled=False):
            assert conv_transpose3d(x, w, b).dtype is torch.float32
        assert conv_transpose3d(x.double(), w.double()).dtype is torch.float64
    assert torch.equal(y, conv_transpose3d(*(t.to(cast) for t in (x, w, b))))


def test_training_step(asked):
    """Parameters of float32 move by gradients of float32."""
    layer = typical("replicate")
    x, w, b, dy = normal(6, layer)
    made = module(layer, w, b)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.125)
    with torch.autocast("cpu", dtype=asked):
        loss = (made(x).float() * dy).sum()
    loss.backward()
    assert made.weight.grad.dtype is torch.float32 and made.weight.grad.abs().max() > 0
    optimizer.step()
    assert torch.equal(made.weight.detach(), w - 0.125 * made.weight.grad)
    assert run(made, x, dy)[0].dtype is torch.float32


@pytest.mark.skipif(not HAS_OPERATORS, reason="this PyTorch has no torch.library.custom_op")
def test_compile(asked):
    """One compiled module, within and without."""
    made, x = module(typical("circular")), normal(7, typical())[0]
    torch._dynamo.reset()
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        with torch.autocast("cpu", dtype=asked):
            assert compiled(x).dtype is asked and torch.equal(compiled(x), made(x))
        assert torch.equal(compiled(x), made(x)) and compiled(x).dtype is torch.float32
