"""What README.md shows works: its C compiles and runs, its commands succeed.

SPDX-License-Identifier: MIT
"""

import os
import re
import struct

from conftest import TOP, output_of

# The declarations that the README's fragments leave out.
PROGRAM = """
#include <convt3d.h>
#include <stdio.h>
static float x[16 * 1000], w[16 * 33 * 27], y[33 * 21 * 21 * 21];
static convt3d_error err;
int main(void) {
    for (int i = 0; i < 16 * 1000; i++) x[i] = 1;
    for (int i = 0; i < 16 * 33 * 27; i++) w[i] = 1;
    %s
    printf("%%g ", y[21 * 21 * 10 + 21 * 10 + 10]);
    %s
    double norm = 0;
    for (int i = 0; i < 16 * 33 * 27; i++) norm += weight[i] != 0;
    printf("%%g %%g\\n", norm, (double)gradient[0]);
    convt3d_module_free(m);
    return status;
}
"""


def blocks(language):
    text = (TOP / "README.md").read_text()
    return re.findall(r"^```%s\n(.*?)^```" % language, text, re.M | re.S)


def test_c_fragments(build, tmp_path):
    fragments = blocks("c")
    assert len(fragments) == 2
    source = tmp_path / "fragments.c"
    source.write_text(PROGRAM % tuple(fragments))
    output_of(["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-I", TOP / "include", source,
               build / "libconvt3d.a", "-pthread", "-lm", "-o", tmp_path / "fragments"])
    # An even position of a kernel of 3 and stride 2 has two taps per axis from 16 channels.
    assert output_of([tmp_path / "fragments"]) == "128 14256 0\n"


def write_volume(path):
    """The smallest NIfTI file: 5x6x7 voxels of one byte."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 5, 6, 7, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<4f", header, 76, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + bytes(range(5 * 6 * 7)))


def test_shell_commands(build, tmp_path):
    (commands,) = blocks("sh")
    write_volume(tmp_path / "scan.nii.gz")  # told by its content, not by its ending
    env = dict(os.environ, PATH="%s:%s" % (build, os.environ["PATH"]))
    text = output_of(["sh", "-euxc", commands], cwd=tmp_path, env=env)
    assert {"double.safetensors", "doubled.nii.gz", "doubled.png"} <= set(os.listdir(tmp_path))
    assert "20x33x21x46x97" in text.replace(", ", "x")


def test_links_lead_somewhere():
    for page in ["README.md", "docs/demo.md", "CONTRIBUTING.md"]:
        path = TOP / page
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / link).exists(), "%s: %s" % (page, link)
