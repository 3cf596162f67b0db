"""Signals in the middle of a call, each in a Python of its own, which must say nothing else.
SPDX-License-Identifier: MIT
"""

import signal

import pytest
from layers import run_child

# Calls that take ten seconds, or half of one: by generic kernels in float64, of ones.
PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import convt3d

def ones(*shape):
    return np.broadcast_to(1.0, shape)

def long_call(direction="forward"):
    x, w = ones(1, 64, 64, 32, 32), ones(64, 64, 9, 9, 9)
    if direction == "forward":
        return convt3d.conv_transpose3d(x, w)
    mask = direction == "backward_input", direction == "backward_weight", False
    dy = ones(1, 64, 72, 40, 40)
    return convt3d.conv_transpose3d_backward(dy, x, w, output_mask=mask)

def medium_call():
    "Of half a second; whether it is right."
    y = convt3d.conv_transpose3d(ones(1, 16, 40, 32, 32), ones(16, 16, 7, 7, 7))
    depth, height = np.convolve(ones(40), ones(7)), np.convolve(ones(32), ones(7))
    return np.array_equal(y[0, 5], 16 * np.einsum("d,h,w->dhw", depth, height, height))

def short_calls():
    "Whether three are right, and nothing is left that is raised late."
    two, three = np.full((1, 1, 2, 2, 2), 2.0), np.full((1, 1, 1, 1, 1), 3.0)
    return all(np.all(convt3d.conv_transpose3d(two, three) == 6) for _ in range(3))

sent = []
def send(*signals, after=0.3, again=0):
    def work():
        time.sleep(after)
        for number in signals:
            os.kill(os.getpid(), number)
            sent.append(time.monotonic())
            time.sleep(again)
    threading.Thread(target=work, daemon=True).start()

def is_soon():
    "Whether it is less than a second after the first signal, and not before it."
    return bool(sent) and time.monotonic() - sent[0] < 1

# A shell's background jobs are started with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
convt3d.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
"""


def good(script, *arguments):
    child = run_child(PRELUDE + script, *arguments, CONVT3D_ISA="generic")
    assert (child.stderr, child.returncode) == ("", 0)
    return child.stdout.split()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("direction", ["forward", "backward_input", "backward_weight"])
def test_an_interrupt_ends_a_call_within_a_second(direction, threads):
    said = good(
        """
send(signal.SIGINT)
try:
    long_call(sys.argv[2])
except KeyboardInterrupt:
    print(is_soon())
used = time.process_time()
time.sleep(0.3)
print(time.process_time() - used < 0.1) # no thread goes on
print(short_calls())
""",
        threads,
        direction,
    )
    assert said == ["True"] * 3


def test_an_interrupt_that_nobody_catches_ends_the_process():
    script = "send(signal.SIGINT); long_call(); print('went on')"
    child = run_child(PRELUDE + script, CONVT3D_ISA="generic")
    assert child.returncode == -signal.SIGINT and child.stdout == ""
    lines = child.stderr.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "KeyboardInterrupt"
    assert "ignored" not in child.stderr


def test_interrupts_again_and_again():
    said = good(
        """
for i in range(4):
    sent.clear()
    send(signal.SIGINT, after=0.15)
    try:
        long_call()
    except KeyboardInterrupt:
        print(is_soon(), short_calls())
"""
    )
    assert said == ["True"] * 8


@pytest.mark.parametrize("again", [0, 0.001, 0.1])
def test_two_interrupts_in_a_row(again):
    said = good(
        """
send(signal.SIGINT, signal.SIGINT, again=float(sys.argv[2]))
caught = 0
for attempt in range(2):
    try:
        if not caught:
            long_call()
        time.sleep(0.5)
    except KeyboardInterrupt:
        caught += 1
        print(is_soon())
print(1 <= caught <= 2, short_calls())
""",
        2,
        again,
    )
    assert said[:1] == ["True"] and set(said) == {"True"}


def test_two_signals_whose_handlers_both_raise():
    """The second is pending when the first one's exception is caught."""
    said = good(
        """
class Alarm(Exception):
    pass

def alarm(number, frame):
    raise Alarm

signal.signal(signal.SIGALRM, alarm)
signal.signal(signal.SIGUSR1, alarm)
send(signal.SIGINT, signal.SIGALRM, signal.SIGUSR1)
try:
    try:
        long_call()
    except (KeyboardInterrupt, Alarm):
        print(is_soon())
        time.sleep(0.3)
except Alarm:
    print(is_soon())
print(short_calls(), medium_call())
"""
    )
    assert len(said) >= 3 and set(said) == {"True"}


def test_what_a_handler_raises_is_what_the_call_raises():
    said = good(
        """
def alarm(number, frame):
    raise TimeoutError("too long")

signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.3)
sent.append(time.monotonic() + 0.3)
try:
    long_call()
except TimeoutError as error:
    print(is_soon(), str(error) == "too long")
print(short_calls())
"""
    )
    assert said == ["True"] * 3


def test_a_handler_that_raises_nothing_lets_the_call_finish():
    said = good(
        """
handled = []
signal.signal(signal.SIGINT, lambda number, frame: handled.append(time.monotonic()))
send(signal.SIGINT, after=0.1)
print(medium_call())
print(time.monotonic() - handled[0] > 0.05) # in the middle of it
print(handled[0] - sent[0] < 0.5)
"""
    )
    assert said == ["True"] * 3


def test_a_handler_that_calls():
    said = good(
        """
handled = []

def handler(number, frame):
    handled.append((time.monotonic(), short_calls()))

signal.signal(signal.SIGUSR1, handler)
send(*[signal.SIGUSR1] * 2, after=0.1, again=0.15)
print(medium_call())
print(len(handled) >= 1, all(right for _, right in handled))
print(time.monotonic() - handled[0][0] > 0.05)
sent.clear()
send(signal.SIGINT)
try:
    long_call()
except KeyboardInterrupt: # it is still watched
    print(is_soon())
"""
    )
    assert said == ["True"] * 5


def test_a_call_of_another_thread_goes_on():
    said = good(
        """
results, done = [], threading.Event()

def work():
    results.append(medium_call())
    done.set()

send(signal.SIGINT, after=0.1)
threading.Thread(target=work).start()
try:
    done.wait()
except KeyboardInterrupt:
    print(is_soon(), not results)
done.wait()
print(results[0], short_calls())
"""
    )
    assert said == ["True"] * 4


@pytest.mark.parametrize("place", ["main", "other"])
def test_an_interrupt_in_a_fork(place):
    """The thread that forks becomes the child's main one, in which handlers run."""
    said = good(
        """
def fork():
    if os.fork():
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        return
    send(signal.SIGINT)
    try:
        long_call()
    except KeyboardInterrupt:
        os._exit(7 if is_soon() and short_calls() else 1)
    finally:
        os._exit(2)

short_calls()
if sys.argv[2] == "main":
    fork()
else:
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
""",
        2,
        place,
    )
    assert said == ["7"]
