"""Scripts in a Python of their own, with calls that are long enough to be interrupted.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import os
import subprocess
import sys

# Calls that take ten seconds, or half of one: by generic kernels in float64, of ones.
PRELUDE = """
import os, signal, sys, threading, time
import torch
import convt3d
from convt3d.torch import ConvTranspose3d, conv_transpose3d, is_packed

# A shell's background job has SIGINT ignored, and its children with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def ones(*shape):
    return torch.ones((), dtype=torch.float64).expand(shape)

def long_call():
    return conv_transpose3d(ones(1, 64, 64, 32, 32), ones(64, 64, 9, 9, 9))

def medium_call():
    return conv_transpose3d(ones(1, 16, 40, 32, 32), ones(16, 16, 7, 7, 7))

def short_calls():
    "Whether three are right, and nothing is left that is raised late."
    two, three = 2 * ones(1, 1, 2, 2, 2), 3 * ones(1, 1, 1, 1, 1)
    return all(bool((conv_transpose3d(two, three) == 6).all()) for _ in range(3))

sent = []
def send(after=0.3):
    def work():
        time.sleep(after)
        os.kill(os.getpid(), signal.SIGINT)
        sent.append(time.monotonic())
    threading.Thread(target=work, daemon=True).start()

def prepare_backward():
    "What PyTorch imports at the first one must not be what is interrupted."
    z = torch.ones(1, requires_grad=True)
    (z * 1).backward(torch.ones(1))

def is_soon():
    "Whether it is less than a second after the signal, and not before it."
    return bool(sent) and time.monotonic() - sent[0] < 1

torch.set_num_threads(2)
"""


def run_child(script):
    """What a script says and how it ends; it has everything of PRELUDE."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        env=dict(os.environ, CONVT3D_ISA="generic"),
        capture_output=True,
        text=True,
        timeout=120,
    )


def good(script):
    child = run_child(script)
    assert (child.stderr, child.returncode) == ("", 0)
    return child.stdout.split()
