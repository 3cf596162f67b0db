"""Real models, accelerated: the same results, training, copies, files and hooks.

Many small operations on two threads: OMP_WAIT_POLICY=passive in the environment makes them
several times as fast where the machine is busy.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import copy
import io
from collections import Counter

import pytest
import torch

monai = pytest.importorskip("monai")
pytest.importorskip("dynamic_network_architectures")

import runs  # noqa: E402
from monai.data import MetaTensor  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402
from zoo import ZOO, transposed  # noqa: E402

from convt3d.torch import accelerate, is_packed, restore  # noqa: E402

SOME = ("UNet-residual", "DynUNet-thick-slices")  # fast, and unlike each other
HOLDS_LAMBDAS = "ResidualEncoderUNet"  # can't be pickled
# Its outputs are changed in place, which PyTorch forbids after full backward hooks.
ADDS_IN_PLACE = "SegResNetDS"


@pytest.fixture(scope="module", params=ZOO)
def case(request):
    """Module scope: all tests of a model run together and share PyTorch's results."""
    return runs.Case(request.param)


def accelerated(case):
    model = case.fresh()
    assert not accelerate(model).left
    return model


def test_every_layer_is_swapped(case):
    """All that the model has, in place, and only once."""
    model = case.fresh()
    layers = transposed(model)
    assert len(layers) == case.entry.layers
    report = accelerate(model)
    assert report.swapped == list(layers) and not report.left
    assert accelerate(model).swapped == []
    assert {id(m) for m in transposed(model).values()} == {id(m) for m in layers.values()}


def test_layers_of_16_bits_are_swapped(case):
    for dtype in (torch.bfloat16, torch.float16):
        model = case.fresh().to(dtype)
        report = accelerate(model)
        assert report.swapped == list(transposed(model)) and not report.left


def test_each_layer_is_within_its_bound(case):
    """Output and gradients by what the layer saw in training; PyTorch is held to it as well."""
    theirs, ours = case.fresh(), accelerated(case)
    seen = runs.watch(theirs, case.input)
    assert len(seen) == case.entry.layers
    for name, what in seen.items():
        exact, bounds = runs.bounds(transposed(case.fresh())[name], what)
        fast, slow = (transposed(model)[name] for model in (ours, theirs))
        slow._forward_hooks.clear()
        for who, layer in (("PyTorch", slow), ("convt3d", fast)):
            results = runs.run_layer(layer, what)
            labels = ("output", "gradient of input", "of weight", "of bias")
            for label, result, value, bound in zip(labels, results, exact, bounds):
                within = (result - value).abs() <= bound
                assert within.all(), f"{name}: {label} by {who}"
        output = runs.evaluate(fast, what.input)["output 0"]
        assert ((output - exact[0]).abs() <= bounds[0]).all(), f"{name}: in eval mode"


def test_outputs_in_eval_mode(case):
    """As exact as by PyTorch, and the same bits again."""
    model = accelerated(case)
    first = runs.evaluate(model, case.input)
    assert any(is_packed(layer) for layer in transposed(model).values())
    runs.assert_as_exact(first, case.torch_outputs, case.exact_outputs)
    runs.assert_same_bits(first, runs.evaluate(model, case.input))


def test_training_step(case):
    """Outputs, all gradients, and all parameters after a step of SGD."""
    ours = runs.step(accelerated(case), case.input)
    for mine, theirs, exact in zip(ours, case.torch_step, case.exact_step):
        runs.assert_as_exact(mine, theirs, exact)


def test_changed_weights(case):
    """Weights that were packed before are not used after a change."""
    model = accelerated(case)
    first = runs.evaluate(model, case.input)
    before = runs.copied(model.state_dict())
    runs.step(model, case.input)
    after = runs.copied(model.state_dict())
    theirs, exact = case.fresh(), case.fresh()
    theirs.load_state_dict(after)
    exact.load_state_dict(after)
    runs.assert_as_exact(
        runs.evaluate(model, case.input),
        runs.evaluate(theirs, case.input),
        runs.evaluate(exact.double(), case.input.double()),
    )
    model.load_state_dict(before)
    runs.assert_same_bits(runs.evaluate(model, case.input), first)


def test_restore(case):
    """PyTorch's classes and bits, in eval mode and in training."""
    model = accelerated(case)
    runs.evaluate(model, case.input)
    assert restore(model) == list(transposed(model))
    assert {type(m) for m in transposed(model).values()} == {torch.nn.ConvTranspose3d}
    runs.assert_same_bits(runs.evaluate(model, case.input), case.torch_outputs)
    for mine, theirs in zip(runs.step(model, case.input), case.torch_step):
        runs.assert_same_bits(mine, theirs)


