"""precision=: what it changes where the CPU has AMX, and what it must not change.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest

import convt3d
from convt3d import _layer

NAMES = ["highest", "high", "medium"]
X, W = (1, 64, 3, 4, 20), (64, 64, 3, 3, 3)


def has_terms():
    plan = _layer.make_plan(_layer.Layer(padding_before=(1, 1, 1)), 0, 1, X, W, 2)
    return "bfloat16" in str(plan)


def arrays(dtype):
    rng = np.random.default_rng(3)
    return rng.standard_normal(X).astype(dtype), rng.standard_normal(W).astype(dtype)


def results(x, w):
    for name in NAMES:
        y = convt3d.conv_transpose3d(x, w, padding=1, precision=name)
        grads = convt3d.conv_transpose3d_backward(y, x, w, padding=1, precision=name)
        yield name, y, grads[0]


def test_each_is_as_exact_as_it_says():
    x, w = arrays("float32")
    wide = convt3d.conv_transpose3d(x.astype("float64"), w.astype("float64"), padding=1)
    sums = convt3d.conv_transpose3d(
        np.abs(x).astype("float64"), np.abs(w).astype("float64"), padding=1
    )
    outputs = {name: y for name, y, _ in results(x, w)}
    errors = {name: (np.abs(y - wide) / sums).max() for name, y in outputs.items()}
    assert errors["highest"] < 2.0**-20
    assert errors["high"] < 2.0**-15
    assert errors["medium"] < 2.0**-7
    if has_terms():
        assert errors["highest"] * 4 < errors["high"] < errors["medium"] / 64
    else:
        assert len({y.tobytes() for y in outputs.values()}) == 1
    assert np.array_equal(outputs["highest"], convt3d.conv_transpose3d(x, w, padding=1))


def test_gradients_follow():
    kinds = {grad.tobytes() for _, _, grad in results(*arrays("float32"))}
    assert len(kinds) == (3 if has_terms() else 1)


def test_float64_knows_one():
    assert len({y.tobytes() for _, y, _ in results(*arrays("float64"))}) == 1


@pytest.mark.parametrize("name", ["low", "HIGHEST", None, 1])
def test_other_names_are_refused(name):
    x, w = arrays("float32")
    with pytest.raises(convt3d.ArgumentError, match=r"precision: .* is not one of highest, high"):
        convt3d.conv_transpose3d(x, w, precision=name)
    with pytest.raises(convt3d.ArgumentError, match="precision"):
        convt3d.conv_transpose3d_backward(x, x, w, precision=name)
