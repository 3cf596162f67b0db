"""Packed weights are never used after the weights have changed, whatever changed them.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import pytest
import torch
from packed_cases import LAYER, X, fresh, packed, unpacked
from torch import nn
from torch.nn.utils import prune
from torch_cases import module, same_bytes

import convt3d
from convt3d.torch import is_packed, repack


def step(kind):
    def change(made):
        optimizer = kind(made.parameters(), lr=0.1)
        made(X).square().mean().backward()
        optimizer.step()

    return change


def one_more(tensor):
    """A copy that differs in one value, which no sample of values would show."""
    tensor = tensor.detach().clone()
    tensor[0, 0, 0, 0, 1] += 1
    return tensor


def new_data(times):
    def change(made):
        for _ in range(times):
            made.weight.data = one_more(made.weight)

    return change


def new_parameter(times):
    def change(made):
        for _ in range(times):
            made.weight = nn.Parameter(one_more(made.weight))

    return change


def by_set(made):
    with torch.no_grad():
        made.weight.set_(one_more(made.weight))


def by_inference(made):
    with torch.inference_mode():
        made.weight[0, 0, 0, 0, 1] += 1


def by_alias(made):
    made.weight.detach()[0, 0, 0, 0, 1] += 1


def by_copy(made):
    with torch.no_grad():
        made.weight.copy_(one_more(made.weight))


def by_part(made):
    with torch.no_grad():
        made.weight[0, 0, 0, 0, 1] += 1


def by_state(made):
    state = {**made.state_dict(), "weight": one_more(made.weight)}
    made.load_state_dict(state)


def by_assigned_state(made):
    for _ in range(2):
        state = {**made.state_dict(), "weight": one_more(made.weight)}
        made.load_state_dict(state, assign=True)


def by_vector(made):
    vector = nn.utils.parameters_to_vector(made.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 2, made.parameters())


def by_swap(made):
    torch.utils.swap_tensors(made.weight, nn.Parameter(one_more(made.weight)))


def by_pruning(made):
    prune.l1_unstructured(made, "weight", amount=0.3)


def by_average(made):
    averaged = torch.optim.swa_utils.AveragedModel(made, avg_fn=lambda a, p, n: (a + 3 * p) / 4)
    for _ in range(2):
        averaged.update_parameters(fresh(1))
    made.load_state_dict(averaged.module.state_dict())


def by_attributes(made):
    made.stride, made.padding_mode, made.padding = (1, 2, 1), "reflect", (1, 0, 1)


CHANGES = {
    "SGD": step(torch.optim.SGD),
    "Adam": step(torch.optim.Adam),
    "load_state_dict": by_state,
    "copy_": by_copy,
    "a part of it": by_part,
    "detach()": by_alias,
    "inference_mode": by_inference,
    ".data.mul_": lambda made: made.weight.data.mul_(2),
    ".data.lerp_": lambda made: made.weight.data.lerp_(torch.randn_like(made.weight), 0.1),
    ".data[...]": lambda made: made.weight.data.__setitem__(..., torch.randn_like(made.weight)),
    ".data =": new_data(1),
    ".data = twice": new_data(2),
    "a new Parameter": new_parameter(1),
    "two new Parameters": new_parameter(2),
    "set_()": by_set,
    "bias": lambda made: made.bias.data.add_(1),
    "without bias": lambda made: made.register_parameter("bias", None),
    "reset_parameters": lambda made: made.reset_parameters(),
    "channels last": lambda made: made.to(memory_format=torch.channels_last_3d),
    "share_memory_": lambda made: made.share_memory(),
    "vector_to_parameters": by_vector,
    "pruning": by_pruning,
    "averaging": by_average,
    "attributes": by_attributes,
    "repack": repack,
    "threads": lambda made: torch.set_num_threads(1 + torch.get_num_threads() % 2),
    "threads of convt3d": lambda made: convt3d.set_num_threads(3),
}
if hasattr(torch.utils, "swap_tensors"):
    CHANGES["swap_tensors"] = by_swap
    CHANGES["load_state_dict(assign=True)"] = by_assigned_state


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_seen_at_once(name):
    made = fresh()
    before = packed(made)
    for _ in range(3):
        CHANGES[name](made)
        first = packed(made)
        assert same_bytes(first, unpacked(made))
        assert same_bytes(packed(made), first)
        if name == "pruning":
            break  # pruned weights don't change when pruned again
    same = name in ("channels last", "share_memory_", "repack") or "threads" in name
    assert same_bytes(first, before) == same


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("by", ["parameters", "data"])
def test_many_replacements_between_calls(by, times):
    """PyTorch gives the memory of one that died to the next, with the same version."""
    made = fresh()
    for _ in range(40):
        packed(made)
        base = made.weight.detach().clone()
        for _ in range(times):
            weight = one_more(base)
            if by == "data":
                made.weight.data = weight
            else:
                made.weight = nn.Parameter(weight)
            del weight
        del base
        assert same_bytes(packed(made), unpacked(made))


@pytest.mark.parametrize("start", ["centre alone", "one of many", "zeros"])
def test_writes_by_data_to_sparse_weights(start):
    """What looks at some values must not look at those that stay zero."""
    made = module(LAYER).eval()
    with torch.no_grad():
        values = made.weight[:, :, 1, 1, 1].clone()
        made.weight.zero_()
        if start == "centre alone":
            made.weight[:, :, 1, 1, 1] = values
        elif start == "one of many":
            made.weight[5, 11, 2, 1, 0] = 1
        packed(made)
        if start != "zeros":
            made.weight.data.mul_(2)
        else:
            made.weight.data.copy_(torch.randn_like(made.weight))
        assert same_bytes(packed(made), unpacked(made))


def test_a_part_written_by_data_needs_repack():
    made = fresh()
    model = nn.Sequential(nn.ReLU(), nn.Sequential(made))
    made.weight.data[0, 0, 0, 0, 1] += 1
    repack(model)
    assert not is_packed(made)
    assert same_bytes(packed(made), unpacked(made)) and is_packed(made)


def test_other_dtypes_and_back():
    made = fresh()
    first = packed(made)
    made.double()
    assert same_bytes(packed(made, X.double()), unpacked(made, X.double()))
    made.bfloat16()
    half = X[:, :8].bfloat16()
    own = nn.functional.conv_transpose3d
    try:
        wanted = own(half, made.weight, made.bias, made.stride)
    except RuntimeError:
        wanted = None  # this PyTorch hasn't the layer in that dtype
    if wanted is not None:
        assert torch.equal(packed(made, half), wanted)
    made.float()
    assert same_bytes(packed(made), unpacked(made)) and not torch.equal(packed(made), first)
