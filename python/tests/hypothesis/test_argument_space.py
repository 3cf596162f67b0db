"""Any arguments at all: right to the last bit, or refused with nothing written.
SPDX-License-Identifier: MIT
"""

import collections

import numpy as np
import oracle
import problems
import pytest
from layers import arguments, expected, plain

import convt3d

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

ERRORS = (convt3d.Error, TypeError)


def examples(number):
    return hypothesis.settings(max_examples=number, derandomize=True, database=None, deadline=None)


def axes(low, high):
    return st.tuples(*[st.integers(low, high)] * 3)


# ---- Layers --------------------------------------------------------------------------


def fits(layer, axis, before, after):
    """Whether an axis may have these paddings."""
    padding = list(layer["padding"])
    padding[2 * axis : 2 * axis + 2] = before, after
    return problems.legal({**layer, "padding": padding})


@st.composite
def legal_layers(draw):
    groups = draw(st.integers(1, 3))
    layer = plain(dtype=draw(st.sampled_from(["float32", "float64"])), bias=draw(st.booleans()))
    layer.update(groups=groups, batch=draw(st.integers(0, 3)))
    layer["in_channels"] = groups * draw(st.integers(1, 4))
    layer["per_group"] = draw(st.sampled_from([1, 2, 3, 5, 17]))
    layer["out_channels"] = groups * layer["per_group"]
    layer.update(kernel_size=draw(axes(1, 4)), stride=draw(axes(1, 4)), dilation=draw(axes(1, 3)))
    layer["input_size"] = (*draw(axes(1, 4))[:2], draw(st.sampled_from([1, 2, 3, 8, 15, 17])))
    steps = zip(layer["stride"], layer["dilation"])
    layer["output_padding"] = tuple(draw(st.integers(0, max(pair) - 1)) for pair in steps)
    layer["padding_mode"] = draw(st.sampled_from(problems.MODES))
    sides = [(before, after) for before in range(5) for after in range(5)]
    for axis in range(3):
        legal = [pair for pair in sides if fits(layer, axis, *pair)]
        padding = list(layer["padding"])
        padding[2 * axis : 2 * axis + 2] = draw(st.sampled_from(legal))
        layer["padding"] = tuple(padding)
    return layer


@st.composite
def other_layers(draw):
    """Legal ones of which up to three numbers are changed, which may make them illegal."""
    layer = draw(legal_layers())
    names = ["stride", "dilation", "padding", "output_padding", "kernel_size", "input_size"]
    names += ["groups", "in_channels"]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        is_size = name in ("kernel_size", "input_size", "in_channels")
        value = draw(st.integers(0 if is_size else -2, 6))
        if isinstance(layer[name], int):
            layer[name] = value
        else:
            place = draw(st.integers(0, len(layer[name]) - 1))
            layer[name] = (*layer[name][:place], value, *layer[name][place + 1 :])
    layer["padding_mode"] = draw(st.sampled_from(problems.MODES))
    layer["out_channels"] = layer["per_group"] * layer["groups"]
    return layer


def is_legal(layer):
    """By what include/convt3d.h says."""
    positive = [layer["groups"], layer["in_channels"]]
    for name in ("input_size", "kernel_size", "stride", "dilation"):
        positive += layer[name]
    if min(positive) < 1 or min(*layer["padding"], *layer["output_padding"]) < 0:
        return False
    steps = zip(layer["stride"], layer["dilation"], layer["output_padding"])
    if any(extra >= max(stride, dilation) for stride, dilation, extra in steps):
        return False
    return layer["in_channels"] % layer["groups"] == 0 and problems.legal(layer)


# ---- Memory --------------------------------------------------------------------------


