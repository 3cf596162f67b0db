"""Models run and compared: outputs, training steps, layers by themselves, error bounds.

A whole model's error has no useful bound, so PyTorch's own error is the measure: both are
compared with the same model in float64.  A layer by itself has one: with K products per
result, S = sum |x||w| + |b| and unit roundoff u, any order of summation stays within
g(K+2)*S, where g(n) = n*u/(1 - n*u).
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import copy
import functools
from typing import Dict, List, NamedTuple, Tuple

import torch
from torch import Tensor
from zoo import ZOO, tensors, transposed

U = 2.0**-24
RATE = 0.01

Named = Dict[str, Tensor]


class Step(NamedTuple):
    """A training step: the outputs before it, the gradients, the parameters after it."""

    outputs: Named
    gradients: Named
    parameters: Named


def copied(values: Named) -> Named:
    return {name: value.detach().clone() for name, value in values.items()}


def numbered(output: object) -> Named:
    return {f"output {i}": tensor.detach() for i, tensor in enumerate(tensors(output))}


def evaluate(model: torch.nn.Module, input: Tensor) -> Named:
    model.eval()
    with torch.no_grad():
        return numbered(model(input))


def loss_of(model: torch.nn.Module, input: Tensor) -> Tuple[Tensor, Named]:
    """A loss in training mode, and the outputs.

    Dropout is off: what it draws differs between float32 and float64.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.eval()
    output = model(input)
    random = torch.Generator().manual_seed(7)
    parts = [
        (part - torch.randn(part.shape, generator=random).to(part.dtype)).square().mean()
        for part in tensors(output)
    ]
    return torch.stack(parts).sum(), numbered(output)


def step(model: torch.nn.Module, input: Tensor) -> Step:
    """One step of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    optimizer.zero_grad()
    loss, outputs = loss_of(model, input)
    loss.backward()
    named = dict(model.named_parameters())
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    optimizer.step()
    return Step(outputs, copied(gradients), copied(named))


class Case:
    """A small model of the zoo, and what PyTorch makes of it in float32 and in float64."""

    def __init__(self, name: str):
        self.name, self.entry = name, ZOO[name]
        # Never run: MONAI's DynUNet can't be copied after a training step.
        self._model, self.input = self.entry.build()

    def fresh(self) -> torch.nn.Module:
        return copy.deepcopy(self._model)

    @functools.cached_property
    def torch_outputs(self) -> Named:
        return evaluate(self.fresh(), self.input)

    @functools.cached_property
    def exact_outputs(self) -> Named:
        return evaluate(self.fresh().double(), self.input.double())

    @functools.cached_property
    def torch_step(self) -> Step:
        return step(self.fresh(), self.input)

    @functools.cached_property
    def exact_step(self) -> Step:
        return step(self.fresh().double(), self.input.double())


def assert_as_exact(ours: Named, theirs: Named, exact: Named) -> None:
    """Our errors are at most twice PyTorch's, plus one rounding of the whole.

    The whole is all tensors together: some gradients are zero but for rounding (those of a
    bias before a normalization), and of a single number the errors may be any by chance.
    """
    assert ours.keys() == theirs.keys() == exact.keys()
    rounding = U * torch.cat([value.flatten() for value in exact.values()]).norm()
    for name, value in exact.items():
        error, measure = ((side[name] - value).norm() for side in (ours, theirs))
        assert error <= 2 * measure + rounding, f"{name}: {error:.3g}, PyTorch's {measure:.3g}"


def assert_same_bits(first: Named, second: Named) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class Seen(NamedTuple):
    """What a layer saw in a training step."""

    input: Tensor
    grad_output: Tensor


def watch(model: torch.nn.Module, input: Tensor) -> Dict[str, Seen]:
    """What each transposed convolution sees in a training step."""
    inputs: Dict[str, Tensor] = {}
    grads: Dict[str, Tensor] = {}

    def hook(name: str, module: torch.nn.Module, given: Tuple[Tensor], output: Tensor) -> None:
        assert name not in inputs, "runs twice"
        inputs[name] = given[0].detach().clone()
        output.register_hook(lambda grad: grads.__setitem__(name, grad.clone()))

    for name, module in transposed(model).items():
        module.register_forward_hook(functools.partial(hook, name))
    loss_of(model, input)[0].backward()
    return {name: Seen(inputs[name], grads[name]) for name in grads}


def run_layer(layer: torch.nn.Module, seen: Seen) -> List[Tensor]:
    """The output, and the gradients of input, weight and bias, by the layer itself."""
    input = seen.input.clone().requires_grad_()
    output = layer(input)
    leaves = [input, *layer.parameters()]
    return [output.detach(), *torch.autograd.grad(output, leaves, seen.grad_output)]


def bounds(layer: torch.nn.Module, seen: Seen) -> Tuple[List[Tensor], List[Tensor]]:
    """run_layer() in float64, and the largest errors that float32 may have."""

    def run(input: Tensor, grad_output: Tensor, *parameters: Tensor) -> List[Tensor]:
        copied = copy.deepcopy(layer).double()
        for parameter, values in zip(copied.parameters(), parameters):
            parameter.data = values
        return run_layer(copied, Seen(input, grad_output))

    values = [t.detach().double() for t in (*seen, *layer.parameters())]
    exact = run(*values)
    sums = run(*(v.abs() for v in values))
    # The same with ones counts products; the bias, a vector, isn't one.
    counts = run(*(torch.zeros_like(v) if v.dim() == 1 else torch.ones_like(v) for v in values))
    terms = [(count + 2) * U for count in counts]
    return exact, [n / (1 - n) * s for n, s in zip(terms, sums)]
