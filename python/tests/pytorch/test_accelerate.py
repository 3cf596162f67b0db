"""accelerate() and restore(): what is swapped, what is left and why, and what stays as it was.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch_cases import Own, integers, module, plain, same_bytes

from convt3d.torch import ConvTranspose3d, Report, accelerate, is_packed, restore


class Up(nn.Module):
    """One layer twice, one in a list, and a normalization."""

    def __init__(self):
        super().__init__()
        self.first = Own(3, 4, 2, stride=2)
        self.again = self.first
        self.rest = nn.ModuleList([nn.InstanceNorm3d(4), Own(4, 3, 3, padding=1, groups=1)])
        self.flat = nn.ConvTranspose2d(3, 3, 1)

    def forward(self, x):
        x = self.rest[1](torch.relu(self.rest[0](self.first(x))))
        return self.again(x)


class Special(Own):
    def forward(self, input, output_size=None):
        return 2 * super().forward(input, output_size)


def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv3d(2, 3, 1), Up(), Own(4, 2, 1)).double()


X = torch.arange(2 * 2 * 2 * 3 * 2, dtype=torch.float64).reshape(2, 2, 2, 3, 2) / 7 - 1
NAMES = ["1.first", "1.rest.1", "2"]


def test_layers_are_swapped_in_place_and_back():
    made = model()
    before, text = made(X), repr(made)
    modules, parameters = list(made.modules()), list(made.parameters())
    states = [copy.deepcopy(made.state_dict())]
    report = accelerate(made)
    assert isinstance(report, Report) and report == (NAMES, {})
    for name in NAMES:
        assert isinstance(made.get_submodule(name), ConvTranspose3d)
    assert all(a is b for a, b in zip(modules, made.modules()))
    assert all(a is b for a, b in zip(parameters, made.parameters()))
    assert made[1].again is made[1].first and type(made[1].flat) is nn.ConvTranspose2d
    assert repr(made) == text
    torch.testing.assert_close(made(X), before, rtol=1e-12, atol=1e-12)
    states.append(made.state_dict())
    assert accelerate(made) == ([], {})  # nothing is left to do
    assert restore(made) == NAMES and restore(made) == []
    assert all(type(made.get_submodule(name)) is Own for name in NAMES)
    assert torch.equal(made(X), before) and repr(made) == text
    states.append(made.state_dict())
    for state in states[1:]:
        assert list(state) == list(states[0])
        assert all(same_bytes(state[name], states[0][name]) for name in state)


def test_the_model_itself():
    made = Own(2, 3, 2, stride=2)
    assert str(accelerate(made)) == "1 swapped, 0 left\n  (the model itself)"
    assert isinstance(made, ConvTranspose3d) and restore(made) == [""]
    other = Special(2, 3, 2)
    text = "0 swapped, 1 left\n  (the model itself): of class Special, which may compute something"
    assert str(accelerate(other)) == text + " else"
    assert str(accelerate(nn.Sequential())) == "0 swapped, 0 left"


def integral():
    """As some that quantize leave a layer."""
    made = Own(1, 1, 1)
    made.weight = nn.Parameter(made.weight.to(torch.int8), requires_grad=False)
    return made


def odd_ones():
    """Layers that are left, with the reason."""
    replaced = Own(1, 1, 1)
    replaced.forward = lambda x: x
    normed = Own(1, 1, 1)
    parametrizations.spectral_norm(normed)
    other = "which may compute something else"
    return {
        "subclass": (Special(1, 1, 1), f"of class Special, {other}"),
        "replaced": (replaced, "its forward() was replaced"),
        "complex": (
            Own(1, 1, 1, dtype=torch.complex64),
            "of dtype torch.complex64; convt3d has float32, float64, bfloat16, float16",
        ),
        "integers": (integral(), "of dtype torch.int8; convt3d has"),
        "normed": (normed, f"of class ParametrizedConvTranspose3d, {other}"),
        "lazy": (nn.LazyConvTranspose3d(1, 1), f"of class LazyConvTranspose3d, {other}"),
    }


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_is_left_and_why():
    ones = odd_ones()
    made = nn.ModuleDict({name: one for name, (one, _) in ones.items()})
    made["good"], made["meta"] = Own(1, 1, 1), Own(1, 1, 1, device="meta")
    made["ours"] = ConvTranspose3d(1, 1, 1, padding_mode="circular")
    classes = {name: type(one) for name, one in made.items()}
    report = accelerate(made)
    assert report.swapped == ["good", "meta"] and list(report.left) == list(ones)
    for name, (one, why) in ones.items():
        assert report.left[name].startswith(why) and type(one) is classes[name]
    lines = str(report).splitlines()
    assert lines[:3] == ["2 swapped, 6 left", "  good", "  meta"]
    assert lines[4] == "  replaced: its forward() was replaced"
    assert len(lines) == 9 and str(report) == str(eval(repr(report)))
    assert restore(made) == ["good", "meta"]  # not what its author made a drop-in
    assert type(made["ours"]) is ConvTranspose3d


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_later():
    made = nn.Sequential(nn.LazyConvTranspose3d(3, 2, stride=2))
    assert list(accelerate(made).left) == ["0"]
    made(torch.ones(1, 2, 2, 2, 2))
    assert accelerate(made) == (["0"], {})
    assert made(torch.ones(1, 2, 2, 2, 2)).shape == (1, 3, 4, 4, 4)


def trained(made, optimizer, steps):
    for step in range(steps):
        optimizer.zero_grad()
        loss = (made(X + step) ** 2).mean()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in made.parameters()]


def test_optimizers_go_on():
    results = []
    for swaps in (False, True):
        made = model()
        optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
        trained(made, optimizer, 2)
        if swaps:
            accelerate(made)
        trained(made, optimizer, 2)
        if swaps:
            restore(made)
        results.append(trained(made, optimizer, 2))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    first = model().state_dict()
    assert not torch.equal(first["2.weight"], results[0][-2])  # it learned something


def test_hooks_flags_and_attributes_stay():
    made = model().eval()
    made[2].mine = "kept"
    made[2].weight.requires_grad_(False)
    seen = []
    made[2].register_forward_hook(lambda m, inputs, output: seen.append(output.shape))
    accelerate(made)
    made(X)
    assert len(seen) == 1 and made[2].mine == "kept" and not made[2].training
    assert not made[2].weight.requires_grad


def test_copies_of_accelerated_models():
    made = model()
    accelerate(made)
    wanted = made(X)
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(again(X), wanted) and restore(again) == NAMES
        assert isinstance(made[2], ConvTranspose3d)


def normalized(norm):
    """Layers whose weight is computed anew at each access or call."""
    results = []
    for kind in (ConvTranspose3d, Own):
        torch.manual_seed(5)
        made = module(plain(dtype="float64"), kind=kind)
        torch.manual_seed(6)
        results.append(norm(made))
    return results


NORMS = {
    "weight_norm by a hook": nn.utils.weight_norm,
    "spectral_norm by a hook": nn.utils.spectral_norm,
    "spectral_norm by a parametrization": parametrizations.spectral_norm,
}
if hasattr(parametrizations, "weight_norm"):
    NORMS["weight_norm by a parametrization"] = parametrizations.weight_norm


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NORMS)
def test_normalized_weights(name):
    """The same values, and the same state of power iterations, after each step as PyTorch's."""
    ours, own = normalized(NORMS[name])
    if "hook" in name:
        assert accelerate(own) == ([""], {}) and restore(own) == [""]
    x = integers(1, plain(dtype="float64"))[0]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (ours, own)]
    for step in range(6):
        training = step % 3 != 1
        outputs = []
        for made, optimizer in zip((ours, own), optimizers):
            with torch.set_grad_enabled(training):
                outputs.append(made.train(training)(x))
            if training:
                optimizer.zero_grad()
                outputs[-1].square().mean().backward()
                optimizer.step()
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
        states = [m.state_dict() for m in (ours, own)]
        assert list(states[0]) == list(states[1])
        for key in states[0]:
            torch.testing.assert_close(states[0][key], states[1][key], rtol=1e-10, atol=1e-10)
    with torch.no_grad(), parametrize.cached():
        torch.testing.assert_close(ours.eval()(x), own.eval()(x), rtol=1e-10, atol=1e-10)


def test_accelerated_models_pack_in_eval():
    made = model().eval()
    accelerate(made)
    with torch.no_grad():
        first = made(X)
        assert is_packed(made[1].first) and is_packed(made[2])
        assert same_bytes(made(X), first)
    restore(made)
    with torch.no_grad():
        torch.testing.assert_close(made(X), first, rtol=1e-12, atol=1e-12)
