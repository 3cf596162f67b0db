"""bfloat16 and float16: read as float32, computed in float32, rounded once.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch_cases import (
    HAS_FUNC,
    HAS_OPERATORS,
    MODES,
    Own,
    assert_exact,
    expected,
    function,
    integers,
    module,
    plain,
    run,
    same_bytes,
    symmetric,
    typical,
)

import convt3d
from convt3d import _library
from convt3d.torch import ConvTranspose3d, accelerate, conv_transpose3d, is_packed, restore

DTYPES = [torch.bfloat16, torch.float16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
# Half a unit in the last place of 1, and the smallest number there is.
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
SMALLEST = {torch.bfloat16: 2.0**-133, torch.float16: 2.0**-24}
BLOCK, BLOCKS = 20, 3


def short(seed, layer, dtype, limit=9):
    """Small integers, which both types hold."""
    tensors = integers(seed, dict(layer, dtype="float32"))
    return [None if t is None else t.clamp(-limit, limit).to(dtype) for t in tensors]


def wide(tensors):
    return [None if t is None else t.detach().double() for t in tensors]


def of_dtype(layer, dtype, *parameters):
    return module(dict(layer, dtype=str(dtype)[6:]), *parameters)


def assert_rounded(found, exact, dtype, where=None):
    """'exact' are integers that float32 has."""
    assert all(t.dtype is dtype for t in found), where
    assert_exact(found, [t.float().to(dtype) for t in exact], where)


@each_dtype
@pytest.mark.parametrize("block", range(BLOCKS))
def test_modules_round_once(block, dtype):
    """In training, and in eval without gradients, where weights may be packed."""
    lost = 0
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        layer = symmetric(seed)
        x, w, b, dy = tensors = short(seed, layer, dtype)
        exact = expected(layer, wide(tensors))
        made = of_dtype(layer, dtype, w, b)
        found = run(made, x, dy)
        assert_rounded(found, exact[: len(found)], dtype, (seed, layer))
        with torch.no_grad():
            assert_rounded([made.eval()(x)], exact[:1], dtype, (seed, layer))
        lost += sum(int((a.double() != b).sum()) for a, b in zip(found, exact))
    assert lost > 0 if dtype is torch.float16 else lost > 100 * BLOCK


@each_dtype
@pytest.mark.parametrize("seed", range(8))
def test_modules_are_within_their_bound(seed, dtype):
    """Of PyTorch's own layer in float64, on the same numbers."""
    layer = symmetric(seed, padding_mode="zeros", bias=True)
    ours = of_dtype(layer, dtype)
    own, sizes = (module(dict(layer, dtype="float64"), kind=Own) for _ in range(2))
    own.load_state_dict(ours.state_dict())
    sizes.load_state_dict({name: p.abs() for name, p in ours.state_dict().items()})
    x = torch.randn(layer["batch"], layer["in_channels"], *layer["input_size"]).to(dtype)
    dy = torch.randn(own(x.double()).shape).to(dtype)
    taps = ours.weight[0, 0].numel()
    most = [x.shape[1] * taps, dy.shape[1] * taps, x[:, 0].numel(), dy[:, 0].numel()]
    u, least = ROUNDING[dtype], SMALLEST[dtype]
    results = run(ours, x, dy), run(own, x.double(), dy.double())
    sums = run(sizes, x.abs().double(), dy.abs().double())
    for found, y, size, terms in zip(*results, sums, most):
        g = (terms + 2) * 2.0**-24 / (1 - (terms + 2) * 2.0**-24)
        bound = u * y.abs() + (1 + u) * g * size + least
        assert found.dtype is dtype and ((found.double() - y).abs() <= bound).all()


@each_dtype
@pytest.mark.parametrize("mode", MODES)
def test_functions_and_layouts(mode, dtype):
    layer = typical(mode)
    x, w, b, dy = tensors = short(1, layer, dtype)
    exact = expected(layer, wide(tensors))
    for last in (False, True):
        if last:
            x, w, dy = (t.to(memory_format=torch.channels_last_3d) for t in (x, w, dy))
        leaves = [t.detach().requires_grad_() for t in (x, w, b)]
        y = function(layer)(*leaves)
        assert y.is_contiguous(memory_format=torch.channels_last_3d) == last
        assert_rounded([y.detach(), *torch.autograd.grad(y, leaves, dy)], exact, dtype)
    one = function(layer)(x[0], w, b)
    assert_rounded([one], [exact[0][0]], dtype)


def tiny(mode):
    """So small a layer that nothing of it, with numbers of -1 to 1, has more than 8 bits."""
    layer = plain(in_channels=2, out_channels=2, groups=2, input_size=(1, 2, 2), padding_mode=mode)
    return {**layer, "kernel_size": (2, 1, 2), "stride": (1, 2, 1), "output_padding": (0, 1, 0)}


