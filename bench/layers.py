"""Layers of bench/layers.txt: their arguments, work and bytes.

SPDX-License-Identifier: MIT
"""

import dataclasses
import math
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIRECTIONS = ("forward", "backward_input", "backward_weight")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One problem string; sizes are (depth, height, width)."""

    name: str
    text: str
    batch: int
    in_channels: int
    out_channels: int
    groups: int
    size: tuple
    kernel: tuple
    stride: tuple
    padding: tuple
    output_padding: tuple
    dilation: tuple
    bias: bool

    @property
    def out(self):
        return tuple(
            (i - 1) * s - 2 * p + d * (k - 1) + o + 1
            for i, k, s, p, o, d in zip(self.size, self.kernel, self.stride, self.padding,
                                        self.output_padding, self.dilation)
        )  # fmt: skip

    @property
    def input_shape(self):
        return (self.batch, self.in_channels, *self.size)

    @property
    def weight_shape(self):
        return (self.in_channels, self.out_channels // self.groups, *self.kernel)

    @property
    def output_shape(self):
        return (self.batch, self.out_channels, *self.out)

    @property
    def work(self):
        """Floating-point operations by the formula of layers.txt: cropped taps count."""
        return 2 * self.batch * math.prod(self.size) * math.prod(self.weight_shape)

    @property
    def useful(self):
        """Operations of the taps that land inside the output."""
        inside = 1
        for a in range(3):
            inside *= sum(
                0 <= i * self.stride[a] - self.padding[a] + k * self.dilation[a] < self.out[a]
                for i in range(self.size[a])
                for k in range(self.kernel[a])
            )
        return 2 * self.batch * self.in_channels * (self.out_channels // self.groups) * inside

    def bytes(self, direction):
        """(read, written): every tensor once, float32."""
        x, w, y = (4 * math.prod(s) for s in (self.input_shape, self.weight_shape,
                                              self.output_shape))  # fmt: skip
        return {"forward": (x + w, y), "backward_input": (y + w, x),
                "backward_weight": (x + y, w)}[direction]  # fmt: skip

    def products(self, direction):
        """K: the most products that one result of this direction is the sum of."""
        taps = 1
        for k, s, d in zip(self.kernel, self.stride, self.dilation):
            taps *= math.ceil(k * math.gcd(s, d) / s)
        return {"forward": self.in_channels // self.groups * taps,
                "backward_input": self.out_channels // self.groups * math.prod(self.kernel),
                "backward_weight": self.batch * math.prod(self.size)}[direction]  # fmt: skip


def parse(text, name=""):
    def field(key, default):
        match = re.search(rf"(?<![a-z]){key}(\d+(?:x\d+)*)", text)
        values = [int(v) for v in match[1].split("x")] if match else [default]
        return tuple(values * 3) if len(values) == 1 else tuple(values)

    return Layer(
        name=name,
        text=text,
        batch=field("n", 1)[0],
        in_channels=field("ci", 0)[0],
        out_channels=field("co", 0)[0],
        groups=field("g", 1)[0],
        size=field("i", 0),
        kernel=field("k", 0),
        stride=field("s", 1),
        padding=field("p", 0),
        output_padding=field("op", 0),
        dilation=field("d", 1),
        bias="nb" not in text,
    )


def read(path=ROOT / "bench/layers.txt"):
    lines = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r'([^#:]+):"(\w+)"', line)
        if match:
            lines[match[2]] = parse(match[1], match[2])
    return lines