def test_state_dict_and_text(case):
    """Keys, values and repr stay, before, during and after."""
    model = case.fresh()
    before, text = runs.copied(model.state_dict()), repr(model)
    accelerate(model)
    runs.assert_same_bits(model.state_dict(), before)
    assert repr(model) == text
    runs.evaluate(model, case.input)
    runs.assert_same_bits(model.state_dict(), before)
    case.fresh().load_state_dict(model.state_dict())
    restore(model)
    runs.assert_same_bits(model.state_dict(), before)
    assert repr(model) == text


def test_copies_and_files(case):
    """Deep copies and saved models are accelerated too, and don't depend on the first."""
    model = accelerated(case)
    first = runs.evaluate(model, case.input)
    copies = [copy.deepcopy(model)]
    if case.name != HOLDS_LAMBDAS:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        copies.append(torch.load(file, weights_only=False))
    layers = restore(model)
    for twin in copies:
        assert accelerate(twin).swapped == [], "was swapped when it was copied"
        runs.assert_same_bits(runs.evaluate(twin, case.input), first)
        assert restore(twin) == layers


def test_hooks(case):
    """Those from before accelerate() and new ones are called; results are the same."""
    model, calls = case.fresh(), Counter()
    backward = 0 if case.name == ADDS_IN_PLACE else 1

    def add(module, name, when):
        def seen(what):
            return lambda *_: calls.update([(name, when, what)])

        module.register_forward_pre_hook(seen("before"))
        module.register_forward_hook(seen("forward"))
        if backward:
            module.register_full_backward_hook(seen("backward"))

    for when in ("old", "new"):
        for name, module in transposed(model).items():
            add(module, name, when)
        accelerate(model)
    runs.evaluate(model, case.input)
    ours = runs.step(model, case.input)
    runs.assert_as_exact(ours.gradients, case.torch_step.gradients, case.exact_step.gradients)
    assert calls == Counter(
        {
            (name, when, what): times
            for name in transposed(model)
            for when in ("old", "new")
            for what, times in (("before", 2), ("forward", 2), ("backward", backward))
        }
    )


@pytest.mark.parametrize("name", SOME)
def test_autocast(name):
    """As exact as PyTorch in bfloat16."""
    case = runs.Case(name)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = runs.step(case.fresh(), case.input)
        ours = runs.step(accelerated(case), case.input)
    for mine, their, exact in zip(ours, theirs, case.exact_step):
        runs.assert_as_exact(mine, their, exact)


def inference_mode(model, input):
    with torch.inference_mode():
        model(input)
        return model(input).clone()


def channels_last(model, input):
    as_last = {"memory_format": torch.channels_last_3d}
    return model.to(**as_last)(input.to(**as_last))


def traced(model, input):
    return torch.jit.trace(model, input, check_trace=False)(input)


def exported(model, input):
    return torch.export.export(model, (input,)).module()(input)


@pytest.mark.parametrize("way", [inference_mode, channels_last, traced, exported])
@pytest.mark.parametrize("name", SOME)
def test_other_ways_to_run(name, way):
    """As exact as PyTorch however the model is run."""
    case = runs.Case(name)
    with torch.no_grad():
        ours = way(accelerated(case).eval(), case.input)
    runs.assert_as_exact(runs.numbered(ours), case.torch_outputs, case.exact_outputs)


def test_sliding_window_over_an_image_with_an_affine():
    """As MONAI is used: its own tensor class, and several patches at a time."""
    case = runs.Case("MedNeXt")
    torch.manual_seed(3)
    volume, affine = torch.randn(1, 1, 40, 36, 45), torch.diag(torch.tensor([2.0, 2, 3, 1]))

    def infer(model, image):
        return sliding_window_inference(image, (32, 32, 32), 2, model.eval(), overlap=0.25)

    with torch.no_grad():
        exact = infer(case.fresh().double(), volume.double())
        theirs = infer(case.fresh(), volume)
        ours = infer(accelerated(case), MetaTensor(volume, affine=affine))
    assert isinstance(ours, MetaTensor) and torch.equal(ours.affine, affine.to(ours.affine))
    results = ours.as_tensor(), theirs, exact
    runs.assert_as_exact(*({"output": result} for result in results))
