"""Derivatives of every order and kind: against differences, the definition and PyTorch's own.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint
from torch_cases import (
    HAS_OPERATORS,
    MODES,
    assert_exact,
    both,
    definition,
    expected,
    function,
    integers,
    module,
    normal,
    plain,
    symmetric,
    typical,
)

from convt3d.torch import ConvTranspose3d, conv_transpose3d, is_packed

# Of each: few numbers, so that differences by each of them are quick.
SMALL = {"batch": 1, "in_channels": 2, "out_channels": 2, "dtype": "float64"}
SMALL["input_size"] = (2, 1, 3)
CASES = {
    "plain": {"kernel_size": (1, 2, 2)},
    "groups": {"groups": 2, "kernel_size": (1, 2, 2)},
    "dilation": {"dilation": (2, 1, 2), "kernel_size": (2, 2, 2), "out_channels": 1},
    "stride": {"stride": (1, 2, 3), "output_padding": (0, 1, 2), "kernel_size": (1, 2, 2)},
    "everything": {
        "batch": 2,
        "groups": 2,
        "stride": (2, 3, 1),
        "dilation": (1, 2, 2),
        "output_padding": (1, 2, 1),
        "kernel_size": (2, 1, 2),
        "input_size": (2, 1, 2),
    },
}


def leaves(layer, seed=1, unbatched=False):
    x, w, b, _ = normal(seed, layer)
    return [t.requires_grad_() for t in (x[0] if unbatched else x, w, b) if t is not None]


def small(case, mode, **given):
    layer = plain(**{**SMALL, **CASES[case], "padding_mode": mode, **given})
    return {**layer, "padding": (1, 1, 0, 0, 1, 1) if case == "everything" else (0, 0, 0, 0, 1, 1)}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_first_derivatives(case, mode):
    for bias, unbatched in ((True, False), (False, True)):
        layer = small(case, mode, bias=bias)
        inputs = leaves(layer, unbatched=unbatched)
        more = {"check_batched_grad": True} if HAS_OPERATORS else {}
        assert gradcheck(function(layer), inputs, check_forward_ad=True, **more)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_second_derivatives(case, mode):
    for bias, unbatched in ((True, True), (False, False)):
        layer = small(case, mode, bias=bias)
        inputs = leaves(layer, unbatched=unbatched)
        more = {"check_fwd_over_rev": True, "check_rev_over_rev": True}
        assert gradgradcheck(function(layer), inputs, **more)


@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives_with_constants(mode):
    """Every subset of what is differentiated by, in both orders."""
    layer = small("everything", mode)
    for wanted in itertools.product((True, False), repeat=3):
        inputs = [t.detach().requires_grad_(r) for t, r in zip(leaves(layer), wanted)]
        if any(wanted):
            assert gradcheck(function(layer), inputs, check_forward_ad=True, fast_mode=True)
        if wanted[0] or wanted[1]:
            assert gradgradcheck(function(layer), inputs, fast_mode=True)


def third(call, inputs):
    """Third derivatives of something that has none that are zero."""
    value, results = (call(*inputs) ** 4).sum(), []
    for _ in range(3):
        gradients = torch.autograd.grad(value, inputs, create_graph=True)
        results += gradients
        value = sum((g**2).sum() for g in gradients)
    return results


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_third_derivatives(case, mode):
    """PyTorch's own layer has none where there is an output_padding."""
    layer = small(case, mode)
    found, wanted = (third(c, leaves(layer)) for c in (function(layer), definition(layer)))
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())
        assert b.abs().max() > 0


@pytest.mark.parametrize("block", range(4))
def test_gradients_of_integers_are_exactly_torchs(block):
    for seed in range(block * 15, (block + 1) * 15):
        layer = symmetric(seed, padding_mode="zeros")
        x, w, b, dy = integers(seed, layer)
        results = []
        for call in (conv_transpose3d, F.conv_transpose3d):
            inputs = [t.detach().requires_grad_() for t in (x, w, b) if t is not None]
            y = function(layer, call)(*inputs)
            first = torch.autograd.grad(y, inputs, dy.requires_grad_(), create_graph=True)
            second = torch.autograd.grad(sum(g.sum() for g in first), [dy, *inputs[:2]])
            results.append([y, *first, *second])
        for a, b in zip(*results):
            assert torch.equal(a, b), (seed, layer)


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_every_subset_of_gradients(mode, unbatched):
    layer = typical(mode, batch=1 if unbatched else 2)
    for wanted in itertools.product((True, False), repeat=3):
        tensors = integers(21, layer)
        right = expected(layer, tensors)[1:]
        if unbatched:
            tensors[0], tensors[3], right[0] = tensors[0][0], tensors[3][0], right[0][0]
        x, w, b = (t.requires_grad_(r) for t, r in zip(tensors[:3], wanted))
        y = function(layer)(x, w, b)
        assert y.requires_grad == any(wanted)
        if any(wanted):
            y.backward(tensors[3])
        for t, r, gradient in zip((x, w, b), wanted, right):
            assert torch.equal(t.grad.double(), gradient) if r else t.grad is None


