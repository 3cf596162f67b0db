"""What the libraries show and what they call.

SPDX-License-Identifier: MIT
"""

import re

import pytest

from conftest import TOP, output_of

# A library must not end its process, print, or touch what belongs to its host.  It may give
# its own threads the caller's floating-point control, hence not fesetenv.
FORBIDDEN = set("""abort exit _exit quick_exit __assert_fail printf puts putchar putc fputs fprintf
    vprintf vfprintf perror stdout stderr sprintf vsprintf gets rand srand random setlocale signal
    sigaction sigprocmask fesetround feenableexcept fork system popen
    setenv putenv strtok __printf_chk __fprintf_chk __sprintf_chk""".split())


def declared():
    """The functions that the header marks as the library's interface."""
    text = (TOP / "include/convt3d.h").read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return set(re.findall(r"^CONVT3D_API[^;(]*?(\w+)\(", text, re.M))


def symbols(library, *flags):
    lines = output_of(["nm", *flags, library]).splitlines()
    return [line.split() for line in lines if re.search(r" [A-Za-z] ", line)]


def test_shared_library_shows_the_header_and_nothing_else(build):
    rows = symbols(build / "libconvt3d.so", "-D", "--defined-only")
    shown = {row[-1].partition("@")[0] for row in rows if row[-2] != "A"}
    assert len(declared()) > 30
    assert shown == declared()


def test_symbols_carry_a_version(build):
    rows = symbols(build / "libconvt3d.so", "-D", "--defined-only")
    assert all(row[-1].endswith("@@CONVT3D_0") for row in rows if row[-2] != "A")


def test_static_library_keeps_to_its_prefix(build):
    rows = symbols(build / "libconvt3d.a", "-g", "--defined-only")
    assert declared() <= {row[-1] for row in rows}
    assert [row[-1] for row in rows if not row[-1].startswith("convt3d_")] == []


@pytest.mark.parametrize("name", ["libconvt3d.so", "libconvt3d.a"])
def test_library_calls_nothing_forbidden(build, name):
    flags = ["-D"] if name.endswith(".so") else []
    rows = symbols(build / name, "-u", *flags)
    called = {row[-1].partition("@")[0] for row in rows}
    assert "memcpy" in called or "malloc" in called
    assert called & FORBIDDEN == set()


def test_shared_library_needs_only_the_c_library(build):
    text = output_of(["readelf", "-d", build / "libconvt3d.so"])
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    assert set(needed) <= {"libc.so.6", "libm.so.6", "libpthread.so.0"}
    assert re.findall(r"\(SONAME\).*\[(.*)\]", text) == ["libconvt3d.so.0"]
    assert "RPATH" not in text and "RUNPATH" not in text and "TEXTREL" not in text


def test_stack_is_not_executable(build):
    rows = output_of(["readelf", "-lW", build / "libconvt3d.so"]).splitlines()
    stack = [row for row in rows if "GNU_STACK" in row]
    assert len(stack) == 1 and "E" not in stack[0].split()[6]
