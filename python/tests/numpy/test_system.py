"""Forks, threads and caches: the same bytes, and nothing that grows.
SPDX-License-Identifier: MIT
"""

import gc
import multiprocessing
import os
import threading
import time
import weakref

import numpy as np
import problems
import pytest
from layers import all_bytes, arguments, plain, run_all, run_child

import convt3d
from convt3d import _layer

LAYER = plain(batch=2, in_channels=5, out_channels=7, input_size=(6, 7, 19))
LAYER.update(kernel_size=(3, 4, 3), stride=(2, 2, 2), padding=(1,) * 6)


def operands(seed=7):
    """Numbers whose sums are rounded, so that another order of additions would show."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in problems.shapes(LAYER)]


def compute(seed=7):
    return all_bytes(run_all(LAYER, operands(seed)))


def status(field):
    """A number of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))


# ---- Threads -------------------------------------------------------------------------


def test_any_number_of_threads_gives_the_same_bytes():
    wanted = compute()
    for threads in (1, 2, 3, 8, 1, None, 16):
        convt3d.set_num_threads(threads)
        assert compute() == wanted


def test_the_number_of_threads():
    for threads in (1, 2, np.int8(3), 1024):
        convt3d.set_num_threads(threads)
        assert convt3d.get_num_threads() == threads
        assert type(convt3d.get_num_threads()) is int
    convt3d.set_num_threads(None)
    script = "import convt3d; print(convt3d.get_num_threads())"
    for threads in (1, 5):
        child = run_child(script, CONVT3D_NUM_THREADS=str(threads))
        assert (child.stdout, child.stderr) == (f"{threads}\n", "")
    child = run_child(script, CONVT3D_NUM_THREADS="two")
    assert "CONVT3D_NUM_THREADS" in child.stderr and "ArgumentError" in child.stderr


def test_calls_use_the_threads_that_were_asked_for():
    script = """
import os, numpy as np, convt3d
before = len(os.listdir("/proc/self/task"))
for threads in (1, 2, 5, 3):
    convt3d.set_num_threads(threads)
    convt3d.conv_transpose3d(np.ones((16, 4, 9, 9, 9)), np.ones((4, 4, 3, 3, 3)))
    print(len(os.listdir("/proc/self/task")) - before)
"""
    child = run_child(script)
    assert (child.stdout.split(), child.stderr) == (["0", "1", "4", "4"], "")  # they are kept


def test_calls_from_16_threads_at_once():
    wanted = [compute(seed) for seed in range(16)]
    found, start = [None] * 16, threading.Barrier(16)

    def work(seed):
        start.wait()
        for _ in range(5):
            found[seed] = compute(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == wanted


def test_other_threads_run_during_a_call():
    """The interpreter's lock is released."""
    x, w = np.ones((1, 16, 80, 32, 32)), np.ones((16, 16, 7, 7, 7))
    counted, stop = [], threading.Event()

    def count():
        while not stop.wait(0.001):
            counted.append(time.perf_counter())

    thread = threading.Thread(target=count)
    thread.start()
    convt3d.set_num_threads(1)
    start = time.perf_counter()
    convt3d.conv_transpose3d(x, w)
    end = time.perf_counter()
    stop.set()
    thread.join()
    assert end - start > 0.1
    # Ten times a second it is offered at any rate, where pending signals are looked for.
    assert sum(start < moment < end for moment in counted) > 10 + 20 * (end - start)


# ---- Forks ---------------------------------------------------------------------------


def in_a_fork(function):
    """What function() returns in a child of this process, as text."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, repr(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return text


def test_fork_after_use():
    convt3d.set_num_threads(3)
    wanted = compute()
    for _ in range(3):
        assert in_a_fork(lambda: compute() == wanted) == "True"
    assert in_a_fork(lambda: in_a_fork(lambda: compute() == wanted)) == "'True'"
    assert compute() == wanted


def test_two_threads_fork():
    convt3d.set_num_threads(2)
    wanted = compute()
    found = []

    def fork():
        # In the child, the thread that forked is the main one.
        found.append(in_a_fork(lambda: compute() == wanted))

    for _ in range(3):
        threads = [threading.Thread(target=fork) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == ["True"] * 6


def test_multiprocessing():
    wanted = [compute(seed) for seed in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(compute, range(4)) == wanted
    assert compute(0) == wanted[0]


# ---- What is kept --------------------------------------------------------------------


def test_a_shape_is_planned_once():
    arrays = operands()
    _layer.make_plan.cache_clear()
    run_all(LAYER, arrays)
    assert _layer.make_plan.cache_info().misses == 3  # one for each direction
    for _ in range(5):
        run_all(LAYER, arrays)
        run_all(LAYER, arrays, **arguments(LAYER, pairs=True))
        run_all(LAYER, [np.asfortranarray(a) for a in arrays])
    info = _layer.make_plan.cache_info()
    assert (info.misses, info.hits) == (3, 45)
    convt3d.set_num_threads(2)
    run_all(LAYER, arrays)
    assert _layer.make_plan.cache_info().misses == 6


def test_the_cache_of_plans_is_bounded():
    one, many = (1, 1, 1, 1, 1), _layer.CACHED_PLANS + 100

    def shapes():
        for width in range(1, many):
            x = np.broadcast_to(np.float32(width), (1, 1, 1, 1, width))
            assert np.all(convt3d.conv_transpose3d(x, np.ones(one, np.float32)) == width)
        return status("VmRSS")

    plan = weakref.ref(_layer.make_plan(_layer.Layer(), 0, 1, (2, *one[1:]), one, 0))
    assert plan() is not None
    before = shapes()
    assert plan() is None
    assert _layer.make_plan.cache_info().currsize == _layer.CACHED_PLANS
    after = [shapes() for _ in range(8)][-1]
    assert after - before < 2000
    assert _layer.make_plan.cache_info().currsize == _layer.CACHED_PLANS


def test_failures_are_not_kept():
    before = _layer.make_plan.cache_info().currsize
    one = np.ones((1, 1, 1, 1, 1), np.float32)
    for stride in range(-300, 1):
        with pytest.raises(convt3d.ArgumentError):
            convt3d.conv_transpose3d(one, one, stride=stride)
    assert _layer.make_plan.cache_info().currsize == before


@pytest.mark.parametrize("size", [5, 130], ids=["small", "large"])
def test_memory_does_not_grow(size):
    """Neither with outputs that the C library's allocator gives, nor with huge pages."""
    x, one = np.ones((1, 1, 1, size, size), np.float32), np.ones((1, 1, 1, 1, 1), np.float32)
    stride = (1, 1, 64)

    def calls(number):
        for _ in range(number):
            y = convt3d.conv_transpose3d(x, one, stride=stride)
            convt3d.conv_transpose3d_backward(y, x, one, stride=stride)
        gc.collect()
        return status("VmRSS"), status("VmSize"), status("Threads")

    number = 3000 if size == 5 else 60
    y = convt3d.conv_transpose3d(x, one, stride=stride)
    assert (y.nbytes >= 4 << 20) == (size == 130)
    before = calls(number // 10)
    after = calls(number)
    assert after[0] - before[0] < 4000 and after[1] - before[1] < 20000
    assert after[2] == before[2]