def second(call, tensors):
    """Output, gradients and gradients of sums of these."""
    x, w, b, dy = (t.detach().clone().requires_grad_() for t in tensors)
    y = call(x, w, b)
    first = torch.autograd.grad(y, (x, w, b), dy, create_graph=True)
    again = torch.autograd.grad(sum(g.sum() for g in first), (x, w, dy))
    return [t.detach() for t in (y, *first, *again)]


@each_dtype
@pytest.mark.parametrize("mode", MODES)
def test_derivatives(mode, dtype):
    """Of second order, and tangents, exactly as in float64."""
    layer = tiny(mode)
    tensors = short(2, layer, dtype, limit=1)
    exact = wide(tensors)
    for a, b in zip(second(function(layer), tensors), second(function(layer), exact)):
        assert a.dtype is dtype and torch.equal(a.double(), b) and b.abs().max() <= 256
    found = []
    for x, w, b, _ in (tensors, exact):
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t, t.flip(0)) for t in (x, w, b)]
            found.append(forward_ad.unpack_dual(function(layer)(*duals)).tangent)
    assert found[0].dtype is dtype and torch.equal(found[0].double(), found[1])


@pytest.mark.skipif(not HAS_FUNC, reason="this PyTorch has no torch.func")
@each_dtype
@pytest.mark.parametrize("dims", [(0, None, None), (None, 0, None), (0, 0, 0)])
def test_vmap(dims, dtype):
    layer = tiny("zeros")
    tensors = short(3, layer, dtype, limit=1)[:3]
    stacked = [t if d is None else torch.stack([t, -t, t.flip(0)]) for t, d in zip(tensors, dims)]
    call = torch.func.vmap(function(layer), dims)
    found, exact = call(*stacked), call(*wide(stacked))
    assert found.dtype is dtype and torch.equal(found.double(), exact)


# ---- PyTorch's compilers ----------------------------------------------------------------


def operator_calls(layer, dtype):
    x, w, b, dy = short(4, layer, dtype, limit=1)
    x, w, dy = (t.requires_grad_() for t in (x, w, dy))
    rest = [list(layer["stride"]), list(layer["padding"][::2]), list(layer["output_padding"])]
    rest += [layer["groups"], list(layer["dilation"]), layer["padding_mode"]]
    return {
        "conv_transpose3d": (x, w, b, *rest),
        "conv_transpose3d_backward_input": (dy, w, list(layer["input_size"]), *rest),
        "conv_transpose3d_backward_weight": (dy, x, list(layer["kernel_size"]), True, *rest),
    }


@pytest.mark.skipif(not HAS_OPERATORS, reason="this PyTorch has no torch.library.custom_op")
@each_dtype
@pytest.mark.parametrize("name", operator_calls(tiny("zeros"), torch.float16))
def test_opcheck(name, dtype):
    for mode in MODES:
        inputs = operator_calls(tiny(mode), dtype)[name]
        torch.library.opcheck(getattr(torch.ops.convt3d, name).default, inputs)


@pytest.mark.skipif(not HAS_OPERATORS, reason="this PyTorch has no torch.library.custom_op")
@each_dtype
def test_compile_and_export(dtype):
    layer = typical("reflect")
    x, w, b, dy = short(5, layer, dtype)
    made = of_dtype(layer, dtype, w, b)
    torch._dynamo.reset()
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    results = []
    for call in (made, compiled):
        leaf = x.clone().requires_grad_()
        y = call(leaf)
        results.append([y, *torch.autograd.grad(y, (leaf, *made.parameters()), dy)])
    assert all(map(torch.equal, *results)) and all(t.dtype is dtype for t in results[1])
    program = torch.export.export(made.eval(), (x,)).module()
    with torch.no_grad():
        assert torch.equal(program(x), results[0][0])


# ---- Modules ----------------------------------------------------------------------------


@each_dtype
def test_accelerate_swaps_them(dtype):
    layer = typical()
    x, w, b, dy = tensors = short(6, layer, dtype)
    own = module(dict(layer, dtype=str(dtype)[6:]), w, b, kind=Own)
    assert accelerate(own) == ([""], {})
    assert_rounded(run(own, x, dy), expected(layer, wide(tensors)), dtype)
    assert restore(own) == [""] and type(own) is Own


@each_dtype
def test_packed_weights_follow_the_dtype(dtype):
    layer = typical("circular")
    x, w, b, _ = tensors = short(7, layer, dtype)
    exact = expected(layer, wide(tensors))[:1]
    made = module(layer, w, b).eval()
    with torch.no_grad():
        for asked in (torch.float32, dtype, torch.float64, *DTYPES, torch.float32):
            made.to(asked)
            for _ in range(2):
                assert_rounded([made(x.to(asked))], exact, asked)
                assert is_packed(made)
            # Wrong where the packed weights are of another dtype than the input.
            for other in (torch.float32, torch.float64, *DTYPES):
                if other is not asked:
                    with pytest.raises(convt3d.DtypeError, match=str(asked)[6:]):
                        made(x.to(other))
        kept = made.weight
        made.weight = torch.nn.Parameter(2 * kept)
        assert_exact([made(x.float())], [2 * exact[0] - b.double()[:, None, None, None]])


