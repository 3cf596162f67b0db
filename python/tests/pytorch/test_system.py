"""Threads and forks, some in a Python of their own, which must say nothing else.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import pytest
import torch
from children import good
from torch_cases import (
    MODES,
    integers,
    module,
    normal,
    run,
    same_bytes,
    symmetric,
    typical,
)

import convt3d


def test_other_threads_run_meanwhile():
    said = good(
        """
times, done = [], threading.Event()
def watch():
    while not done.is_set():
        times.append(time.monotonic())
        time.sleep(0.01)
made = ConvTranspose3d(16, 16, 7, dtype=torch.float64)
x = ones(1, 16, 10, 32, 32).clone().requires_grad_()
watcher = threading.Thread(target=watch)
watcher.start()
prepare_backward()
start = time.monotonic()
y = made(x)
middle = time.monotonic()
y.backward(ones(*y.shape))
end = time.monotonic()
done.set()
watcher.join()
for a, b in ((start, middle), (middle, end)):
    print(sum(a < t < b for t in times) > 5)
"""
    )
    assert said == ["True"] * 2


def test_calls_of_several_threads_at_once():
    said = good(
        """
made = ConvTranspose3d(16, 16, 5, dtype=torch.float64)
x = torch.randn(1, 16, 8, 32, 32, dtype=torch.float64)
def result():
    y = made(x)
    return y, *torch.autograd.grad(y, made.parameters(), ones(*y.shape))
wanted, results = result(), []
workers = [threading.Thread(target=lambda: results.append(result())) for _ in range(4)]
[w.start() for w in workers]
[w.join() for w in workers]
print(len(results) == 4)
print(all(torch.equal(a, b) for given in results for a, b in zip(given, wanted)))
"""
    )
    assert said == ["True"] * 2


# ---- Threads -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_same_bytes_for_any_number_of_threads(seed):
    for layer in (symmetric(seed), typical(MODES[seed % 4], input_size=(6, 8, 20), batch=3)):
        x, w, b, dy = normal(seed, layer)
        made, results = module(layer, w, b), []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(made, x, dy))
            with torch.no_grad():
                assert same_bytes(made.eval()(x), results[0][0])
        for again in results[1:]:
            assert all(same_bytes(a, b) for a, b in zip(again, results[0])), layer


def used(monkeypatch):
    """The numbers of threads that plans are made for from now on."""
    from convt3d.torch import _tensors

    seen, make = [], _tensors._layer.make_plan
    monkeypatch.setattr(_tensors._layer, "make_plan", lambda *a: seen.append(a[-1]) or make(*a))
    return seen


def test_numbers_of_threads_are_followed(monkeypatch):
    seen = used(monkeypatch)
    x, w, b, dy = integers(1, typical())
    made = module(typical(), w, b)
    for number in (1, 2, 3, 1):
        seen.clear()
        torch.set_num_threads(number)
        run(made, x, dy)
        assert seen == [number] * 3
    convt3d.set_num_threads(2)  # comes before PyTorch's
    seen.clear()
    run(made, x, dy)
    with torch.no_grad():
        made.eval()(x)
    assert set(seen) == {2} and torch.get_num_threads() == 1
    convt3d.set_num_threads(None)
    seen.clear()
    made(x)
    assert seen == [1]


def test_more_threads_than_the_library_takes(monkeypatch):
    made = module(typical())
    x = torch.ones(2, 4, 2, 3, 4)
    wanted = made(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2000)
    assert torch.equal(made(x), wanted)


def test_threads_are_really_used():
    said = good(
        """
def processor_time(number):
    torch.set_num_threads(number)
    start, used = time.monotonic(), time.process_time()
    medium_call()
    return time.process_time() - used, time.monotonic() - start

one, elapsed = processor_time(1)
print(one < 1.2 * elapsed + 0.1)
before = len(os.listdir("/proc/self/task"))
processor_time(3)
print(len(os.listdir("/proc/self/task")) >= min(before + 1, 3))
"""
    )
    assert said == ["True"] * 2


# ---- Forks -------------------------------------------------------------------------


def test_a_fork_after_use():
    said = good(
        """
made = ConvTranspose3d(16, 16, 7, dtype=torch.float64)
x = ones(1, 16, 3, 32, 32)
def results():
    y = made(x)
    (gradient,) = torch.autograd.grad(y, made.weight, ones(*y.shape))
    with torch.no_grad():
        return y.detach(), gradient, made(x)
wanted = results()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        same = all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(results(), wanted))
        os._exit(7 if same else 1)
    children.append(child)
print(all(torch.equal(a, b) for a, b in zip(results(), wanted)))
for child in children:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7)
"""
    )
    assert said == ["True"] * 3


class Doubled(torch.utils.data.Dataset):
    """Volumes that the workers of a DataLoader make larger."""

    def __init__(self, made):
        self.made = made

    def __len__(self):
        return 6

    def __getitem__(self, i):
        with torch.no_grad():
            return self.made(torch.full((4, 3, 4, 5), float(i)))


def test_workers_of_data_loaders():
    made = module(typical(), *integers(2, typical())[1:3]).eval()
    data = Doubled(made)
    wanted = [data[i] for i in range(6)]
    loader = torch.utils.data.DataLoader(
        data, batch_size=2, num_workers=2, multiprocessing_context="fork"
    )
    assert torch.equal(torch.cat(list(loader)), torch.stack(wanted))
