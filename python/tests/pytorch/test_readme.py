"""What the READMEs show in Python runs, block after block of a page.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

TOP = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("page, blocks", [("README.md", 1), ("python/README.md", 3)])
def test_blocks(page, blocks, capsys):
    found = re.findall(r"^```python\n(.*?)^```", (TOP / page).read_text(), re.M | re.S)
    assert len(found) == blocks
    if "onnx" in found[-1]:
        pytest.importorskip("onnx")
    names: dict = {}
    for block in found:
        exec(compile(block, page, "exec"), names)
    own = torch.nn.functional.conv_transpose3d
    x, weight = torch.from_numpy(names["x"]), torch.from_numpy(names["weight"])
    if page == "README.md":
        inside = own(x, weight, stride=2, padding=1)[:, :, 2:-2, 2:-2, 2:-2]
        assert (names["y"][:, :, 2:-2, 2:-2, 2:-2] == inside.numpy()).all()
    else:
        assert names["y"].shape == (1, 33, 20, 20, 20)  # 'SAME_UPPER': input times stride
    assert "1 swapped, 0 left" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["python/README.md"])
def test_links_lead_somewhere(page):
    path = TOP / page
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link
