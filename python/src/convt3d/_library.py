"""The C library: found, loaded and described to ctypes; its errors; interrupts.

Mirrors include/convt3d.h, which says what everything means.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import threading
from ctypes import (
    POINTER,
    addressof,
    byref,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
    cast,
    pointer,
)
from pathlib import Path
from types import GeneratorType
from typing import Any

# The version of the library that this package was written for.
VERSION = "0.1.0"

FLOAT32, FLOAT64, BFLOAT16, FLOAT16 = 1, 2, 3, 4
# As errors list them.
DTYPES = "float32, float64, bfloat16, float16"
MAX_THREADS = 1024
HUGE_PAGE = 1 << 21  # bytes, on x86-64 and most of aarch64
KEPT_SCRATCH = 2 * HUGE_PAGE  # the library gets more than that on huge pages
FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = 0, 1, 2
OVERWRITE, ACCUMULATE = 0, 1
PADDING_MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}
PRECISIONS = {"highest": 0, "high": 1, "medium": 2}
ACTIVATIONS = {
    "none": 0,
    "relu": 1,
    "leaky_relu": 2,
    "gelu": 3,
    "gelu_tanh": 4,
    "sigmoid": 5,
    "tanh": 6,
}


class CError(ctypes.Structure):
    """convt3d_error."""

    _fields_ = [("status", c_int), ("text", ctypes.c_char * 508)]


class Problem(ctypes.Structure):
    """convt3d_problem."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("dtype", c_int),
        ("padding_mode", c_int),
        ("bias", c_int32),
        ("batch", c_int64),
        ("in_channels", c_int64),
        ("out_channels", c_int64),
        ("groups", c_int64),
        ("input_size", c_int64 * 3),
        ("kernel_size", c_int64 * 3),
        ("stride", c_int64 * 3),
        ("padding_before", c_int64 * 3),
        ("padding_after", c_int64 * 3),
        ("output_padding", c_int64 * 3),
        ("dilation", c_int64 * 3),
    ]


class Options(ctypes.Structure):
    """convt3d_options."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("threads", c_int32),
        ("isa", c_char_p),
        ("algorithm", c_char_p),
        ("activation", c_int),
        ("negative_slope", c_double),
        ("precision", c_int),
    ]


class OpenMP(ctypes.Structure):
    """convt3d_openmp."""

    _fields_ = [("parallel", c_void_p), ("thread_num", c_void_p), ("num_threads", c_void_p)]


# convt3d_run's poll(poll_data, done), declared without its arguments: see _watch().
_Poll = ctypes.CFUNCTYPE(c_int)


class Run(ctypes.Structure):
    """convt3d_run."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("threads", c_int32),
        ("scratch", c_void_p),
        ("scratch_size", c_size_t),
        ("poll", _Poll),
        ("poll_data", c_void_p),
        ("parallel", c_void_p),
        ("parallel_data", c_void_p),
    ]


# ---- Errors ----------------------------------------------------------------------


class Error(Exception):
    """What convt3d refuses to do.

    The text names the argument, the axis, the value and the legal range.  Each
    error is also one of Python's own: see the classes that are made from this one.

    Attributes:
        status: the library's short name for the kind of error, such as "SHAPE".
    """

    status = "ARG"


class ArgumentError(Error, ValueError):
    """A value is not legal."""


class ShapeError(Error, ValueError):
    """Sizes contradict each other."""

    status = "SHAPE"


class DtypeError(Error, TypeError):
    """A data type that is unknown, or mixed types."""

    status = "DTYPE"


class RangeError(Error, OverflowError):
    """Sizes or byte counts beyond 64 bits."""

    status = "OVERFLOW"


class NoMemoryError(Error, MemoryError):
    """Memory could not be had; the text says how much."""

    status = "NOMEM"


class UnsupportedError(Error, NotImplementedError):
    """This CPU or build can't do what was forced."""

    status = "UNSUPPORTED"


_ERRORS: dict[int, type[Error]] = {
    1: ArgumentError,
    2: ShapeError,
    3: DtypeError,
    4: RangeError,
    5: NoMemoryError,
    6: UnsupportedError,
}


def failure(status: int, error: CError) -> Error:
    """The exception for a status other than OK."""
    return _ERRORS.get(status, Error)(error.text.decode("utf-8", "replace"))


# ---- Loading ---------------------------------------------------------------------


def _find() -> str:
    """$CONVT3D_LIBRARY, else the library beside this file, else an installed one."""
    named = os.environ.get("CONVT3D_LIBRARY")
    if named:
        return named
    for beside in sorted(Path(__file__).parent.glob("libconvt3d.*")):
        return str(beside)
    installed = ctypes.util.find_library("convt3d")
    if installed:
        return installed
    raise ImportError(
        "convt3d: its library is not beside the package and not installed; "
        "install the package with pip, or name the library in CONVT3D_LIBRARY"
    )