def test_retained_graphs_and_accumulation():
    layer = typical("reflect")
    tensors = integers(22, layer)
    x, w, b, dy = tensors
    made = module(layer, w, b)
    y = made(x.requires_grad_())
    for times in (1, 2, 3):
        y.backward(dy, retain_graph=times < 3)
        wanted = [times * t for t in expected(layer, tensors)]
        found = [y.detach() * times, x.grad, made.weight.grad, made.bias.grad]
        assert_exact(found, wanted)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward(dy)


def test_what_was_saved_may_not_be_changed():
    layer = typical()
    for place in range(2):
        x, w, b, dy = integers(23, layer)
        leaf = [x, w][1 - place].requires_grad_()  # its gradient needs the other
        y = function(layer)(x, w, b)
        [x, w][place].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward(dy)
        assert leaf.grad is None


def test_hooks_on_tensors():
    layer = typical("replicate")
    tensors = integers(24, layer)
    x, w, b, dy = tensors
    seen = []
    middle = x.requires_grad_() * 1
    middle.register_hook(lambda g: seen.append(g) or 2 * g)
    y = function(layer)(middle, w, b)
    y.register_hook(lambda g: 3 * g)
    y.backward(dy)
    wanted = expected(layer, tensors)[1]
    assert torch.equal(seen[0].double(), 3 * wanted) and torch.equal(x.grad.double(), 6 * wanted)


def test_undefined_parts():
    """Where only one of two results goes on, the other's gradient isn't there."""
    layer = small("everything", "zeros")
    results = []
    for call in (conv_transpose3d, F.conv_transpose3d):
        inputs, dy = leaves(layer), normal(1, layer)[3].requires_grad_()
        y = function(layer, call)(*inputs)
        gradients = torch.autograd.grad(y, inputs, dy, create_graph=True)
        parts = []
        for g in gradients:
            allowed = {"allow_unused": True, "retain_graph": True}
            parts += torch.autograd.grad((g**2).sum(), [dy, *inputs], **allowed)
        results.append(parts)
    for a, b in zip(*results):
        # PyTorch has zeros where nothing depends on anything.
        a = torch.zeros_like(b) if a is None and b is not None else a
        b = torch.zeros_like(a) if b is None and a is not None else b
        assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-11)


@pytest.mark.filterwarnings("ignore:Error detected in")
def test_anomaly_mode():
    layer = typical("circular")
    tensors = integers(25, layer)
    made = module(layer, *tensors[1:3])
    with torch.autograd.set_detect_anomaly(True):
        y = made(tensors[0].requires_grad_())
        y.backward(tensors[3])
        assert torch.equal(tensors[0].grad.double(), expected(layer, tensors)[1])
        with pytest.raises(RuntimeError, match="returned nan values"):
            made(tensors[0]).backward(torch.full_like(tensors[3], float("nan")))


@pytest.mark.parametrize("mode", MODES)
def test_without_gradients(mode):
    layer = typical(mode)
    tensors = integers(26, layer)
    x, w, b, _ = tensors
    for made in (module(layer, w, b), module(layer, w, b).eval()):
        for context in (torch.no_grad(), torch.inference_mode()):
            with context:
                y = made(x)
                assert not y.requires_grad and y.grad_fn is None
                assert y.is_inference() == torch.is_inference_mode_enabled()
                assert_exact([y], expected(layer, tensors)[:1])
    with torch.inference_mode():
        made = ConvTranspose3d(2, 2, 2).eval()  # its weights have no version
        before = made(x[:, :2])
        made.weight.mul_(2)
        made.bias.mul_(2)
        assert torch.equal(made(x[:, :2]), 2 * before)
    with pytest.raises(RuntimeError, match=r"[Ii]nference tensors"):
        made(x[:, :2])


def test_checkpoints_and_saved_tensors_hooks():
    layer = typical("reflect")
    tensors = integers(27, layer)
    x, w, b, dy = tensors
    leaf = w.requires_grad_()
    wanted = expected(layer, tensors)[2]
    y = checkpoint(function(layer), x, leaf, b, use_reentrant=False)
    y.backward(dy)
    assert torch.equal(leaf.grad.double(), wanted)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(force=True), torch.from_numpy):
        y = function(layer)(x, leaf, b)
    y.backward(dy)
    assert torch.equal(leaf.grad.double(), 2 * wanted)


@pytest.mark.parametrize("eval_mode", [True, False])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
def test_tangents_of_modules(context, eval_mode):
    """no_grad() is about gradients alone."""
    ours, own = both(typical(dtype="float64"))
    x, _, _, _ = normal(28, typical(dtype="float64"))
    tangent, tangents = x.flip(0), []
    for made in (ours.train(not eval_mode), own):
        with torch.no_grad():
            made(x)
        assert is_packed(made) == (eval_mode and made is ours)
        with context(), forward_ad.dual_level():
            dual = forward_ad.make_dual(x, tangent)
            tangents.append(forward_ad.unpack_dual(made(dual)).tangent)
    torch.testing.assert_close(*tangents)
