"""torch.set_float32_matmul_precision(), which the layer follows.
SPDX-License-Identifier: MIT
"""

import pytest
import torch

from convt3d import _layer
from convt3d.torch import ConvTranspose3d, _packed, conv_transpose3d

SHAPE = (1, 64, 3, 4, 20)


@pytest.fixture(autouse=True)
def restore():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def has_terms():
    plan = _layer.make_plan(
        _layer.Layer(padding_before=(1, 1, 1)), 0, 1, SHAPE, (64, 64, 3, 3, 3), 2
    )
    return "bfloat16" in str(plan)


def results(function):
    found = []
    for name in ("highest", "high", "medium", "highest"):
        torch.set_float32_matmul_precision(name)
        found.append(function())
    return found


def check(found):
    assert torch.equal(found[0], found[3])
    kinds = {bytes(y.detach().contiguous().numpy().tobytes()) for y in found}
    assert len(kinds) == (3 if has_terms() else 1)


def test_functions_follow():
    torch.manual_seed(0)
    x, w = torch.randn(SHAPE), torch.randn(64, 64, 3, 3, 3)
    check(results(lambda: conv_transpose3d(x, w, padding=1)))


def test_gradients_follow():
    torch.manual_seed(1)
    x, w = torch.randn(SHAPE, requires_grad=True), torch.randn(64, 64, 3, 3, 3)

    def gradient():
        x.grad = None
        conv_transpose3d(x, w, padding=1).backward(torch.ones(SHAPE))
        return x.grad

    check(results(gradient))


def test_packed_weights_follow():
    torch.manual_seed(2)
    module, x = ConvTranspose3d(64, 64, 3, padding=1).eval(), torch.randn(SHAPE)

    def run():
        with torch.no_grad():
            y = module(x)
        assert _packed.is_packed(module)
        return y

    check(results(run))


def test_float64_knows_one():
    x, w = torch.randn(SHAPE).double(), torch.randn(64, 64, 3, 3, 3).double()
    found = results(lambda: conv_transpose3d(x, w, padding=1))
    assert all(torch.equal(found[0], y) for y in found)
