"""The public header compiles alone, in C99 and in C++, without a warning.

SPDX-License-Identifier: MIT
"""

import pytest

from conftest import TOP, output_of

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I", TOP / "include"]


@pytest.mark.parametrize("compiler", [
    ["gcc", "-x", "c", "-std=c99"],
    ["gcc", "-x", "c", "-std=c11", "-DCONVT3D_STATIC"],
    ["g++", "-x", "c++", "-std=c++98", "-Wno-long-long", "-Wno-variadic-macros"],
    ["g++", "-x", "c++", "-std=c++17"],
], ids=lambda words: words[3].partition("=")[2])
def test_header_compiles_alone(compiler, tmp_path):
    source = tmp_path / "alone.c"
    # Twice: the guard must work as well.
    source.write_text('#include "convt3d.h"\n#include "convt3d.h"\n')
    output_of(compiler + STRICT + [source])


def test_functions_link_from_cplusplus(build, tmp_path):
    """Without extern "C" the names would be mangled, which only the linker sees."""
    source = tmp_path / "use.cc"
    source.write_text('#include "convt3d.h"\n#include <cstdio>\n'
                      "int main() { std::puts(convt3d_version()); }\n")
    output_of(["g++", "-I", TOP / "include", source, "-L", build, "-lconvt3d",
               "-Wl,-rpath," + str(build), "-o", tmp_path / "use"])
    numbers = [line.split()[2] for line in (TOP / "include/convt3d.h").read_text().splitlines()
               if line.startswith("#define CONVT3D_VERSION_")]
    assert output_of([tmp_path / "use"]) == ".".join(numbers) + "\n"
