"""Signals in the middle of a call, each in a Python of its own, which must say nothing else.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import signal

from children import good, run_child


def test_an_interrupt_ends_forward_within_a_second():
    said = good(
        """
made = ConvTranspose3d(2048, 32, 5, dtype=torch.float64)
for kind in ("function", "module", "packed"):
    made.train(kind != "packed")
    sent.clear()
    send()
    try:
        with torch.set_grad_enabled(made.training):
            long_call() if kind == "function" else made(ones(1, 2048, 16, 16, 16))
    except KeyboardInterrupt:
        print(is_soon())
    used = time.process_time()
    time.sleep(0.3)
    print(time.process_time() - used < 0.1) # no thread goes on
    print(short_calls(), is_packed(made) == (kind == "packed"))
"""
    )
    assert said == ["True"] * 12


def test_an_interrupt_ends_backward_within_a_second():
    """The forward call is short, since its values aren't computed."""
    said = good(
        """
from convt3d.torch import _operators

class Slow(torch.autograd.Function):
    "Has the gradients of long_call()."
    @staticmethod
    def forward(ctx, x, w, b):
        return x.new_zeros(1).expand(1, 64, 72, 40, 40)

    @staticmethod
    def backward(ctx, dy):
        layer = [1] * 3, [0] * 3, [0] * 3, 1, [1] * 3, "zeros"
        dx = dw = db = None
        print(not sent)
        if ctx.needs_input_grad[0]:
            dx = _operators.backward_input(dy, ones(64, 64, 9, 9, 9), [64, 32, 32], *layer)
        if ctx.needs_input_grad[1]:
            bias = ctx.needs_input_grad[2]
            given = ones(1, 64, 64, 32, 32)
            dw, db = _operators.backward_weight(dy, given, [9] * 3, bias, *layer)
        return dx, dw, db

prepare_backward()
for wanted in ("x", "w", "b and w"):
    leaves = {"x": ones(1, 64, 64, 32, 32), "w": ones(64, 64, 9, 9, 9), "b": ones(64)}
    leaves = {n: t.clone().requires_grad_(n in wanted) for n, t in leaves.items()}
    y = Slow.apply(*leaves.values())
    sent.clear()
    send()
    try:
        y.backward(ones(*y.shape))
    except KeyboardInterrupt:
        print(is_soon())
    print(all(t.grad is None for t in leaves.values()), short_calls())
    z = (2 * ones(1, 1, 2, 2, 2)).clone().requires_grad_() # backward goes on to work
    conv_transpose3d(z, 3 * ones(1, 1, 1, 1, 1)).sum().backward()
    print(bool((z.grad == 3).all()))
"""
    )
    assert said == ["True"] * 15


def test_an_interrupt_of_the_layers_own_backward():
    """Of calls that go on and on, one is interrupted."""
    said = good(
        """
w = ones(32, 32, 7, 7, 7).clone().requires_grad_()
y = conv_transpose3d(ones(1, 32, 16, 16, 16), w)
prepare_backward()
send()
calls = 0
try:
    while calls < 1000:
        y.backward(ones(*y.shape), retain_graph=True)
        calls += 1
except KeyboardInterrupt:
    print(is_soon())
w.grad = None
y.backward(ones(*y.shape))
print(bool((w.grad == 16**3).all()))
"""
    )
    assert said == ["True"] * 2


def test_an_interrupt_that_nobody_catches_ends_the_process():
    script = "send(); long_call(); print('went on')"
    child = run_child(script)
    assert child.returncode == -signal.SIGINT and child.stdout == ""
    lines = child.stderr.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "KeyboardInterrupt"
    assert "ignored" not in child.stderr
