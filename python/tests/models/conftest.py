"""What list_cases.py reads of each case: its title, the versions, what differs by design.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import inspect
import platform
import sys
from pathlib import Path

import pytest
import torch

import convt3d

HAS_OPERATORS = hasattr(torch.library, "custom_op")
sys.path.insert(0, str(Path(__file__).resolve().parent))  # pytorch_lists


@pytest.fixture(scope="session", autouse=True)
def versions(record_testsuite_property):
    for name, value in (
        ("torch", torch.__version__),
        ("convt3d", convt3d.__version__),
        ("Python", platform.python_version()),
    ):
        record_testsuite_property(name, value)


@pytest.fixture(autouse=True)
def title(request, record_property):
    record_property(
        "title", " ".join((inspect.getdoc(request.function) or request.node.name).split())
    )
    torch.manual_seed(0)


@pytest.fixture
def by_design(record_property):
    return lambda text: record_property("by design", text)


@pytest.fixture
def operators():
    """A fixture, since what a mark skips gets no title."""
    if not HAS_OPERATORS:
        pytest.skip("needs custom operators, which PyTorch has since 2.4")


@pytest.fixture
def double():
    """PyTorch's module tests are written for this."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