def _load() -> ctypes.CDLL:
    path = _find()
    try:
        library = ctypes.CDLL(path)
        library.convt3d_version.restype = c_char_p
    except (OSError, AttributeError) as wrong:  # not a library, not this one
        raise ImportError(f"convt3d: {path} is not its library: {wrong}") from wrong
    version = library.convt3d_version().decode()
    if version.split(".")[:2] != VERSION.split(".")[:2]:
        raise ImportError(
            f"convt3d: the library {path} is version {version}, the package {VERSION}"
        )
    tensor, error = c_char_p, POINTER(CError)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "problem_init": (None, [POINTER(Problem)]),
        "problem_output_shape": (c_int, [POINTER(Problem), POINTER(c_int64), error]),
        "problem_set_output_size": (c_int, [POINTER(Problem), POINTER(c_int64), error]),
        "options_init": (None, [POINTER(Options)]),
        "plan_create": (
            c_int,
            [POINTER(Problem), c_int, POINTER(Options), POINTER(c_void_p), error],
        ),
        "plan_free": (None, [c_void_p]),
        "plan_threads": (c_int32, [c_void_p]),
        "plan_scratch_size": (c_size_t, [c_void_p, c_int32, c_int]),
        "plan_describe": (c_size_t, [c_void_p, c_char_p, c_size_t]),
        "weights_pack": (c_int, [c_void_p, tensor, POINTER(c_void_p), error]),
        "weights_free": (None, [c_void_p]),
        "run_init": (None, [POINTER(Run)]),
        "forward": (
            c_int,
            [c_void_p, tensor, tensor, c_void_p, tensor, tensor, POINTER(Run), error],
        ),
        "backward_input": (
            c_int,
            [c_void_p, tensor, tensor, c_void_p, tensor, c_int, POINTER(Run), error],
        ),
        "backward_weight": (
            c_int,
            [c_void_p, tensor, tensor, tensor, tensor, c_int, POINTER(Run), error],
        ),
        "isa_supported": (c_int, [c_char_p]),
        "cpu_count": (c_int32, []),
        "cpu_name": (c_size_t, [c_char_p, c_size_t]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, "convt3d_" + name)
        function.restype, function.argtypes = result, arguments
    return library


library = _load()

# ---- Interrupts ------------------------------------------------------------------


def _watch(raised: list[BaseException]) -> Any:
    """Lets signals' handlers run, and ends once one raises something, which is kept.

    Python runs pending handlers where its code begins to run.  At the start of a
    function no 'except' is there to catch what a handler raises, and ctypes would
    print it and go on; a generator resumes inside its 'try'.  What follows the 'except'
    calls nothing and doesn't loop, or a second signal's handler could run there."""
    try:
        while True:
            yield 0
    except GeneratorExit:
        pass
    except BaseException as error:
        raised[:] = (error,)


class Threads:
    """How calls run: convt3d's own threads, or the host's OpenMP; and, in the main thread,
    the only one in which Python runs them, with signals' handlers."""

    def __init__(self, openmp: OpenMP | None = None) -> None:
        self.main = threading.main_thread().ident
        self.busy = False
        # What a handler raised in the middle of a call: KeyboardInterrupt, usually.
        self.raised: list[BaseException] = []
        self.openmp = openmp
        # Scratch that calls from the main thread share, and its size; 0: not in use.
        self.scratch: Any = None
        self.kept = 0
        self.watched, self.unwatched = Run(), Run()
        for run in (self.watched, self.unwatched):
            library.convt3d_run_init(byref(run))
            if openmp is not None:
                run.parallel = cast(library.convt3d_openmp_parallel, c_void_p)
                run.parallel_data = cast(pointer(openmp), c_void_p)
        self._watch_anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _watch_anew(self) -> None:
        self.raised.clear()
        answers: GeneratorType[int, None, None] = _watch(self.raised)
        next(answers)
        # To poll() the answer is 0, and 1, which is to stop, once it has ended.  Called
        # without arguments: the two that the library passes stay in their registers.
        self.watched.poll = _Poll(functools.partial(next, answers, 1))
        self.answers = answers

    def _take(self, scratch_size: int) -> Run:
        """What to run with, from the main thread."""
        if self.answers.gi_frame is None:
            self._watch_anew()
        # Else small calls would get fresh pages from the system, which takes longer than they.
        if scratch_size > KEPT_SCRATCH:
            self._keep(0)
        elif scratch_size > self.kept:
            self._keep(scratch_size)
        return self.watched

    def _keep(self, size: int) -> None:
        """Runs with scratch of this size; 0: with what the library gets for each."""
        if size and (self.scratch is None or len(self.scratch) < size):
            self.scratch = (c_char * size)()
        self.kept = len(self.scratch) if size else 0
        self.watched.scratch = addressof(self.scratch) if size else None
        self.watched.scratch_size = self.kept

    def _after_fork(self) -> None:
        """The thread that forked is the child's main thread.  OpenMP doesn't work there."""
        self.main = threading.get_ident()
        self.busy = False
        for run in (self.watched, self.unwatched):
            run.parallel = None

    def call(self, function: Any, scratch_size: int, *arguments: Any) -> None:
        """Runs forward, backward_input or backward_weight, without Python's lock."""
        error = CError()
        # A handler that itself calls the library isn't watched.
        watched = not self.busy and threading.get_ident() == self.main
        try:
            if watched:
                self.busy = True
            run = self._take(scratch_size) if watched else self.unwatched
            status = function(*arguments, run, error)
        finally:
            if watched:
                self.busy = False
        if watched and self.raised:
            raise self.raised.pop()
        if status:
            raise failure(status, error)


own_threads = Threads()
