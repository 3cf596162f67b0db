"""torch.func: gradients, tangents, batches and what is made of them, of functions and modules.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch_cases import (
    HAS_FUNC,
    MODES,
    assert_exact,
    definition,
    function,
    integers,
    module,
    normal,
    plain,
    typical,
)

from convt3d.torch import is_packed

if not HAS_FUNC:
    pytest.skip("this PyTorch has no torch.func", allow_module_level=True)

from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap


def small(mode, **given):
    layer = plain(in_channels=2, out_channels=2, groups=2, input_size=(1, 2, 2), dtype="float64")
    layer.update(kernel_size=(2, 1, 2), stride=(2, 2, 1), dilation=(1, 1, 2), padding_mode=mode)
    return {**layer, "padding": (0, 0, 0, 0, 1, 1), "output_padding": (1, 1, 0), **given}


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def energy(call):
    return lambda *inputs: (call(*inputs) ** 3).sum()


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_derivatives(mode, unbatched):
    layer = small(mode)
    x, w, b, dy = normal(1, layer)
    inputs = (x[0], w, b) if unbatched else (x, w, b)
    tangents = tuple(torch.randn_like(t) for t in inputs)
    calls = function(layer), definition(layer)
    places = {"argnums": (0, 1, 2)}
    close(*(grad(energy(c), **places)(*inputs) for c in calls))
    close(*(jvp(c, inputs, tangents) for c in calls))
    close(*(vjp(c, *inputs)[1](dy[0] if unbatched else dy) for c in calls))
    for jacobian in (jacrev, jacfwd):
        close(*(jacobian(c, **places)(*inputs) for c in calls))
    close(*(hessian(energy(c), **places)(*inputs) for c in calls))
    close(*(jacrev(jacrev(energy(c), **places), **places)(*inputs) for c in calls))
    close(*(jvp(grad(energy(c), **places), inputs, tangents) for c in calls))


def batched(tensor, place, size):
    """Integers of the same shape, 'size' times, along an axis at 'place'."""
    if tensor is None or place is None:
        return tensor
    parts = [tensor + i for i in range(size)]
    return torch.stack(parts, place if place >= 0 else tensor.dim() + 1 + place)


def part(tensor, place, i):
    return tensor if tensor is None or place is None else tensor.select(place, i)


PLACES = [p for p in itertools.product((None, 0, 1, -1), repeat=3) if any(a is not None for a in p)]


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_batches_are_loops(mode, unbatched):
    """Every combination of which argument has the batch, and where."""
    layer = typical(mode, input_size=(1, 2, 3))
    x, w, b, _ = integers(2, layer)
    call, x = function(layer), x[0] if unbatched else x
    for places in PLACES:
        inputs = [batched(t, p, 3) for t, p in zip((x, w, b), places)]
        found = vmap(call, places, out_dims=1)(*inputs)
        loop = [call(*(part(t, p, i) for t, p in zip(inputs, places))) for i in range(3)]
        assert_exact([found], [torch.stack(loop, 1)], places)
        if places[2] is None:
            found = vmap(call, places[:2])(*inputs[:2])
            loop = [call(*(part(t, p, i) for t, p in zip(inputs[:2], places))) for i in range(3)]
            assert_exact([found], [torch.stack(loop)], places)


@pytest.mark.parametrize("unbatched", [False, True])
def test_batches_of_gradients_are_loops(unbatched):
    layer = typical("circular", input_size=(1, 2, 3))
    x, w, b, dy = integers(3, layer)
    if unbatched:
        x, dy = x[0], dy[0]

    def gradients(x, w, b, dy):
        return vjp(function(layer), x, w, b)[1](dy)

    for places in itertools.product((None, 0, -1), (None, 1), (None, 0), (None, 0, 2)):
        if places[0] is places[1] is places[3] is None:
            continue
        inputs = [batched(t, p, 3) for t, p in zip((x, w, b, dy), places)]
        found = vmap(gradients, places)(*inputs)
        loops = [gradients(*(part(t, p, i) for t, p in zip(inputs, places))) for i in range(3)]
        for a, rows in zip(found, zip(*loops)):
            assert torch.equal(a, torch.stack(rows)), places


def test_batches_of_batches():
    layer = typical("replicate", input_size=(1, 2, 3))
    x, w, b, _ = integers(4, layer)
    call = function(layer)
    xs, ws = batched(x, 0, 2), batched(w, 0, 3)
    found = vmap(vmap(call, (None, 0, None)), (0, None, None))(xs, ws, b)
    wanted = torch.stack([torch.stack([call(x, w, b) for w in ws]) for x in xs])
    assert torch.equal(found, wanted)
    repeated = xs[:, None].expand(2, 3, *x.shape)
    found = vmap(vmap(call, (0, 0, None)), (0, None, None))(repeated, ws, b)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_each_sample(mode, training):
    layer = typical(mode)
    x, w, b, _ = integers(5, layer)
    made = module(layer, w, b).train(training)
    parameters = dict(made.named_parameters())

    def loss(parameters, sample):
        return (functional_call(made, parameters, (sample,)) ** 2).sum()

    found = vmap(grad(loss), (None, 0))(parameters, x)
    with torch.no_grad():
        again = vmap(grad(loss), (None, 0))(parameters, x)
        made(x)
        assert is_packed(made) != training
        third = vmap(grad(loss), (None, 0))(parameters, x)
    for i, sample in enumerate(x):
        made.zero_grad()
        (made(sample) ** 2).sum().backward()
        for name, p in parameters.items():
            for results in (found, again, third):
                assert torch.equal(results[name][i], p.grad)


def test_ensembles():
    """Many modules as one, with parameters along a batch; packed weights aren't theirs."""
    layer = typical("reflect")
    x, _, _, _ = integers(6, layer)
    modules = [module(layer, *integers(seed, layer)[1:3]).eval() for seed in range(3)]
    with torch.no_grad():
        alone = torch.stack([m(x) for m in modules])
        assert all(map(is_packed, modules))
        parameters, buffers = torch.func.stack_module_state(modules)
        found = vmap(lambda p: functional_call(modules[0], p, (x,)))(parameters)
        assert torch.equal(found, alone)
        swapped = dict(modules[1].named_parameters())
        assert torch.equal(functional_call(modules[0], swapped, (x,)), alone[1])
        assert torch.equal(modules[0](x), alone[0])
    assert not buffers
