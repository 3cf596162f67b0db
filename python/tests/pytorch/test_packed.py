"""Packed weights: where they are used, the same bytes as without, and how long they live.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import copy
import gc
import os
import threading
import weakref

import pytest
import torch
from packed_cases import LAYER, X, fresh, packed, unpacked
from torch import nn
from torch_cases import (
    HAS_FUNC,
    HAS_OPERATORS,
    MODES,
    Tagged,
    expected,
    integers,
    module,
    normal,
    same_bytes,
    symmetric,
    typical,
)

from convt3d.torch import ConvTranspose3d, _packed, accelerate, is_packed


def test_packed_results_are_the_same_bytes():
    for seed in range(60):
        layer = symmetric(seed)
        x, w, b, _ = normal(seed, layer)
        made = module(layer, w, b).eval()
        for t in (x, x[0], x.to(memory_format=torch.channels_last_3d), x[:0]):
            first = packed(made, t)
            assert is_packed(made) and same_bytes(first, unpacked(made, t)), layer
            assert first.stride() == unpacked(made, t).stride()
            assert same_bytes(packed(made, t), first)
    assert expected(layer, integers(seed, layer))[0].abs().sum() > 0


@pytest.mark.parametrize("mode", MODES)
def test_output_sizes_share_packed_weights(mode):
    layer = typical(mode)
    made = module(layer).eval()
    x = normal(2, layer)[0]
    packed(made, x)
    kept = _packed._kept[made]
    with torch.no_grad():
        sizes = [(3, 5, 10), (4, 6, 12)]
        results = [made(x, size) for size in sizes]
        made(torch.cat([x, x], 4))
    assert _packed._kept[made] is kept
    assert all(same_bytes(r, made(x, s).detach()) for r, s in zip(results, sizes))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_where_weights_are_not_packed():
    made = module(LAYER)
    packed(made)  # training
    made.eval()
    made(X)  # gradients
    small, large = torch.ones(1, 8, 16, 16, 16), torch.ones(1, 8, 16, 16, 17)
    packed(made, large)
    if HAS_FUNC:
        with torch.no_grad():
            torch.func.vmap(made)(X[None])
    if HAS_OPERATORS:
        with torch.no_grad():
            torch.compile(made, backend="aot_eager")(X)
    with torch.no_grad():
        torch.jit.trace(made, X, check_trace=False)
    packed(made, X.as_subclass(Tagged))
    assert not is_packed(made)
    packed(made, small)
    assert is_packed(made)


def test_packed_weights_end_with_their_module():
    made = fresh()
    kept = weakref.ref(_packed._kept[made].weights)
    assert kept() is not None
    other = copy.deepcopy(made)
    assert not is_packed(other) and same_bytes(packed(other), packed(made))
    model = nn.Sequential(made)
    del made, model
    gc.collect()
    assert kept() is None and is_packed(other)
    kept = weakref.ref(_packed._kept[other].weights)
    other.weight.data.mul_(2)
    packed(other)
    assert kept() is None


def test_copies_go_their_own_ways():
    made = fresh()
    other = copy.deepcopy(made)
    packed(other)
    other.weight.data.mul_(3)
    made.weight.data.mul_(2)
    for m in (made, other):
        assert same_bytes(packed(m), unpacked(m))


def test_two_layers_of_one_weight():
    first, second = fresh(), module({**LAYER, "stride": (1, 2, 3)}).eval()
    second.weight = first.weight
    for _ in range(2):
        for m in (first, second):
            assert same_bytes(packed(m), unpacked(m)) and is_packed(m)
        with torch.no_grad():
            first.weight.mul_(2)


def test_threads_that_call_one_module():
    """In rounds, between which the weights change."""
    made = fresh()
    rounds, threads = 15, 4
    barrier = threading.Barrier(threads + 1, timeout=60)
    results = [[] for _ in range(threads)]

    def work(mine):
        for _ in range(rounds):
            barrier.wait()
            mine.append([packed(made, X) for _ in range(3)])
            barrier.wait()

    workers = [threading.Thread(target=work, args=(mine,)) for mine in results]
    for worker in workers:
        worker.start()
    wanted = []
    for _ in range(rounds):
        with torch.no_grad():
            made.weight.mul_(-1)
        wanted.append(unpacked(made))
        barrier.wait()
        barrier.wait()
    for worker in workers:
        worker.join(60)
    for mine in results:
        assert len(mine) == rounds
        for several, right in zip(mine, wanted):
            assert all(same_bytes(one, right) for one in several)


def test_after_a_fork():
    """A child has the packed weights as well, and changes of its own."""
    made = fresh()
    wanted = [packed(made), unpacked(made) * 1]
    child = os.fork()
    if child == 0:
        try:
            good = same_bytes(packed(made), wanted[0]) and is_packed(made)
            made.weight.data.mul_(2)
            good = good and same_bytes(packed(made), unpacked(made))
            good = good and not same_bytes(packed(made), wanted[0])
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same_bytes(packed(made), wanted[0]) and same_bytes(unpacked(made), wanted[1])


def test_drop_ins_and_accelerated_layers_pack_alike():
    own = nn.ConvTranspose3d(8, 16, 3, stride=2).eval()
    accelerate(own)
    ours = ConvTranspose3d(8, 16, 3, stride=2).eval()
    ours.load_state_dict(own.state_dict())
    assert same_bytes(packed(ours), packed(own))
    assert is_packed(ours) and is_packed(own)
