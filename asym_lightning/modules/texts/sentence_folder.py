"""What sentence-transformers writes beside a model: how its tokens become one vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import cached_file

from asym_lightning.core.files import read_json, write_json
from asym_lightning.core.messages import listed, shown
from asym_lightning.modules.texts.token_pooling import Pooling, pooled

MODULES = "modules.json"
_FLAGS: Mapping[Pooling, str] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}
_NAMES: Mapping[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_TYPE = "sentence_transformers.models"


@dataclass(frozen=True)
class SentenceLayout:
    """How a text's vector is made of those of its tokens.

    Args:
        pooling: Of which tokens.
        normalize: Whether it is made of length 1.
    """

    pooling: Pooling = "mean"
    normalize: bool = True

    def vectors(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the vectors (texts, width) of hidden states (texts, length, width), in float32 at least.

        >>> states, mask = torch.tensor([[[3.0, 4.0], [9.0, 9.0]]]), torch.tensor([[1, 0]])
        >>> SentenceLayout().vectors(states, mask)
        tensor([[0.6000, 0.8000]])
        """
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        vectors = pooled(states, attention_mask, self.pooling)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    @classmethod
    def of(cls, source: str | None, pooling: Pooling | None, normalize: bool | None) -> SentenceLayout:
        """Return what is asked for, and in place of None what a model of sentence-transformers has, or the defaults.

        Args:
            source: Name on the hub or local folder of the model; None where it is known by no name.
            pooling: Of which tokens.
            normalize: Whether vectors are made of length 1.

        Raises:
            ValueError: If that model has what is not known here.
        """
        asks = source is not None and None in (pooling, normalize)
        own = (read_layout(str(source)) if asks else None) or cls()
        return cls(pooling or own.pooling, own.normalize if normalize is None else normalize)

    def write(self, width: int, folder: Path) -> None:
        """Write the files by which a folder with a model is one of sentence-transformers.

        Args:
            width: Of the vectors.
            folder: Where the model is.
        """
        parts = [("", "Transformer"), ("1_Pooling", "Pooling"), *[("2_Normalize", "Normalize")] * self.normalize]
        modules = [{"idx": i, "name": str(i), "path": p, "type": f"{_TYPE}.{t}"} for i, (p, t) in enumerate(parts)]
        for path, _ in parts[1:]:
            (folder / path).mkdir(exist_ok=True)
        flags = {flag: self.pooling == pooling for pooling, flag in _FLAGS.items()}
        write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags})
        write_json(folder / MODULES, modules)


def read_layout(source: str) -> SentenceLayout | None:
    """Read the layout of a model of sentence-transformers; None where a model is none of it.

    Args:
        source: Name on the hub or local folder.

    Raises:
        ValueError: If it has what is not known here, such as a dense layer on top.
    """
    modules = _read(source, MODULES)
    if modules is None:
        return None
    if not isinstance(modules, list) or not all(isinstance(part, dict) for part in modules):
        raise ValueError(f"`{MODULES}` of {source!r} must be a list of mappings, not {shown(modules)}.")
    paths = {str(part.get("type")).rpartition(".")[2]: str(part.get("path")) for part in modules}
    if unknown := [name for name in paths if name not in ("Transformer", "Pooling", "Normalize")]:
        raise ValueError(
            f"{source!r} is a model of sentence-transformers with {listed(unknown, 3)}, which is not known here: a "
            "Transformer, Pooling and Normalize are."
        )
    if paths.get("Transformer"):
        raise ValueError(
            f"{source!r} keeps its model in the folder {paths['Transformer']!r}: name that as the `backbone`, and say "
            "`pooling` and `normalize`."
        )
    config = _read(source, f"{paths['Pooling']}/config.json") if "Pooling" in paths else {}
    if not isinstance(config, Mapping):
        raise ValueError(f"the config of Pooling in {source!r} must be a mapping, not {shown(config)}.")
    return SentenceLayout(_pooling(source, config), "Normalize" in paths)


def _pooling(source: str, config: Mapping[str, Any]) -> Pooling:
    """Of one config: versions before 6 have a flag for each way, later ones a name."""
    flags = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    given = config.get("pooling_mode") or (flags[0] if len(flags) == 1 else flags) or "mean"
    by_name = {**_NAMES, **{flag: pooling for pooling, flag in _FLAGS.items()}}
    if not isinstance(given, str) or given not in by_name:
        raise ValueError(
            f"{source!r} makes one vector of its tokens by {shown(given)}; known here are "
            f"{', '.join(get_args(Pooling))}: say `pooling`."
        )
    return by_name[given]


def _read(source: str, name: str) -> Any:
    """A file of JSON; None where the model has none of that name."""
    try:
        path = cached_file(source, name)
    except OSError as error:
        if error.__cause__ is None:
            return None
        raise ValueError(
            f"`{name}` of {source!r} is not in the cache and the hub does not answer: say `pooling` and `normalize`."
        ) from error
    return read_json(str(path))
