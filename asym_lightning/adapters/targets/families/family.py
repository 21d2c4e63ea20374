"""What a family of models is, and the registry of those there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from asym_lightning.adapters.rows import Rows

ROLES = ("q", "k", "v", "o", "mlp")
Layout = Callable[[int, Any], Mapping[str, Rows]]
"""Takes d_out of a fused layer and the model's config or, where it has none, the module in which the layer goes by the
name in ``fused``; gives the rows of its slices, none where they are not known."""


@dataclass(frozen=True)
class Family:
    """Which layers play which role in a family of models, and by what a model is known to be of it.

    Names are dotted suffixes of module names, in which ``*`` stands for any text within one component.

    >>> family = Family({"q": ["attn.to_q"], "v": ["attn.to_v"]}, heads=["head"], packages=["my_project.models"])
    >>> family.roles["q"]
    ['attn.to_q']

    Args:
        roles: Whole layers, by role: ``q``, ``k``, ``v``, ``o``, ``mlp``, or a role of one's own.
        fused: Layouts of fused projections, see :mod:`.layouts`.
        heads: Children that are new for a task and are trained in full.
        model_types: Values of ``model.config.model_type``, by which models of transformers are known.
        packages: Where a model's class is defined: a package, or a module in it.

    Raises:
        TypeError: A single name stands where a list of names has to.
    """

    roles: Mapping[str, Sequence[str]]
    fused: Mapping[str, Layout] = field(default_factory=dict)
    heads: Sequence[str] = ("classifier",)
    model_types: Sequence[str] = ()
    packages: Sequence[str] = ()

    def __post_init__(self) -> None:
        lists = {f"roles[{role!r}]": names for role, names in self.roles.items()}
        lists |= {"heads": self.heads, "model_types": self.model_types, "packages": self.packages}
        for name, value in lists.items():
            if isinstance(value, str):
                raise TypeError(f"`{name}` must be a list of names, got {value!r}.")


_BY_MODEL_TYPE: dict[str, Family] = {}
_BY_PACKAGE: dict[str, Family] = {}
_ROLES = dict.fromkeys(ROLES)

GENERIC = Family(
    {
        "q": ("q_proj", "query"),
        "k": ("k_proj", "key"),
        "v": ("v_proj", "value"),
        "o": ("o_proj", "attn.out_proj"),
        "mlp": ("gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
    },
    heads=("classifier", "score", "head", "ctc_head", "decode_head", "class_predictor"),
)
"""For models that no registered family knows."""


def register_family(family: Family) -> Family:
    """Make a family known; where two know the same model, the later one counts.

    >>> class Attention(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.to_q, self.to_v = nn.Linear(4, 4), nn.Linear(4, 4)
    >>> family = register_family(Family({"q": ["to_q"], "v": ["to_v"]}, heads=[], packages=[Attention.__module__]))
    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> [row.layer for row in inject_adapters(Attention(), AdapterConfig(rank=2, targets=["v"])).layers]
    ['to_v']

    Raises:
        ValueError: It has neither model types nor packages, so no model could be of it.
    """
    if not (family.model_types or family.packages):
        raise ValueError("A family needs `model_types` or `packages`, or no model is known to be of it.")
    _BY_MODEL_TYPE.update(dict.fromkeys(family.model_types, family))
    _BY_PACKAGE.update(dict.fromkeys(family.packages, family))
    _ROLES.update(dict.fromkeys(family.roles))
    return family


def family_of(module: nn.Module) -> Family | None:
    """The family that a module itself announces, or ``None`` where it announces none."""
    model_type = getattr(getattr(module, "config", None), "model_type", None)
    if model_type in _BY_MODEL_TYPE:
        return _BY_MODEL_TYPE[model_type]
    # The longest first, so that one for a part of a package counts before that for all of it.
    parts = type(module).__module__.split(".")
    paths = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    of_package = next((_BY_PACKAGE[path] for path in paths if path in _BY_PACKAGE), None)
    return of_package or (GENERIC if model_type else None)


def known_roles() -> tuple[str, ...]:
    """The roles that targets may name: the usual ones, and those that registered families add."""
    return tuple(_ROLES)
