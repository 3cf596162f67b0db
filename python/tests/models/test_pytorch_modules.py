"""PyTorch's own cases of ConvTranspose3d: module_db, common_nn, TorchScript's and autocast's lists.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import pytest
import torch
import torch.testing._internal.jit_metaprogramming_utils as scripting
from pytorch_lists import (
    DTYPES,
    HAS_OPERATORS,
    INFO,
    LAST,
    LAZY,
    THEIRS,
    Case,
    as_module,
    check_all,
    close,
    dtypes,
    pair,
    run,
    spread,
)
from torch.autograd import grad
from torch.testing._internal import autocast_test_lists, common_nn

from convt3d.torch import ConvTranspose3d, accelerate

# ---- module_db ----------------------------------------------------------------------


def module_case(index, dtype, training=True, requires_grad=True):
    """A ModuleInput: the drop-in, PyTorch's module of the same seed, and the input."""
    named = {"device": "cpu", "dtype": dtype, "requires_grad": requires_grad}
    torch.manual_seed(index)
    case = INFO.module_inputs_func(INFO, training=training, **named)[index]
    made = pair(*case.constructor_input.args, dtype=dtype, **case.constructor_input.kwargs)
    return *(module.train(training) for module in made), case.forward_input.args[0], case


module_inputs = pytest.mark.parametrize("index", [0, 1], ids=["batched", "no_batch_dim"])
train_and_eval = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@module_inputs
@dtypes
@train_and_eval
@pytest.mark.parametrize("form", ["plain", "not-contiguous", "no_grad"])
def test_module_forward(index, dtype, training, form):
    """module_db: output, and gradients of input and parameters, as PyTorch's and as by the
    reference function; without gradients the same"""
    ours, theirs, x, case = module_case(index, dtype, training)
    given = torch.randn_like(theirs(x))
    wanted = run(theirs, x, given)
    if form == "no_grad":
        with torch.no_grad():
            for _ in range(3):  # packs its weights, and uses them
                close(ours(x), wanted[0])
        return
    if form == "not-contiguous":
        x, given = spread(x), spread(given)
    close(run(ours, x, given), wanted)
    if case.reference_fn is not None:
        close(ours(x), case.reference_fn(ours, x))


