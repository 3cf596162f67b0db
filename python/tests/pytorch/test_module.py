"""The drop-in as a module: made, shown, saved, copied, hooked and shared as PyTorch's own.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch_cases import (
    HAS_OPERATORS,
    MODES,
    Own,
    assert_exact,
    both,
    expected,
    integers,
    module,
    outcome,
    plain,
    run,
    same_bytes,
    same_outcome,
    typical,
)

import convt3d
from convt3d.torch import ConvTranspose3d

ARGUMENTS = [
    ((2, 3, 3), {}),
    ((4, 6, (1, 2, 3)), {"stride": (3, 2, 1), "groups": 2, "bias": False}),
    ((3, 3, 2), {"stride": 2, "padding": 1, "output_padding": 1, "dilation": 3, "groups": 3}),
    ((8, 20, 5, (2, 1, 1), (0, 1, 2), (1, 0, 0), 4, True, 2), {"dtype": torch.float64}),
]


def own_repr(made):
    """What PyTorch prints for these attributes, whatever it computes."""
    own = Own(1, 1, 1)
    vars(own).update({name: value for name, value in vars(made).items() if name[0] != "_"})
    own._parameters = made._parameters
    return repr(own)


def test_signatures_are_those_of_torch():
    for method in ("__init__", "forward"):
        ours = inspect.signature(getattr(ConvTranspose3d, method)).parameters
        own = inspect.signature(getattr(Own, method)).parameters
        assert list(ours) == list(own)
        for name in own:
            assert (ours[name].default, ours[name].kind) == (own[name].default, own[name].kind)


@pytest.mark.parametrize("positional, named", ARGUMENTS)
def test_made_as_torchs_own(positional, named):
    torch.manual_seed(17)
    ours = ConvTranspose3d(*positional, **named)
    after = torch.rand(1)
    torch.manual_seed(17)
    own = Own(*positional, **named)
    assert torch.equal(after, torch.rand(1))  # no more draws either
    assert isinstance(ours, Own) and type(ours) is not Own
    assert list(ours.state_dict()) == list(own.state_dict())
    assert all(map(same_bytes, ours.state_dict().values(), own.state_dict().values()))
    assert repr(ours) == repr(own)
    public = [{n: v for n, v in vars(m).items() if n[0] != "_"} for m in (ours, own)]
    assert public[0] == public[1]
    assert all(type(p) is torch.nn.Parameter and p.requires_grad for p in ours.parameters())


@pytest.mark.parametrize("positional, named", ARGUMENTS)
def test_state_goes_both_ways(positional, named):
    a, b = ConvTranspose3d(*positional, **named), Own(*positional, **named)
    c = ConvTranspose3d(*positional, **named, padding_mode="circular")
    for target, source in ((b, a), (c, b), (a, c)):
        before = copy.deepcopy(source.state_dict())
        target.load_state_dict(source.state_dict(), strict=True)
        assert all(same_bytes(target.state_dict()[name], before[name]) for name in before)
    with pytest.raises(RuntimeError, match=r"Missing key.*weight"):
        a.load_state_dict({})


@pytest.mark.parametrize("mode", MODES[1:])
def test_other_modes_are_shown(mode):
    made = module(typical(mode))
    assert repr(made).endswith(f"padding_mode={mode})") and repr(made) == own_repr(made)
    assert made.padding_mode == mode


@pytest.mark.parametrize("mode", MODES)
def test_float64_meta_and_default_dtype(mode):
    layer = typical(mode)
    named = {"padding": 1, "padding_mode": mode}
    assert ConvTranspose3d(2, 3, 3, dtype=torch.float64, **named).weight.dtype is torch.float64
    torch.set_default_dtype(torch.float64)
    assert ConvTranspose3d(2, 3, 3, **named).bias.dtype is torch.float64
    empty = ConvTranspose3d(4, 6, 2, device="meta", **named)
    assert empty.weight.is_meta and empty.bias.is_meta
    filled = empty.to_empty(device="cpu")
    filled.reset_parameters()
    assert filled.weight.isfinite().all() and type(filled) is ConvTranspose3d
    tensors = integers(3, {**layer, "dtype": "float64"})
    made = module(layer, tensors[1], tensors[2]).double()
    assert_exact(run(made, tensors[0], tensors[3]), expected(layer, tensors))


@pytest.mark.parametrize("mode", MODES)
def test_meta_tensors_have_shapes_alone(mode):
    made = module(typical(mode)).to("meta")
    x = torch.empty(2, 4, 2, 3, 4, device="meta")
    if mode != "zeros" and not HAS_OPERATORS:
        with pytest.raises(convt3d.DtypeError, match="meta; legal: strided, on the CPU"):
            made(x)
        return
    y = made(x)
    assert y.is_meta and y.shape == module(typical(mode))(torch.ones(2, 4, 2, 3, 4)).shape


def test_mixed_devices_give_no_memory_that_nobody_wrote():
    made = module(typical("circular"))
    with pytest.raises(convt3d.Error, match="meta"):
        made(torch.empty(2, 4, 2, 3, 4, device="meta"))
    with pytest.raises(convt3d.Error, match="meta"):
        made.to("meta")(torch.ones(2, 4, 2, 3, 4))


def test_a_copy_is_one_of_its_own():
    layer = typical("reflect")
    tensors = integers(4, layer)
    made = module(layer, tensors[1], tensors[2])
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    weak = {"weights_only": False}
    for again in (
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        torch.load(file, **weak),
    ):
        assert type(again) is ConvTranspose3d and repr(again) == repr(made)
        assert_exact(run(again, tensors[0], tensors[3]), expected(layer, tensors))
        with torch.no_grad():
            again.weight.zero_()
    assert torch.equal(made.weight, tensors[1])


def test_hooks_are_called_as_by_torchs_own():
    layer = typical()
    tensors = integers(5, layer)
    results = []
    for made in both(layer, *tensors[1:3]):
        seen = []
        made.register_forward_pre_hook(lambda m, inputs: (inputs[0] * 2,))
        made.register_forward_hook(lambda m, inputs, output: output + 1)
        made.register_full_backward_hook(lambda m, into, out, seen=seen: seen.extend(into + out))
        results.append([*run(made, tensors[0], tensors[3]), *seen])
    assert len(results[0]) == len(results[1]) == 6
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_two_modules_share_a_weight():
    layer = plain(stride=(2, 2, 2))
    x, w, b, _ = integers(6, layer)
    gradients = []
    for first, second in zip(both(layer, w, b), both(dict(layer, stride=(1, 1, 1)), w, b)):
        second.weight = first.weight
        (first(x).sum() + 3 * second(x).sum()).backward()
        assert second.weight.grad is first.weight.grad
        gradients.append(first.weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64])
def test_other_dtypes_are_torchs_own(dtype):
    """Its results, or its errors."""
    modules = both(typical())
    x = torch.ones(2, 4, 2, 3, 4, dtype=dtype)
    assert same_outcome(*(outcome(m, x) for m in modules))
    assert same_outcome(*(outcome(lambda m=m: m.to(dtype)(x)) for m in modules))
    assert same_outcome(*(outcome(m, x, [3, 5, 11]) for m in modules))
    with pytest.raises(ValueError, match="4 in height can't be reached; legal: 5 to 6"):
        modules[0](x, [3, 4, 11])


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.float64])
def test_other_dtypes_in_other_modes_are_refused(mode, dtype):
    x = torch.ones(2, 4, 2, 3, 4, dtype=dtype)
    for made in (module(typical(mode)), module(typical(mode)).eval()):
        with torch.no_grad(), pytest.raises(convt3d.DtypeError) as raised:
            made(x)
        assert str(dtype).split(".")[1] in str(raised.value)


def test_other_layouts():
    ours, own = both(plain(in_channels=3))
    x = torch.ones(2, 3, 2, 3, 4)
    assert same_outcome(outcome(ours, x.to_sparse()), outcome(own, x.to_sparse()))
    with pytest.raises((convt3d.DtypeError, NotImplementedError), match="parse"):
        module(plain(in_channels=3, padding_mode="replicate"))(x.to_sparse())