class Memory:
    """Arrays with their axes in any order, any steps, forwards or backwards, and sevens between.

    A seed of 0, which failures are reduced to, gives plain ones."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed) if seed else None
        self.larger = []

    def place(self, array):
        if self.rng is None or array is None:
            return array
        order = self.rng.permutation(array.ndim)
        steps = self.rng.choice([1, 1, 2, 3], array.ndim)
        lengths = [array.shape[axis] for axis in order]
        larger = np.full([n * s + 1 for n, s in zip(lengths, steps)], 7, array.dtype)
        view = larger[tuple(slice(1, 1 + n * s, s) for n, s in zip(lengths, steps))]
        view = view[tuple(slice(None, None, sign) for sign in self.rng.choice([-1, 1], array.ndim))]
        view = view.transpose(np.argsort(order))
        view[...] = array
        self.larger.append((larger, view, view.copy()))
        return view

    def check(self, unchanged=()):
        """Nothing was written but what the views have, and nothing at all in some of these."""
        for larger, view, before in self.larger:
            if any(view is other for other in unchanged):
                assert view.tobytes() == before.tobytes()
            view[...] = 7
            assert np.all(larger == 7)


SPELLINGS = st.fixed_dictionaries({"pairs": st.booleans(), "output_size": st.booleans()})


def forward(layer, arrays, spelling, **more):
    return convt3d.conv_transpose3d(*arrays[:3], **arguments(layer, **spelling), **more)


def backward(layer, arrays, spelling, **more):
    x, w, _, dy = arrays
    return convt3d.conv_transpose3d_backward(dy, x, w, **arguments(layer, **spelling), **more)


# ---- Tests ---------------------------------------------------------------------------


@hypothesis.given(legal_layers(), st.integers(0, 2**32), st.booleans(), SPELLINGS)
@examples(250)
def test_legal_layers_are_exact(layer, seed, accumulate, spelling):
    arrays = problems.integers(seed, layer)
    wanted = expected(layer, arrays)
    memory = Memory(seed)
    inputs = [memory.place(a) for a in arrays]
    y, *outs = [memory.place(np.full(a.shape, 3, layer["dtype"])) for a in wanted]
    assert forward(layer, inputs, spelling, out=y) is y
    assert np.array_equal(y, wanted[0])
    found = backward(layer, inputs, spelling, out=outs, accumulate=accumulate)
    for out, a, b in zip(outs, found, wanted[1:]):
        assert a is out
        assert np.array_equal(a, b + 3 if accumulate else b)
    memory.check(unchanged=inputs)


def shapes(layer, sizes):
    """Of x, w, b and y, whatever the numbers are."""
    x = (layer["batch"], layer["in_channels"], *layer["input_size"])
    w = (layer["in_channels"], layer["per_group"], *layer["kernel_size"])
    channels = max(layer["per_group"] * layer["groups"], 0)
    return x, w, (channels,), (layer["batch"], channels, *sizes)


def test_layers_are_exact_or_refused():
    counted = collections.Counter()

    @hypothesis.given(other_layers(), st.integers(0, 2**32), SPELLINGS)
    @examples(400)
    def run(layer, seed, spelling):
        legal = is_legal(layer)
        counted[legal] += 1
        rng, memory = np.random.default_rng(seed), Memory(seed)
        given = shapes(layer, oracle.output_size(layer) if legal else (2, 3, 4))
        arrays = [rng.integers(-9, 10, shape).astype(layer["dtype"]) for shape in given]
        if legal:
            wanted = expected(layer, arrays)
            found = forward(layer, arrays, spelling), *backward(layer, arrays, spelling)
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted))
            return
        spelling = {**spelling, "output_size": False}  # which would have no value
        with pytest.raises(convt3d.Error):
            forward(layer, arrays, spelling)
        y, *outs = [memory.place(np.full(given[i], 3, layer["dtype"])) for i in (3, 0, 1, 2)]
        with pytest.raises(convt3d.Error):
            forward(layer, arrays, spelling, out=y)
        with pytest.raises(convt3d.Error):
            backward(layer, arrays, spelling, out=outs)
        memory.check(unchanged=[y, *outs])

    run()
    assert min(counted[True], counted[False]) > 100


ANY_ARRAY = st.builds(
    np.zeros,
    st.lists(st.integers(0, 3), max_size=6).map(tuple),
    st.sampled_from(["f4", "f4", "f8", "f2", ">f4", "i4", "?", "c8", "O", "U3", "f4,f4"]),
)
NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(), st.booleans(), st.none(), st.complex_numbers()
)
ANYTHING = st.one_of(
    NUMBERS,
    st.text(max_size=4),
    st.binary(max_size=4),
    st.lists(NUMBERS, max_size=4),
    st.lists(st.lists(NUMBERS, min_size=1, max_size=3), max_size=4),
    st.dictionaries(NUMBERS, NUMBERS, max_size=3),
    ANY_ARRAY,
    st.sampled_from(["zeros", "reflect", "circular", "relu", "tanh", len, object(), np.float32]),
)
INTEGERS = ["stride", "padding", "output_padding", "dilation", "groups"]


def given_anything(names):
    return st.dictionaries(st.sampled_from(names), ANYTHING, min_size=1, max_size=2)


@hypothesis.given(
    given_anything([*INTEGERS, "x", "weight", "bias", "padding_mode", "output_size", "out"]),
    given_anything(["activation", "negative_slope"]) | st.just({}),
)
@examples(400)
def test_anything_as_an_argument_of_forward(changes, more):
    layer = plain()
    x, weight, bias, y = problems.integers(1, layer)
    named = {"x": x, "weight": weight, "bias": bias, "out": y, **arguments(layer)}
    if changes.get("out", 0) is None:  # a new one might be huge
        del changes["out"]
    try:
        result = convt3d.conv_transpose3d(**{**named, **changes, **more})
    except ERRORS as error:
        assert str(error) and "\0" not in str(error)
        assert y.tobytes() == problems.integers(1, layer)[3].tobytes()
    else:
        assert result.size == 0 or result is y or np.shares_memory(result, changes["out"])


@hypothesis.given(
    given_anything([*INTEGERS, "x", "weight", "grad_output", "padding_mode", "output_size"]),
    st.lists(ANYTHING, max_size=3) | st.just([]),
)
@examples(300)
def test_anything_as_an_argument_of_backward(changes, outs):
    layer = plain()
    x, weight, _, grad = problems.integers(1, layer)
    own = [np.full(shape, 7, np.float32) for shape in problems.shapes(layer)[:3]]
    outs = [*outs, *own[len(outs) :]]
    named = {"x": x, "weight": weight, "grad_output": grad, **arguments(layer)}
    try:
        found = convt3d.conv_transpose3d_backward(**{**named, **changes}, out=outs)
    except ERRORS as error:
        assert str(error)
        assert all(np.all(a == 7) for a in own)
    else:
        assert [a.size for a in found] == [a.size for a in (x, weight, own[2])]
