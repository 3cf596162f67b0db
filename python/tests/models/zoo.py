"""Models that nobody here wrote, with random weights: 3-D segmentation networks of MONAI and
of nnU-Net (dynamic_network_architectures), small for tests and in real sizes for timing.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks.nets import (
    UNETR,
    BasicUNet,
    DynUNet,
    SegResNetDS,
    SegResNetDS2,
    SwinUNETR,
    UNet,
    VNet,
)
from monai.networks.nets.mednext import MedNeXt
from monai.networks.nets.vista3d import VISTA3D, ClassMappingClassify, PointMappingSAM
from torch import Tensor

CLASSES = 3


class Prompted(torch.nn.Module):
    """VISTA3D with fixed prompts: two classes, and a click inside and one outside of each."""

    def __init__(self, filters: int, blocks: Tuple[int, ...]):
        super().__init__()
        encoder = SegResNetDS2(
            init_filters=filters, out_channels=filters, blocks_down=blocks, norm="instance"
        )
        self.vista = VISTA3D(
            encoder,
            ClassMappingClassify(n_classes=512, feature_size=filters),
            PointMappingSAM(feature_size=filters, n_classes=512),
        )
        self.register_buffer("classes", torch.tensor([[3], [20]]), persistent=False)
        self.register_buffer("inside", torch.tensor([[1, 0], [1, 0]]), persistent=False)

    def double(self) -> Prompted:
        """All but the position encoding, which MONAI computes in float32 always."""
        super().double()
        self.vista.point_head.pe_layer.float()
        return self

    def forward(self, image: Tensor) -> Tensor:
        deepest = torch.tensor(image.shape[-3:]) - 1
        points = torch.stack([deepest // 2, deepest // 4]).expand(2, 2, 3)
        result: Tensor = self.vista(
            image,
            class_vector=self.classes,
            prompt_class=self.classes,
            point_coords=points,
            point_labels=self.inside,
        )
        return result


def widths(filters: int, stages: int) -> List[int]:
    """nnU-Net's channels: doubled at each stage, up to ten times the first."""
    return [min(filters * 2**stage, filters * 10) for stage in range(stages)]


def nnunet(kind: Any, filters: int, **rest: Any) -> torch.nn.Module:
    """nnU-Net's default 3-D full-resolution network: 6 stages."""
    return kind(
        input_channels=1,
        n_stages=6,
        features_per_stage=widths(filters, 6),
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=[1] + [2] * 5,
        num_classes=CLASSES,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **rest,
    )


def plain_conv_unet(filters: int) -> torch.nn.Module:
    return nnunet(PlainConvUNet, filters, n_conv_per_stage=2, n_conv_per_stage_decoder=2)


def residual_encoder_unet(filters: int) -> torch.nn.Module:
    """nnU-Net's preset "ResEnc M", with deep supervision as in training."""
    return nnunet(
        ResidualEncoderUNet,
        filters,
        n_blocks_per_stage=[1, 3, 4, 6, 6, 6],
        n_conv_per_stage_decoder=1,
        deep_supervision=True,
    )


def dynunet(filters: int) -> torch.nn.Module:
    return DynUNet(
        3,
        in_channels=1,
        out_channels=CLASSES,
        kernel_size=[3] * 6,
        strides=[1] + [2] * 5,
        upsample_kernel_size=[2] * 5,
        filters=widths(filters, 6),
    )


