"""Files of A's that were chosen once, for any run of the same backbone: a safetensors file with one tensor an A."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.files.backbone import backbone_sample, other_weight
from asym_lightning.adapters.files.described import read_described, save_described
from asym_lightning.adapters.layers.lookup import adapter_layers
from asym_lightning.core.messages import listed

METADATA_KEY = "asym_lightning_A"


@dataclass(frozen=True)
class ChosenA:
    """A's by the names that they are drawn by, and how they were chosen.

    Args:
        rule: The init rule.
        factors: (rank, d_in) by ``layer.slice``, or ``layer.shared`` where slices share one A.
        made_by: Whatever tells how: number of batches, seed, seconds.
        backbone: The first numbers of each layer's weight, by which a backbone is known again.
    """

    rule: str
    factors: Mapping[str, Tensor]
    made_by: Mapping[str, Any] = field(default_factory=dict)
    backbone: Mapping[str, list[float]] = field(default_factory=dict)


def save_chosen(chosen: ChosenA, path: str | Path) -> None:
    """Write the file, whole or not at all.

    Args:
        chosen: What to write.
        path: The file, by custom with the suffix ``.safetensors``.
    """
    description = {name: value for name, value in asdict(chosen).items() if name != "factors"}
    save_described(path, METADATA_KEY, chosen.factors, description)


def read_chosen(path: str | Path) -> ChosenA:
    """Read what :func:`save_chosen` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or holds something else.
    """
    return read_described(
        path,
        METADATA_KEY,
        lambda factors, description: ChosenA(factors=factors, **description),
        what="A's",
        writer="`asym-lightning calibrate`",
    )


def check_chosen(chosen: ChosenA, model: nn.Module, path: str | Path) -> None:
    """Check that a file of A's fits an adapted model: its backbone, its layers and slices, its ranks.

    Where the model is sharded every process has to call it.

    Args:
        chosen: What was read.
        model: An adapted model.
        path: Where it was read, for messages.

    Raises:
        ValueError: It does not fit; the message says what was expected and found.
    """
    for layer in adapter_layers(model).values():
        for adapter in layer.adapters.values():
            A = chosen.factors.get(adapter.A_key)
            if A is None:
                raise ValueError(
                    f"`{path}` has no A for `{adapter.A_key}`; it has those of {listed(sorted(chosen.factors), 3)}: "
                    "make it with the same `targets` and `share_a`."
                )
            if A.dim() != 2 or A.shape[1] != adapter.d_in:
                raise ValueError(
                    f"`{path}` is of another backbone: A of `{adapter.A_key}` should have rows of length "
                    f"{adapter.d_in}, found {tuple(A.shape)}."
                )
            if len(A) < adapter.rank:
                raise ValueError(
                    f"`{path}` has rank {len(A)} for `{adapter.A_key}`, and rank {adapter.rank} is asked for; make it "
                    f"with `rank` {adapter.rank} or more, of which fewer rows can be used."
                )
    here = backbone_sample(model)
    if (other := other_weight(here, chosen.backbone)) is not None:
        raise ValueError(
            f"`{path}` is of another backbone: the weight of `{other}` starts with {here[other][0]:.6g} here and with "
            f"{chosen.backbone[other][0]:.6g} there."
        )
