"""PyTorch's own cases of ConvTranspose3d: op_db, on the function and the three operators.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import re

import pytest
import torch
from pytorch_lists import (
    DTYPES,
    FORMS,
    HAS_OPERATORS,
    INFO,
    NAMES,
    OP,
    OTHER_DTYPES,
    SHORT_DTYPES,
    THEIRS,
    as_module,
    by_pytorch,
    check_all,
    close,
    dtypes,
    everything,
    needs_operators,
    sample,
    samples,
)
from torch.testing._internal import composite_compliance

import convt3d
from convt3d.torch import ConvTranspose3d, conv_transpose3d

if HAS_OPERATORS:
    from torch.testing._internal import optests


@samples
@dtypes
@pytest.mark.parametrize("form", FORMS)
def test_op_values(index, dtype, form):
    """op_db: output, gradients, tangent and second gradients as PyTorch's, for plain samples,
    for some that aren't contiguous, and for views that are negative by a bit"""
    tensors, keywords = sample(index, dtype)
    formed = [t if t is None else FORMS[form](t) for t in tensors]
    close(everything(conv_transpose3d, formed, keywords), by_pytorch(index, dtype))


@samples
def test_op_reference(index):
    """op_db: output as of OpInfo's reference on NumPy arrays"""
    if not callable(OP.ref):
        pytest.skip("this PyTorch ships no reference for the operator")
    tensors, keywords = sample(index, requires_grad=False)
    try:
        wanted = OP.ref(*(t if t is None else t.numpy() for t in tensors), **keywords)
    except RuntimeError:  # it is a gradient of conv3d, which has no such output_padding
        assert keywords["output_padding"][1] >= keywords["stride"][1]
        pytest.skip("PyTorch's own reference fails where output_padding reaches the stride")
    close(conv_transpose3d(*tensors, **keywords), wanted)


@samples
def test_op_gradcheck(index):
    """op_db: gradcheck and gradgradcheck, with forward mode, batched as well"""
    tensors, keywords = sample(index)
    check_all(lambda *t: conv_transpose3d(*t, **keywords), tensors, batched=HAS_OPERATORS)


@samples
@pytest.mark.parametrize("batched", ["input", "weight", "both"])
def test_op_vmap(index, batched):
    """op_db: torch.func.vmap, and the gradients within it"""
    if not HAS_OPERATORS:
        pytest.skip("torch.func with rules for own functions came with PyTorch 2.0")
    tensors, keywords = sample(index, requires_grad=False)
    dims = [None if batched == other else 0 for other in ("weight", "input")] + [None]
    stacked = [t if d is None else torch.stack([t, -2 * t]) for t, d in zip(tensors, dims)]

    def run(function):
        def energy(*given):
            return function(*given, **keywords).pow(2).sum() / 2

        return torch.func.vmap(torch.func.grad(energy, argnums=(0, 1)), tuple(dims))(*stacked)

    close(run(conv_transpose3d), run(OP.op))


@needs_operators
@samples
@pytest.mark.parametrize("name", NAMES)
def test_op_opcheck(index, name):
    """op_db: torch.library.opcheck of the three operators"""
    (input, weight, bias), keywords = sample(index)
    full = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1, **keywords}
    layer = [list(v) if isinstance(v, tuple) else [v] * 3 for v in full.values()]
    layer[3] = full["groups"]
    layer.append("zeros")
    given = torch.randn_like(OP.op(input, weight, bias, **keywords)).requires_grad_()
    arguments = {
        NAMES[0]: (input, weight, bias, *layer),
        NAMES[1]: (given, weight, list(input.shape[-3:]), *layer),
        NAMES[2]: (given, input, list(weight.shape[2:]), bias is not None, *layer),
    }
    torch.library.opcheck(getattr(torch.ops.convt3d, name).default, arguments[name])


@needs_operators
@samples
@pytest.mark.parametrize("mode", ["fake", "symbolic", "aot", "aot-dynamic"])
def test_op_traced(index, mode):
    """op_db: make_fx and AOTAutograd over the function, as torch.compile uses them"""
    if mode.startswith("aot"):
        tensors, keywords = sample(index)
        optests.aot_autograd_check(
            conv_transpose3d, tensors, keywords, dynamic=mode == "aot-dynamic"
        )
    else:
        tensors, keywords = sample(index, requires_grad=False)
        optests.make_fx_check(conv_transpose3d, tensors, keywords, mode)


@needs_operators
@samples
@pytest.mark.parametrize("what", ["with_mode", "all_permutations", "backward_formula"])
def test_op_composite(index, what):
    """op_db: tensor subclasses and dispatch modes (composite compliance)"""
    tensors, keywords = sample(index, requires_grad=what == "backward_formula")
    check = getattr(composite_compliance, "check_" + what)
    check(conv_transpose3d, tensors, keywords, assert_equal_fn=torch.testing.assert_close)


@samples
@pytest.mark.parametrize("dtype", [*DTYPES, *SHORT_DTYPES, *OTHER_DTYPES], ids=lambda d: str(d)[6:])
def test_op_as_module(index, dtype, by_design):
    """op_db: the module, in all dtypes; PyTorch computes those that convt3d doesn't"""
    tensors, keywords = sample(index, dtype, requires_grad=False)
    theirs, ours = (as_module(cls, tensors, keywords) for cls in (THEIRS, ConvTranspose3d))
    if dtype in DTYPES:
        return close(ours(tensors[0]), theirs(tensors[0]))
    if dtype in SHORT_DTYPES:
        return close(ours(tensors[0]), theirs.float()(tensors[0].float()).to(dtype))
    with pytest.raises(convt3d.DtypeError, match="is not one of float32, float64"):
        conv_transpose3d(*tensors, **keywords)
    by_design("conv_transpose3d(), the function, takes no complex numbers")
    try:
        wanted = theirs(tensors[0])
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=re.escape(str(error))):
            ours(tensors[0])
        pytest.skip(f"this PyTorch's own layer refuses {dtype} here, and so does the drop-in")
    assert torch.equal(ours(tensors[0]), wanted)


def test_error_inputs():
    """op_db and module_db: inputs that must be refused"""
    lists = [OP.error_inputs_func, getattr(INFO, "module_error_inputs_func", None)]
    assert lists == [None, None], "this PyTorch ships some: run them"
    pytest.skip("PyTorch ships none for this layer; see 'what is refused'")
