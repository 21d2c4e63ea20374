"""A small model of random weights for every module of timm, and for other kinds of attention in some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
from timm.models import _registry

from benchmarks.coverage.subject import Call, Subject

NUM_CLASSES, BATCH = 5, 2
_SMALL = ("test_", "atto", "femto", "pico", "nano", "xxt", "xxs", "xtiny", "xs", "tiny", "_t", "mini", "small", "_s")
# A second architecture in a module whose smallest model is another one.
_MORE = (
    "beitv2_base_patch16_224", "vit_base_patch16_rope_224", "eva02_tiny_patch14_224", "maxvit_rmlp_pico_rw_256",
    "coatnet_pico_rw_224", "coatnext_nano_rw_224", "maxxvit_rmlp_nano_rw_256", "maxvit_tiny_tf_224", "gmlp_ti16_224",
    "resmlp_12_224", "mobilevitv2_050", "efficientvit_l1", "poolformer_s12", "convformer_s18", "caformer_s18",
    "halonet26t", "botnet26t_256", "lambda_resnet26t", "sehalonet33ts", "swin_s3_tiny_224",
    "vit_srelpos_small_patch16_224",
    "coat_lite_tiny", "twins_pcpvt_small", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224",
    "ghostnetv2_100", "fastvit_sa12", "fastvit_mci0", "convnextv2_atto", "vit_tiny_r_s16_p8_224", "flexivit_small",
    "vit_small_patch16_18x2_224", "mobilenetv4_hybrid_medium",
    "naflexvit_base_patch16_par_gap", "hiera_small_abswin_256", "xcit_nano_12_p16_224", "resnet50", "seresnet50",
    "levit_conv_128s", "tnt_s_patch16_224", "crossvit_9_dagger_240", "vit_base_patch16_siglip_224",
)  # fmt: skip


def names() -> Sequence[str]:
    """The smallest model of each module, by its name, and a few more."""
    smallest = [min(entries, key=_size) for _, entries in sorted(_registry._module_to_models.items())]
    return [*smallest, *(name for name in _MORE if name not in smallest)]


def subject(name: str) -> Subject:
    """The model and images that it takes.

    Raises:
        RuntimeError: It takes none of the sizes that were tried.
    """
    reasons = []
    for arguments in _arguments():
        size = arguments.pop("size", None)
        try:
            torch.manual_seed(0)
            model = timm.create_model(name, num_classes=NUM_CLASSES, **arguments)
            size = size or model.default_cfg["input_size"][-1]  # type: ignore[index]
            call = Call("forward", {"x": torch.randn(BATCH, model.default_cfg["input_size"][0], size, size)})
            with torch.no_grad():
                model.eval().forward(call.arguments["x"])
            return Subject(name, model, [call])
        except Exception as error:  # what a model takes is found by trying
            reasons.append(f"{type(error).__name__}: {error}")
    raise RuntimeError(reasons[-1])


def _arguments() -> Iterator[dict[str, Any]]:
    yield {"depth": 2, "img_size": 96, "size": 96}
    yield {"depth": 2, "size": 96}
    yield {"depth": 2}
    yield {"img_size": 96, "size": 96}
    yield {"size": 96}
    yield {}


def _size(name: str) -> tuple[int, int, str]:
    return next((i for i, word in enumerate(_SMALL) if word in name), len(_SMALL)), len(name), name
