"""What the package torch ships for its own tests of ConvTranspose3d, and how results compare.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import functools

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.testing._internal.jit_metaprogramming_utils
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing._internal import common_nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

from convt3d.torch import ConvTranspose3d

torch.set_default_dtype(torch.float32)  # which an older list for TorchScript changes

THEIRS = torch.nn.ConvTranspose3d
OP = next(op for op in op_db if op.name == "nn.functional.conv_transpose3d")
INFO = next(info for info in module_db if info.module_cls is THEIRS)
LAZY = next(info for info in module_db if info.module_cls is torch.nn.LazyConvTranspose3d)
DTYPES = (torch.float32, torch.float64)
# Whose sums are of float32, and which not all PyTorchs have.
SHORT_DTYPES = (torch.bfloat16, torch.float16)
# What convt3d leaves to PyTorch, and not all PyTorchs have.
OTHER_DTYPES = [torch.complex64, torch.complex128]
NAMES = ("conv_transpose3d", "conv_transpose3d_backward_input", "conv_transpose3d_backward_weight")
LAST = torch.channels_last_3d

HAS_OPERATORS = hasattr(torch.library, "custom_op")
needs_operators = pytest.mark.usefixtures("operators")


def close(found, wanted):
    """Relative to the largest value, since sums cancel; tuples, one by one."""
    if isinstance(wanted, Tensor):
        found, wanted = [found], [wanted]
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        largest = max(1.0, b.abs().max().item()) if b.numel() else 1.0
        atol = 64 * torch.finfo(b.dtype).eps * largest
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def pair(*args, dtype=torch.float64, **keywords):
    """The drop-in and PyTorch's module, of the same seed."""
    made = []
    for cls in (ConvTranspose3d, THEIRS):
        torch.manual_seed(7)
        made.append(cls(*args, **keywords).to(dtype))
    return made


def run(module, x, given=None):
    """Output and gradients."""
    y = module(x)
    torch.manual_seed(8)
    given = torch.randn(y.shape, dtype=y.dtype) if given is None else given
    return (y, *grad(y, (x, *module.parameters()), given))


def spread(tensor):
    """The same values, not contiguous."""
    result = tensor.detach().repeat_interleave(2, -1)[..., ::2]
    assert not result.is_contiguous() or result.numel() <= 1
    return result.requires_grad_(tensor.requires_grad)


def sample(index, dtype=torch.float64, requires_grad=True):
    """One of OpInfo's samples, the same at each call: its tensors, its keywords."""
    torch.manual_seed(index)
    found = list(OP.sample_inputs("cpu", dtype, requires_grad=requires_grad))[index]
    return (found.input, *found.args), found.kwargs


def names_of_samples():
    for index, found in enumerate(OP.sample_inputs("cpu", torch.float32)):
        yield pytest.param(index, id=f"{index}-of-{'x'.join(map(str, found.input.shape))}")


samples = pytest.mark.parametrize("index", list(names_of_samples()))
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])


def everything(function, tensors, keywords):
    """Output, gradients, tangent, and the gradients of a gradient."""
    leaves = [t for t in tensors if t is not None]
    torch.manual_seed(1)
    output = function(*tensors, **keywords)
    given = torch.randn_like(output).requires_grad_()
    first = grad(output, leaves, given, create_graph=True)
    second = grad(first, [given, *leaves[:2]], [torch.randn_like(t) for t in first])
    with forward_ad.dual_level():
        duals = [t if t is None else forward_ad.make_dual(t, torch.randn_like(t)) for t in tensors]
        tangent = forward_ad.unpack_dual(function(*duals, **keywords)).tangent
    return output, *first, *second, tangent


@functools.cache
def by_pytorch(index, dtype):
    """Everything by PyTorch, which takes its time."""
    return everything(OP.op, *sample(index, dtype))


def check_all(function, tensors, batched=False):
    """gradcheck and gradgradcheck, with forward mode."""
    common = {"fast_mode": True, "check_batched_grad": batched}
    forward = {"check_forward_ad": True, "check_batched_forward_grad": batched}
    assert gradcheck(function, tensors, **common, **forward)
    assert gradgradcheck(function, tensors, **common, check_fwd_over_rev=True)


def as_module(cls, tensors, keywords):
    """The layer that a sample is, with the sample's weights."""
    _, weight, bias = tensors
    channels = weight.shape[0], weight.shape[1] * keywords.get("groups", 1)
    with_bias = {"bias": bias is not None, "dtype": weight.dtype}
    module = cls(*channels, tuple(weight.shape[2:]), **with_bias, **keywords)
    module.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
    return module


FORMS = {
    "plain": lambda t: t,
    "not-contiguous": spread,
    "negative": lambda t: torch._neg_view(-t.detach()).requires_grad_(),
}


class Case(common_nn.NNTestCase):
    """What test_nn.py gives to NewModuleTest."""

    def _forward(self, module, input):
        return module(*input) if isinstance(input, tuple) else module(input)

    def _get_parameters(self, module):
        return list(module.parameters()), [p.grad for p in module.parameters()]

    def _zero_grad_parameters(self, module):
        module.zero_grad()

    def _backward(self, module, input, output, grad_output, create_graph=False):
        output.backward(grad_output, retain_graph=True, create_graph=create_graph)
        return input.grad
