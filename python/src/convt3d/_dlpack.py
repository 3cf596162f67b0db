"""bfloat16 by DLPack, which NumPy doesn't take since it has no such type.

The capsule is told to hold integers of 16 bits, which NumPy shows; their view is of ml_dtypes'
bfloat16.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._library import DtypeError

# DLDataTypeCode.
_INT, _BFLOAT = 0, 4


class _Tensor(ctypes.Structure):
    """DLTensor, with which DLManagedTensor begins; as far as its type."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    ]


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned, since DLPack 1.0."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_OFFSETS = {b"dltensor": 0, b"dltensor_versioned": _Versioned.tensor.offset}

_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Shown:
    """What another object exports; bfloat16 as integers."""

    def __init__(self, source: Any):
        self.source = source
        self.is_bfloat16 = False

    def __dlpack__(self, **named: Any) -> Any:
        capsule = self.source.__dlpack__(**named)
        name = _name(capsule)
        if name in _OFFSETS:
            # Made for this call alone: nobody else looks at what is changed.
            tensor = _Tensor.from_address(_pointer(capsule, name) + _OFFSETS[name])
            if (tensor.code, tensor.bits, tensor.lanes) == (_BFLOAT, 16, 1):
                tensor.code, self.is_bfloat16 = _INT, True
        return capsule

    def __dlpack_device__(self) -> Any:
        return self.source.__dlpack_device__()


def from_dlpack(name: str, value: Any) -> NDArray[Any]:
    """As numpy.from_dlpack(), with bfloat16.

    Raises:
        DtypeError: for bfloat16, where ml_dtypes is missing.
        Whatever NumPy and the value raise.
    """
    shown = _Shown(value)
    array: NDArray[Any] = np.from_dlpack(shown)
    if not shown.is_bfloat16:
        return array
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise DtypeError(
            f"{name}: dtype bfloat16, by DLPack, needs the package ml_dtypes, since it becomes "
            f"an array of ml_dtypes.bfloat16: {error}"
        ) from error
    return array.view(bfloat16)
