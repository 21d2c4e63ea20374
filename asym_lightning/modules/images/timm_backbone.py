"""timm models by name, from a local folder, or bundled with this package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import timm
from torch import nn

from asym_lightning.core.messages import did_you_mean, first_line, shown
from asym_lightning.modules.backbone_options import BackboneOptions

BUNDLED = Path(__file__).parents[2] / "pretrained"


def create_timm_backbone(source: str, num_classes: int, options: BackboneOptions = BackboneOptions()) -> nn.Module:
    """Build a timm model with a new head of `num_classes` outputs.

    Args:
        source: One of: the bundled `vit_digits`; a model name of timm, such as `vit_small_patch16_224.augreg_in21k`;
            a hub repository, `hf-hub:owner/name`; a local folder with timm's `config.json` and, if
            `options.pretrained`, `model.safetensors`.
        num_classes: Number of outputs of the head, which starts from random weights.
        options: How it is made; its `model_args` are arguments of the architecture.

    Raises:
        ValueError: If there is no such model or folder; the message suggests the nearest name.
        OSError: If the weights cannot be downloaded or read.

    Example:
        >>> model = create_timm_backbone("vit_digits", num_classes=3)
        >>> model.num_classes, model.patch_embed.num_patches
        (3, 16)
    """
    name = _timm_name(source)
    try:
        model = timm.create_model(name, pretrained=options.pretrained, **(options.model_args or {}))
    except TypeError as error:  # how timm's constructors refuse an argument
        raise ValueError(f"`model_args` {options.model_args} do not suit the backbone {source!r}: {error}.") from error
    except (OSError, RuntimeError) as error:  # none exist, no network, no such repository, an unreadable file
        if not options.pretrained:
            raise
        raise OSError(
            f"the weights of the backbone {source!r} could not be loaded ({' '.join(str(error).split())[:120]}): "
            "name a local folder that holds them, or set `pretrained: false` for random ones."
        ) from error
    except Exception as error:  # of any kind: what is in the folder goes straight into a constructor
        raise ValueError(f"the backbone {source!r} cannot be built: {first_line(error)[:120]}") from error
    # Always, because timm keeps the pretrained head where the number of classes happens to be the same.
    cast(Any, model).reset_classifier(num_classes)
    return model.to(options.dtype)


def bundled_backbones() -> list[str]:
    """Names of the pretrained backbones that ship with the package.

    >>> bundled_backbones()
    ['vit_digits']
    """
    return sorted(folder.parent.name for folder in BUNDLED.glob("*/config.json"))


def timm_folder(source: str) -> str | None:
    """The local folder or hub repository of a backbone; None for one that goes by timm's name.

    >>> timm_folder("vit_digits").endswith("vit_digits"), timm_folder("vit_tiny_patch16_224")
    (True, None)
    """
    scheme, _, place = _timm_name(source).partition(":")
    return place if scheme in ("local-dir", "hf-hub") else None


def _timm_name(source: str) -> str:
    """Return what `timm.create_model` calls the model, after checking that it exists."""
    if source in bundled_backbones():
        return f"local-dir:{BUNDLED / source}"
    if source.startswith("hf-hub:"):
        return source
    folder = Path(source.removeprefix("local-dir:"))
    if os.path.isdir(folder):
        if not (folder / "config.json").is_file():
            raise ValueError(f"the backbone folder {str(folder)!r} has no config.json in timm's format.")
        return f"local-dir:{folder}"
    if timm.is_model(source.split(".")[0]):
        return _with_known_tag(source)
    if source.startswith("local-dir:") or "/" in source:
        raise ValueError(f"there is no backbone folder {str(folder)!r}; for a hub repository write hf-hub:owner/name.")
    known = [*bundled_backbones(), *timm.list_models()]
    raise ValueError(f"there is no backbone named {shown(source)}{did_you_mean(source, known)}")


def _with_known_tag(name: str) -> str:
    architecture, _, tag = name.partition(".")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise ValueError(f"{architecture!r} has no pretrained weights tagged {tag!r}{did_you_mean(name, tagged)}")
    return name