@each_dtype
def test_mixed_dtypes(dtype):
    layer = plain()
    x, w, b, _ = short(8, layer, dtype)
    other = next(d for d in DTYPES if d is not dtype)
    name = str(dtype)[6:]
    for given, words in (
        ((x.float(), w, b), f"input is float32.*{name}"),
        ((x, w.float(), b), f"input is {name}.*float32"),
        ((x, w.to(other), b), f"input is {name}"),
        ((x, w, b.to(other)), f"bias is {str(other)[6:]}"),
        ((x, w, b.double()), "bias is float64"),
        ((x, w, b.float()), f"bias: dtype torch.float32 is not {dtype}, the dtype of weight"),
    ):
        with pytest.raises(convt3d.DtypeError, match=words):
            conv_transpose3d(*given)
        with pytest.raises(convt3d.DtypeError, match=words), torch.no_grad():
            made = module(dict(layer, padding_mode="circular")).eval()
            made.weight, made.bias = (torch.nn.Parameter(t) for t in given[1:])
            made(given[0])


@each_dtype
def test_float32_gradients_of_a_weight(dtype):
    """By the function of arrays, on the tensors' own memory."""
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    layer = typical(batch=3)
    x, w, _, dy = tensors = short(9, layer, dtype)
    exact = expected(layer, wide(tensors))
    grads = torch.zeros(w.shape), torch.zeros(layer["out_channels"])
    named = {n: layer[n] for n in ("stride", "output_padding", "groups", "dilation")}
    for _ in range(5):
        convt3d.conv_transpose3d_backward(
            *(dy, x, w),
            **named,
            padding=layer["padding"][::2],
            output_mask=(False, True, True),
            out=(None, *grads),
            accumulate=True,
        )
    assert_exact([x, x, *grads], [x, x, 5 * exact[2], 5 * exact[3]])
    assert not torch.equal(grads[0], grads[0].to(dtype).float())  # rounding would show


# ---- Initial values ----------------------------------------------------------------------


@each_dtype
def test_initial_values_are_torchs(dtype):
    for seed in range(20):
        torch.manual_seed(seed)
        ours = ConvTranspose3d(6, 4, (3, 2, 1 + seed % 3), groups=2, dtype=dtype)
        torch.manual_seed(seed)
        own = Own(6, 4, (3, 2, 1 + seed % 3), groups=2, dtype=dtype)
        for a, b in zip(ours.parameters(), own.parameters()):
            assert a.dtype is dtype and torch.equal(a, b)


def from_library(seed, size, dtype, low, high):
    """What the C library's generator gives."""
    create = _library.library.convt3d_generator_create
    create.argtypes = [ctypes.c_uint64, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p]
    uniform = _library.library.convt3d_generator_uniform
    uniform.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int, ctypes.c_int64]
    uniform.argtypes += [ctypes.c_double] * 2 + [ctypes.c_void_p]
    free = _library.library.convt3d_generator_free
    free.argtypes, free.restype = [ctypes.c_void_p], None
    generator, code = ctypes.c_void_p(), {torch.bfloat16: 3, torch.float16: 4}[dtype]
    assert create(seed, ctypes.byref(generator), None) == 0
    result = torch.empty(size, dtype=dtype)
    assert uniform(generator, result.data_ptr(), code, size, low, high, None) == 0
    free(generator)
    return result


def rounds_float32():
    """Newer PyTorchs draw in float32 and round; older ones drew as few bits as the type has."""
    torch.manual_seed(0)
    scaled = 256 * torch.rand(1000, dtype=torch.bfloat16).float()
    return not torch.equal(scaled, scaled.round())


@pytest.mark.skipif(not rounds_float32(), reason="this PyTorch's values are older ones")
@each_dtype
def test_the_librarys_random_numbers_are_torchs(dtype):
    rng = np.random.default_rng(1)
    for seed, size in itertools.product(range(30), (1, 7, 16, 1000)):
        fan = int(rng.integers(1, 2000))
        bounds = [(-(fan**-0.5), fan**-0.5), (0, 1), (-3.1, 2.7), (0.99, 1.003)]
        for low, high in bounds:
            torch.manual_seed(seed)
            wanted = torch.empty(size, dtype=dtype).uniform_(low, high)
            found = from_library(seed, size, dtype, low, high)
            assert same_bytes(found.float(), wanted.float()), (seed, size, low, high)
