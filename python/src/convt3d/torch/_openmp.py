"""PyTorch's own OpenMP threads, for the layer to run on.

PyTorch's threads spin for milliseconds after each of its operators.  Threads of our own would
share the cores with them: calls between operators of a model would take up to twice the time.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import torch

from .._library import OpenMP, Threads, own_threads

_NAMES = re.compile(r"lib(gomp|iomp5|omp)\b[^/]*$")


def _run_time() -> Any:
    """The OpenMP library that PyTorch has loaded; None where that can't be told."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    found = sorted(path for path in paths if _NAMES.search(path))
    home = str(Path(torch.__file__).parent)
    found = [path for path in found if path.startswith(home)] or found
    return ctypes.CDLL(found[0]) if len(found) == 1 else None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def threads() -> Threads:
    """PyTorch's threads if it has OpenMP's, else convt3d's."""
    library = _run_time()
    try:
        functions = (
            library.GOMP_parallel,
            library.omp_get_thread_num,
            library.omp_get_num_threads,
        )
    except AttributeError:  # none, or another kind
        return own_threads
    return Threads(OpenMP(*map(_address, functions)))
