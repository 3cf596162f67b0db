"""Tile kernels keep their sums in registers, as every package compiles them: at -O2.

A loop that loses its UNROLL, or a tile that is too large, computes the same numbers
several times slower; only the compiled code shows it.  What is read here is the
innermost loop that holds fused multiply-adds, of every function <type>_gemm_* and
<type>_dot_*; one with RxV in its name does a multiple of R*V of them each time round.

SPDX-License-Identifier: MIT
"""

import platform
import re
import shutil

import pytest

from conftest import TOP, output_of

# Those that bring tiles of their own; x86_amx takes x86_avx512's.
KERNELS = sorted(f for f in (TOP / "src/kernels").glob("x86_*.c") if "isa.inc" in f.read_text())
COMPILERS = ("cc", "clang")
TYPES = ("f32", "f64")
TILE = re.compile(r"(?:%s)_(?:gemm|dot)_[\w.]+(?<!\.cold)" % "|".join(TYPES))
FMA = re.compile(r"vfn?m(?:add|sub)\d")


def need(program):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the kernels are for x86-64")
    if not shutil.which(program):
        pytest.skip("%s isn't here" % program)


def functions(compiler, source, folder):
    """{name: [(address, instruction)]} of the tile kernels in a file."""
    need(compiler)
    need("objdump")
    compiled = folder / (source.stem + ".o")
    output_of([compiler, "-O2", "-I", TOP / "include", "-I", TOP / "src", "-I", source.parent,
               "-I", TOP / "src/kernels", "-c", source, "-o", compiled])
    found, lines = {}, None
    for line in output_of(["objdump", "-d", "--no-show-raw-insn", compiled]).splitlines():
        heading = re.fullmatch(r"[0-9a-f]+ <(.*)>:", line)
        row = re.match(r" *([0-9a-f]+):\t(.*)", line)
        if heading:
            lines = found.setdefault(heading[1], []) if TILE.fullmatch(heading[1]) else None
        elif row and lines is not None:
            lines.append((int(row[1], 16), row[2].strip()))
    return found


def multiply_adds(code):
    return [text for _, text in code if FMA.match(text)]


def inner_loops(code):
    """The instructions of each loop that holds multiply-adds, and no loop that does."""
    loops = set()
    for address, text in code:
        jump = re.match(r"j\w+ +([0-9a-f]+) <", text)
        if jump and code[0][0] <= int(jump[1], 16) <= address:
            loops.add((int(jump[1], 16), address))
    bodies = {(first, last): [line for line in code if first <= line[0] <= last]
              for first, last in loops}
    busy = [loop for loop in loops if multiply_adds(bodies[loop])]
    return [bodies[a] for a in busy
            if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in busy)]


def is_alias(code):
    """Whether a function is nothing but a jump to another one with the same code."""
    return any(re.match(r"jmp +[0-9a-f]+ <\w*_gemm_", text) for _, text in code[:3])


def faults(compiler, name, code):
    """What is wrong with one kernel, in words."""
    if is_alias(code):
        return
    # Without a frame pointer, rbp is a register like others.
    framed = any(re.match(r"mov +%rsp,%rbp$", text) for _, text in code)
    stack = re.compile(r"\(%r[sb]p\b" if framed else r"\(%rsp\b")
    size = re.search(r"_(\d+)x(\d+)(?:_|$)", name)
    products = int(size[1]) * int(size[2]) if size else 1
    loops = inner_loops(code)
    if not loops:
        yield "%s: no loop holds a multiply-add" % name
    for body in loops:
        count = len(multiply_adds(body))
        if count % products:
            yield "%s: %d multiply-adds in its inner loop, which ends with '%s' at %x" % (
                name, count, body[-1][1], body[-1][0])
        for address, text in body:
            if text.startswith("v") and stack.search(text):
                yield "%s: in memory, within its inner loop: '%s' at %x" % (name, text, address)


def all_faults(compiler, source, folder):
    return [fault for name, code in functions(compiler, source, folder).items()
            for fault in faults(compiler, name, code)]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_sums_stay_in_registers(compiler, source, tmp_path):
    found = functions(compiler, source, tmp_path)
    for dtype in TYPES:  # where nothing is found, nothing is tested
        tiles = [name for name in found if re.match(dtype + r"_gemm_\d+x\d+_", name)]
        assert "%s_gemm_1x1__%s" % (dtype, source.stem) in tiles and len(tiles) > 1
    wrong = [fault for name, code in found.items() for fault in faults(compiler, name, code)]
    assert not wrong, "%s -O2 %s:\n%s" % (compiler, source.name, "\n".join(wrong))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_tile_that_is_too_large_is_found(compiler, tmp_path):
    """16 x 4 sums in the 16 registers of AVX2."""
    text = (TOP / "src/kernels/x86_avx2.c").read_text()
    broken = tmp_path / "x86_avx2.c"
    tiles = '#undef TILES\n#define TILES(do) do(16, 4)\n#include "isa.inc"'
    broken.write_text(text.replace('#include "isa.inc"', tiles))
    wrong = all_faults(compiler, broken, tmp_path)
    assert any("f32_gemm_16x4" in fault and "(%r" in fault for fault in wrong)


def test_a_loop_that_is_not_unrolled_is_found(tmp_path):
    """Every compiler unrolls some loops by itself; gcc, as most systems have it, not these."""
    need("gcc")
    shutil.copytree(TOP / "src/kernels", tmp_path / "kernels")
    text, count = re.subn(r"(?m)^#define UNROLL .*", "#define UNROLL",
                          (TOP / "src/kernels/isa.inc").read_text())
    assert count
    (tmp_path / "kernels/isa.inc").write_text(text)
    wrong = all_faults("gcc", tmp_path / "kernels/x86_avx2.c", tmp_path)
    assert any("f32_gemm_6x2" in fault and "multiply-adds" in fault for fault in wrong)