@module_inputs
@dtypes
def test_module_files(index, dtype, tmp_path):
    """module_db: repr, state_dict, torch.save, pickle and deepcopy"""
    ours, theirs, x, _ = module_case(index, dtype)
    assert repr(ours) == repr(theirs) and str(ours)
    wanted = ours(x)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)  # the same seed, the same layer
    theirs.load_state_dict(ours.state_dict(), strict=True)
    torch.save(ours.state_dict(), tmp_path / "state.pt")
    torch.nn.init.zeros_(ours.weight)
    assert ours.load_state_dict(torch.load(tmp_path / "state.pt"), strict=True)
    torch.save(ours, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    for other in (ours, loaded, pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        assert type(other) is ConvTranspose3d and repr(other) == repr(theirs)
        assert torch.equal(other(x), wanted)


@module_inputs
def test_module_gradcheck(index):
    """module_db: gradcheck and gradgradcheck of input and parameters"""
    ours, _, x, _ = module_case(index, torch.float64)
    call = getattr(torch, "func", torch.nn.utils.stateless).functional_call

    def layer(x, weight, bias):
        return call(ours, {"weight": weight, "bias": bias}, (x,))

    check_all(layer, (x, *ours.parameters()))


@module_inputs
@dtypes
@train_and_eval
def test_module_memory_format(index, dtype, training, by_design):
    """module_db: memory formats of module and input"""
    ours, _, x, _ = module_case(index, dtype, training)
    wanted = run(ours, x)
    formats = [torch.contiguous_format]
    if x.dim() == 5:
        formats.append(LAST)
        by_design("the output is channels_last_3d where the input is; PyTorch has other rules")
    for of_input, of_module in itertools.product(formats, [*formats, torch.preserve_format]):
        ours.to(memory_format=of_module)
        formed = x.detach().to(memory_format=of_input).requires_grad_()
        found = run(ours, formed)
        close(found, wanted)
        assert found[0].is_contiguous(memory_format=of_input)


@module_inputs
def test_module_conversions(index):
    """module_db: to(dtype), to(device), to_empty, device contexts, factory arguments, and modes
    that differ in nothing"""
    ours, theirs, x, case = module_case(index, torch.float32)
    for dtype in (torch.bfloat16, torch.float64, torch.float32):
        for module in (ours, theirs):
            module.to(dtype)
        assert {p.dtype for p in ours.parameters()} == {dtype}
        if dtype in DTYPES:
            close(ours(x.to(dtype)), theirs(x.to(dtype)))
    assert torch.equal(copy.deepcopy(ours).eval()(x), ours(x))
    del ours.training  # forward() doesn't ask
    assert ours(x).shape == ours.train().to("meta")(x.to("meta")).shape == theirs(x).shape
    ours.to_empty(device="cpu").load_state_dict(theirs.state_dict())
    close(ours(x), theirs(x))
    args, kwargs = case.constructor_input.args, case.constructor_input.kwargs
    for device, dtype in itertools.product(("cpu", "meta"), (*DTYPES, torch.bfloat16)):
        made = ConvTranspose3d(*args, **kwargs, device=device, dtype=dtype)
        assert {(p.device.type, p.dtype) for p in made.parameters()} == {(device, dtype)}
    if hasattr(torch, "get_default_device") or hasattr(torch, "set_default_device"):
        with torch.device("meta"):
            assert ConvTranspose3d(*args, **kwargs).weight.is_meta


def test_module_lazy():
    """module_db: LazyConvTranspose3d, which becomes PyTorch's, and convt3d's by accelerate()"""
    for case in LAZY.module_inputs_func(
        LAZY, device="cpu", dtype=torch.float32, requires_grad=False, training=True
    ):
        constructor = case.constructor_input
        module = torch.nn.Sequential(LAZY.module_cls(*constructor.args, **constructor.kwargs))
        assert list(accelerate(module).left) == ["0"]
        wanted = module(*case.forward_input.args)
        assert accelerate(module).swapped == ["0"] and isinstance(module[0], ConvTranspose3d)
        close(module(*case.forward_input.args), wanted)


# ---- common_nn, TorchScript, autocast -----------------------------------------------


def new_module_tests():
    make = getattr(common_nn, "get_new_module_tests", lambda: common_nn.new_module_tests)
    for found in make():
        if "ConvTranspose3d" in (found.get("module_name"), found.get("fullname", "").split("_")[0]):
            yield pytest.param(found, id="_".join(["ConvTranspose3d", found.get("desc", "")]))


new_modules = pytest.mark.parametrize("case", list(new_module_tests()))


@new_modules
def test_nn_module(case, double):
    """common_nn: NewModuleTest, which checks gradients, files, casts and what isn't contiguous"""
    rest = {k: v for k, v in case.items() if k != "module_name"}
    common_nn.NewModuleTest(ConvTranspose3d, check_batched_grad=HAS_OPERATORS, **rest)(Case())


@new_modules
def test_jit_module(case, double):
    """TorchScript's list: the module scripted, saved and loaded, and traced"""
    script, inputs = scripting.try_get_nn_module_compiled_mod_and_inputs(
        constructor=ConvTranspose3d, **case
    )
    module, file = ConvTranspose3d(*case["constructor_args"]), io.BytesIO()
    script.submodule.load_state_dict(module.state_dict())
    torch.jit.save(script, file)
    file.seek(0)
    traced = torch.jit.trace(module, inputs)
    for other in (script, torch.jit.load(file), traced):
        close(other(*inputs), module(*inputs))
        close(grad(other(*inputs).sum(), inputs), grad(module(*inputs).sum(), inputs))


def test_jit_function():
    """TorchScript's list: the function"""
    make = getattr(scripting, "get_nn_functional_tests", lambda: scripting.nn_functional_tests)
    assert any(case[0] == "conv_transpose3d" for case in make())
    pytest.skip("TorchScript compiles modules; the function is Python, and can be traced")


def test_autocast():
    """autocast's list: the module under torch.autocast"""
    lists = vars(autocast_test_lists.AutocastCPUTestLists(torch.device("cpu"))).values()
    entries = [e for found in lists if isinstance(found, list) for e in found]
    ((input, weight),) = (e[1] for e in entries if e[0] == "conv_transpose3d")
    theirs, ours = (as_module(c, (None, weight, None), {}) for c in (THEIRS, ConvTranspose3d))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted, found = theirs(input), ours(input)
    assert found.dtype is wanted.dtype is torch.bfloat16
    close(found, wanted)
