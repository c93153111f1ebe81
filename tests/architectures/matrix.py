"""Architectures on which every analysis is tried, small where they have options for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """A name for `build_model`, the side of the images in pixels, options, and whether the default tests try it."""

    name: str
    side: int = 32
    options: dict[str, Any] = field(default_factory=dict)
    default: bool = False


_SHALLOW = {"img_size": 64, "depth": 2}
_THIN_NF_RESNET = {"channels": (8, 16, 16, 16), "depths": (1, 1, 1, 1), "stem_chs": 8, "group_size": 4}
_THIN_SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 24, "depths": (2, 2, 2, 1), "num_heads": (1, 2, 4, 8)}

MATRIX = (
    Architecture("fixup_resnet_small", 16, {"widths": [4, 8, 8]}, default=True),
    Architecture("resnet18"),
    Architecture("densenet121"),
    Architecture("squeezenet1_1", 64, default=True),
    Architecture("mobilenet_v2"),
    Architecture("mobilenet_v3_small", default=True),
    Architecture("efficientnet_b0"),
    Architecture("regnet_y_400mf"),
    Architecture("convnext_tiny"),
    Architecture("googlenet", 64),
    Architecture("inception_v3", 96),
    Architecture("shufflenet_v2_x0_5", default=True),
    Architecture("mnasnet0_5"),
    Architecture("swin_t", 64),
    Architecture("swin_v2_t", 64),
    Architecture("timm/nf_resnet26", 32, _THIN_NF_RESNET, default=True),
    Architecture("timm/lcnet_035", default=True),
    Architecture("timm/eca_nfnet_l0"),
    Architecture("timm/tf_efficientnet_b0"),
    Architecture("timm/convnextv2_atto", 32, {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, default=True),
    Architecture("timm/mixer_s32_224", 64, {"img_size": 64}),
    Architecture("timm/gmlp_s16_224", 64, {"img_size": 64}),
    Architecture("timm/resmlp_12_224", 64, {"img_size": 64}),
    Architecture("timm/vit_tiny_patch16_224", 64, _SHALLOW, default=True),
    Architecture("timm/deit_tiny_distilled_patch16_224", 64, _SHALLOW),
    Architecture("timm/beit_base_patch16_224", 64, _SHALLOW | {"embed_dim": 96, "num_heads": 3}, default=True),
    Architecture("timm/vit_tiny_r_s16_p8_224", 64, _SHALLOW),
    Architecture("timm/swin_tiny_patch4_window7_224", 64, _THIN_SWIN, default=True),
    Architecture("timm/swinv2_cr_tiny_224", 64, {"img_size": 64, "embed_dim": 24, "depths": (2, 2, 2, 1)}),
    Architecture("timm/cait_xxs24_224", 64, _SHALLOW),
    Architecture("timm/coat_lite_tiny", 64, {"img_size": 64}),
    Architecture("timm/pvt_v2_b0", 64),
    Architecture("timm/poolformer_s12", 64),
    Architecture("timm/convmixer_768_32", 32),
    Architecture("timm/tiny_vit_5m_224", 64),
    Architecture("timm/mobilevit_xxs", 64),
    Architecture("timm/ghostnet_050"),
    Architecture("timm/hrnet_w18_small", 64),
    Architecture("timm/dla46_c", 64),
    Architecture("timm/res2net50_14w_8s"),
    Architecture("timm/volo_d1_224", 64, {"img_size": 64}),
    Architecture("timm/xcit_nano_12_p16_224", 64, _SHALLOW),
    Architecture("timm/mvitv2_tiny", 64, {"img_size": 64}),
    Architecture("timm/edgenext_xx_small", 64),
    Architecture("timm/focalnet_tiny_srf", 64),
    Architecture("timm/davit_tiny", 64, {"embed_dims": (24, 48, 96, 192)}),
    Architecture("timm/visformer_tiny", 64, {"img_size": 64}),
    Architecture("timm/swiftformer_xs", 64),
    Architecture("timm/mambaout_femto", 64),
    Architecture("timm/mobilenetv4_conv_small"),
    Architecture("timm/inception_next_atto", 64, {"depths": (1, 1, 1, 1), "dims": (16, 32, 48, 64)}, default=True),
    Architecture("timm/resnetv2_50x1_bit"),
    Architecture("resnext50_32x4d"),
    Architecture("timm/efficientformer_l1", 224, {"depths": (1, 1, 1, 2), "embed_dims": (12, 24, 48, 96)}),
    Architecture("timm/levit_128s", 224),
    Architecture("efficientnet_v2_s"),
    Architecture("alexnet", 64),
    Architecture("timm/maxvit_rmlp_pico_rw_256", 64, {"img_size": 64}),
    Architecture("vit_b_32", 64, {"image_size": 64}),
    Architecture("timm/skresnet18"),
    Architecture("timm/vgg11_bn", 32, {"mlp_ratio": 0.0625}),
    Architecture("timm/tresnet_m", 64),
)