def dynunet_thick(filters: int) -> torch.nn.Module:
    """Thick slices, as nnU-Net plans them: the first stages neither see nor halve the depth."""
    strides = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    return DynUNet(
        3,
        in_channels=1,
        out_channels=CLASSES,
        kernel_size=[(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=widths(filters, 5),
        deep_supervision=True,
        deep_supr_num=2,
        res_block=True,
        trans_bias=True,
    )


def basic_unet(filters: int) -> torch.nn.Module:
    features = [filters, filters, filters * 2, filters * 4, filters * 8, filters]
    return BasicUNet(3, in_channels=1, out_channels=CLASSES, features=features, upsample="deconv")


def unet(filters: int, residual_units: int = 0) -> torch.nn.Module:
    return UNet(
        3,
        in_channels=1,
        out_channels=CLASSES,
        channels=[filters * 2**stage for stage in range(5)],
        strides=[2] * 4,
        num_res_units=residual_units,
    )


def unetr(filters: int, size: int, hidden: int, heads: int) -> torch.nn.Module:
    return UNETR(
        in_channels=1,
        out_channels=CLASSES,
        img_size=size,
        feature_size=filters,
        hidden_size=hidden,
        mlp_dim=4 * hidden,
        num_heads=heads,
    )


def swin_unetr(filters: int, window: int = 7) -> torch.nn.Module:
    return SwinUNETR(1, CLASSES, feature_size=filters, window_size=window)


def vnet() -> torch.nn.Module:
    return VNet(3, in_channels=1, out_channels=CLASSES)


def segresnet(filters: int, blocks: Tuple[int, ...]) -> torch.nn.Module:
    return SegResNetDS(
        3,
        init_filters=filters,
        out_channels=CLASSES,
        blocks_down=blocks,
        dsdepth=2,
        upsample_mode="deconv",
    )


def mednext(filters: int) -> torch.nn.Module:
    """Size "S".  Its up-layers are depthwise, its heads transposed convolutions of size 1."""
    return MedNeXt(
        init_filters=filters,
        out_channels=CLASSES,
        kernel_size=3,
        deep_supervision=True,
        use_residual_connection=True,
    )


class Size(NamedTuple):
    """A patch (depth, height, width), and the arguments of Entry.make()."""

    patch: Tuple[int, int, int]
    arguments: Dict[str, Any]


def cube(edge: int, **arguments: Any) -> Size:
    return Size((edge, edge, edge), arguments)


class Entry(NamedTuple):
    """A model.

    Attributes:
        make: builds it.
        layers: how many ConvTranspose3d it has.
        small, real: its size in tests, and when it is timed.
    """

    make: Callable[..., torch.nn.Module]
    layers: int
    small: Size
    real: Size

    def build(self, real: bool = False) -> Tuple[torch.nn.Module, Tensor]:
        """The model, in training mode, and an input; always the same values."""
        patch, arguments = self.real if real else self.small
        torch.manual_seed(20)
        model = self.make(**arguments)
        return model, torch.randn(1, 1, *patch)


FIVE = (1, 1, 1, 1, 1)
BLOCKS = (1, 2, 2, 4, 4)
# The normalization of six stages needs more than one position after five halvings.
SLAB = Size((64, 64, 32), {"filters": 4})

ZOO: Dict[str, Entry] = {
    "BasicUNet": Entry(basic_unet, 4, cube(32, filters=8), cube(96, filters=32)),
    "UNet": Entry(unet, 4, cube(32, filters=4), cube(96, filters=16)),
    "UNet-residual": Entry(
        unet,
        4,
        cube(32, filters=4, residual_units=2),
        cube(96, filters=16, residual_units=2),
    ),
    "DynUNet": Entry(dynunet, 5, SLAB, cube(96, filters=32)),
    "DynUNet-thick-slices": Entry(
        dynunet_thick, 4, Size((8, 32, 32), {"filters": 4}), Size((16, 160, 160), {"filters": 32})
    ),
    "UNETR": Entry(
        unetr,
        10,
        cube(32, filters=4, size=32, hidden=48, heads=4),
        cube(96, filters=16, size=96, hidden=768, heads=12),
    ),
    "SwinUNETR": Entry(
        swin_unetr, 5, Size((64, 32, 32), {"filters": 12, "window": 4}), cube(96, filters=24)
    ),
    "VNet": Entry(vnet, 4, Size((32, 32, 16), {}), cube(96)),
    "SegResNetDS": Entry(
        segresnet, 4, cube(32, filters=8, blocks=FIVE), cube(96, filters=32, blocks=BLOCKS)
    ),
    "VISTA3D": Entry(
        Prompted, 9, cube(32, filters=8, blocks=FIVE), cube(64, filters=48, blocks=BLOCKS)
    ),
    "MedNeXt": Entry(mednext, 13, cube(32, filters=4), cube(64, filters=32)),
    "PlainConvUNet": Entry(plain_conv_unet, 5, SLAB, cube(96, filters=32)),
    "ResidualEncoderUNet": Entry(residual_encoder_unet, 5, SLAB, cube(96, filters=32)),
}


def tensors(output: Any) -> List[Tensor]:
    """A model's output as a list, whatever it is; deep supervision gives several."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in tensors(part)]


def transposed(model: torch.nn.Module) -> Dict[str, torch.nn.Module]:
    """The model's transposed convolutions by name."""
    kind = torch.nn.ConvTranspose3d
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}
