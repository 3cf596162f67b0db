"""The progress bar and Ctrl-C, on a terminal of the test's own.
SPDX-License-Identifier: MIT
"""

import os
import pty
import select
import signal
import subprocess
import time

import numpy as np
import pytest

from conftest import COMMAND

# Far more work than any CPU does in the seconds that a test watches it.
SIZES = {"engine": ((1, 96, 48, 48, 48), 11), "reference": ((1, 16, 48, 48, 48), 5)}


def long_job(shell, algorithm):
    shape, kernel = SIZES[algorithm]
    shell.save("x.npy", np.ones(shape))
    shell.save("w.npy", np.ones((shape[1], shape[1], kernel, kernel, kernel)))
    return ["forward", "--input", "x.npy", "--weight", "w.npy", "--threads", "1", "--algorithm",
            algorithm, "--output", "y.npy"]


def on_terminal(shell, args):
    """Starts the command as the foreground job of a new terminal."""
    try:
        child, terminal = pty.fork()
    except OSError as error:
        pytest.skip(f"this machine gives no terminals: {error}")
    if child == 0:
        os.chdir(shell.folder)
        os.execv(COMMAND, [COMMAND, *args])
    return child, terminal


def read_for(terminal, seconds, until=None):
    """What the terminal shows within that time, or until it shows a text."""
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end and (until is None or until not in text):
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            break
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        text += part.decode()
    return text


def ending(child, seconds):
    """Its exit status; a process that doesn't end in time is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def stopped(process, number):
    """Sends the signal; the status and errors, which must come in a second."""
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("it went on")
    return process.returncode, errors


@pytest.mark.parametrize("algorithm", SIZES)
def test_bar_and_interrupt(shell, algorithm):
    args = long_job(shell, algorithm)
    before = shell.state()
    child, terminal = on_terminal(shell, args)
    assert read_for(terminal, 0.9) == "", "nothing in the first second"
    text = read_for(terminal, 60, until="%")
    assert "forward [" in text and "%" in text, text
    text += read_for(terminal, 0.5)
    assert text.count("\r") > 1, "the bar moves"
    start = time.monotonic()
    os.write(terminal, b"\x03")
    rest = read_for(terminal, 5, until="interrupted")
    status = ending(child, 5)
    seconds = time.monotonic() - start
    os.close(terminal)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 130, status
    assert "convt3d: interrupted" in rest
    assert seconds < 1, seconds
    assert shell.state() == before


def test_short_job_shows_nothing(shell):
    shell.save("x.npy", np.ones((1, 1, 4, 4, 4)))
    shell.save("w.npy", np.ones((1, 1, 2, 2, 2)))
    child, terminal = on_terminal(shell, ["forward", "--input", "x.npy", "--weight", "w.npy",
                                          "--output", "y.npy"])
    text = read_for(terminal, 30)
    status = ending(child, 5)
    os.close(terminal)
    assert status == 0 and text == ""
    assert shell.load("y.npy").shape == (1, 1, 5, 5, 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_bar_without_terminal(shell, number):
    args = long_job(shell, "engine")
    before = shell.state()
    process = shell.start(*args, stderr=subprocess.PIPE, text=True)
    time.sleep(4)  # the bar of a terminal would have been there long before
    assert process.poll() is None
    assert stopped(process, number) == (128 + number, "convt3d: interrupted\n")
    assert shell.state() == before


def test_interrupt_while_backward(shell):
    args = long_job(shell, "engine")
    shell.save("dy.npy", np.ones((1, 96, 58, 58, 58)))
    args = ["backward", *args[1:-2], "--grad-output", "dy.npy", "--grad-weight", "dw.npy"]
    before = shell.state()
    process = shell.start(*args, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    assert process.poll() is None
    assert stopped(process, signal.SIGINT) == (130, "convt3d: interrupted\n")
    assert shell.state() == before


def test_interrupt_while_writing(shell, name="y.nii.gz"):
    """The file that is being written goes; the one from before stays.  Packing
    takes seconds, so that the signal comes in time."""
    rng = np.random.default_rng(0)
    shell.save("x.npy", rng.standard_normal((1, 1, 200, 300, 400), np.float32))
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1), np.float32))
    with open(shell.path(name), "w") as file:
        file.write("the old one")
    before = shell.state()
    process = shell.start("forward", "--input", "x.npy", "--weight", "w.npy", "--output", name,
                          stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(os.listdir(shell.folder)) == len(before):
        time.sleep(0.001)
    assert stopped(process, signal.SIGINT) == (130, "convt3d: interrupted\n")
    assert shell.state() == before


def test_killed_while_writing(shell):
    """Nothing can be tidied then, but the old file is whole."""
    shell.save("x.npy", np.ones((1, 1, 100, 300, 400), np.float32))
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1), np.float32))
    with open(shell.path("y.nii.gz"), "w") as file:
        file.write("the old one")
    before = len(os.listdir(shell.folder))
    process = shell.start("forward", "--input", "x.npy", "--weight", "w.npy", "--output",
                          "y.nii.gz")
    while process.poll() is None and len(os.listdir(shell.folder)) == before:
        time.sleep(0.001)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    with open(shell.path("y.nii.gz")) as file:
        assert file.read() == "the old one"


def test_closed_pipe(shell):
    """`convt3d info | head -0` ends as other programs do."""
    process = subprocess.run(f"'{COMMAND}' --help | true", shell=True, capture_output=True,
                             timeout=60)
    assert process.returncode == 0
