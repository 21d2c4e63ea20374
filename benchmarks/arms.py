"""The arms of the comparison: what each puts into the backbone and what trains it.

Every arm but full fine-tuning has its own copy of the model over one shared set of frozen weights.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from asym_lightning.adapters import AdapterConfig, inject_adapters, save_adapters
from asym_lightning.adapters.kernels.plan import PATHS
from asym_lightning.adapters.targets.find import find_targets
from asym_lightning.adapters.targets.heads import find_heads
from benchmarks.cells import TARGETS, Cell
from benchmarks.models import first_block

FLOOR = "floor"
ALPHA = 16
SPARSE_RULES = ("coordinate", "block")
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Arm:
    """One way to train the backbone.

    Attributes:
        name: What the tables call it.
        kind: ``floor``, ``full``, ``peft`` or ``ours``.
        has_dropout: Dropout on the adapter's input, at the run's probability.
        freezes_A: Only B trains.
        uses_lorafa: peft's LoRA-FA optimizer instead of AdamW.
        scheme: Of our adapter; ``None`` lets a frozen A start orthonormal and a trained one by peft's rule.
        options: More fields of :class:`AdapterConfig`.
        peft_config: Name of peft's configuration.
        is_whole: One adapter for a fused qkv, as peft has it, instead of one each for q, k and v.
    """

    name: str
    kind: str
    has_dropout: bool = False
    freezes_A: bool = False
    uses_lorafa: bool = False
    scheme: str | None = None
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    peft_config: str = "LoraConfig"
    is_whole: bool = False


def _arms() -> Iterator[Arm]:
    yield Arm(FLOOR, "floor")
    yield Arm("full", "full")
    yield Arm("peft-lora", "peft")
    yield Arm("peft-lora-dropout", "peft", has_dropout=True)
    yield Arm("peft-b-only", "peft", freezes_A=True)
    yield Arm("peft-b-only-dropout", "peft", has_dropout=True, freezes_A=True)
    yield Arm("peft-lorafa", "peft", freezes_A=True, uses_lorafa=True)
    yield Arm("ours-lora", "ours")
    yield Arm("ours-lora-dropout", "ours", has_dropout=True)
    yield Arm("ours-b-only", "ours", freezes_A=True)
    yield Arm("ours-b-only-dropout", "ours", freezes_A=True, has_dropout=True)
    yield Arm("ours-b-only-share-a", "ours", freezes_A=True, options={"share_a": True})
    yield Arm("ours-b-only-whole", "ours", freezes_A=True, is_whole=True)
    yield Arm("ours-b-only-dropout-whole", "ours", freezes_A=True, has_dropout=True, is_whole=True)
    yield Arm("peft-miss", "peft", freezes_A=True, peft_config="MissConfig")
    for rule in SPARSE_RULES:
        yield Arm(f"ours-b-only-{rule}", "ours", freezes_A=True, scheme=f"hB_zero_A_{rule}")
    for path in PATHS[1:]:
        yield Arm(f"ours-b-only-{path}", "ours", freezes_A=True, options={"path": path})


ARMS = {arm.name: arm for arm in _arms()}
GROUPS: dict[str, Sequence[str]] = {
    "short": [
        FLOOR, "peft-lora", "peft-lora-dropout", "peft-b-only", "ours-lora", "ours-b-only", "ours-b-only-dropout"
    ],
    "default": [
        FLOOR, "full", "peft-lora", "peft-lora-dropout", "peft-b-only", "peft-b-only-dropout", "peft-lorafa",
        "ours-lora", "ours-lora-dropout", "ours-b-only", "ours-b-only-dropout",
    ],
    "paths": [FLOOR, "ours-b-only", *(f"ours-b-only-{path}" for path in PATHS[1:])],
    "fused": [FLOOR, "peft-b-only", "ours-b-only", "ours-b-only-share-a", "ours-b-only-whole"],
    "sparse": [FLOOR, "peft-miss", "ours-b-only", *(f"ours-b-only-{rule}" for rule in SPARSE_RULES)],
    "cuda": [
        FLOOR, "peft-lora", "peft-lora-dropout", "peft-lorafa", "peft-miss", "ours-lora", "ours-b-only",
        "ours-b-only-dropout",
    ],
    "growth": [FLOOR, "peft-lora", "peft-lora-dropout", "ours-b-only", "ours-b-only-dropout"],
    "all": list(ARMS),
}  # fmt: skip


def select_arms(names: Sequence[str]) -> list[Arm]:
    """Arms by name or by group, in the order of :data:`ARMS`; the floor is always among them.

    Raises:
        ValueError: A name is neither an arm nor a group.
    """
    wanted = {FLOOR}
    for name in names:
        if name not in GROUPS and name not in ARMS:
            raise ValueError(
                f"Arm {name!r} is unknown; valid are the groups {', '.join(GROUPS)} and {', '.join(ARMS)}."
            )
        wanted.update(GROUPS.get(name, [name]))
    return [arm for name, arm in ARMS.items() if name in wanted]


def missing_peer(arm: Arm) -> str | None:
    """Why an arm can't be run here, if its package is not installed."""
    if arm.kind == "peft" and importlib.util.find_spec("peft") is None:
        return "peft is not installed (`pip install peft`)"
    return None


@dataclass
class Contender:
    """A model that is ready to be trained by one arm.

    Attributes:
        arm: The arm.
        model: Its model.
        inject_seconds: What putting the adapters in took.
        optimizer: ``None`` for the floor.
    """

    arm: Arm
    model: nn.Module
    inject_seconds: float
    optimizer: torch.optim.Optimizer | None = None

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters that train; none for the floor."""
        return [] if self.arm.kind == "floor" else [p for p in self.model.parameters() if p.requires_grad]


def prepare(arm: Arm, base: nn.Module, cell: Cell, dropout: float, *, compiles: bool = False) -> Contender:
    """Copy the backbone and turn the copy into what the arm trains.

    Args:
        arm: What to do.
        base: The backbone; its weights are shared, not copied, by all arms that keep them frozen.
        cell: Rank, targets and model.
        dropout: Probability for the arms that have dropout.
        compiles: The model will be compiled.
    """
    model = copy.deepcopy(base) if arm.kind == "full" else _copy_over_shared_weights(base)
    names = adapted_names(model, cell)
    if arm.kind == "peft":
        importlib.import_module("peft")  # not a part of the injection
    start = time.perf_counter()
    if arm.kind == "floor":
        _end_backward_at(first_block(cell, model), model, compiles=compiles)
    elif arm.kind == "full":
        model.requires_grad_(True)
    elif arm.kind == "peft":
        model = _add_peft(arm, model, names, cell.rank, dropout)
    else:
        _add_ours(arm, model, names if arm.is_whole else TARGETS[cell.targets], cell.rank, dropout)
    return Contender(arm, model, time.perf_counter() - start)


def make_optimizer(contender: Contender, cell: Cell, *, fused: bool) -> torch.optim.Optimizer | None:
    """AdamW on what trains, peft's own for the LoRA-FA arm, ``None`` for the floor."""
    if contender.arm.kind == "floor":
        return None
    if contender.arm.uses_lorafa:
        from peft.optimizers import create_lorafa_optimizer

        return create_lorafa_optimizer(contender.model, r=cell.rank, lora_alpha=ALPHA, lr=LEARNING_RATE)
    return torch.optim.AdamW(contender.trainable, lr=LEARNING_RATE, fused=fused)


def file_bytes(contender: Contender, *, compact: bool = False) -> int:
    """Bytes of the tensors' file that the arm writes; ``compact`` leaves out a frozen A that its seed gives back."""
    arm, model = contender.arm, contender.model
    if arm.kind == "floor":
        return 0
    if arm.kind == "full":
        return sum(p.nbytes for p in model.parameters())
    with tempfile.TemporaryDirectory() as directory:
        if arm.kind == "peft":
            model.save_pretrained(directory)
        else:
            save_adapters(model, directory, include_frozen=not compact)
        return sum(file.stat().st_size for file in Path(directory).glob("*.safetensors"))


def _copy_over_shared_weights(model: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, memo)


def _end_backward_at(block: nn.Module, model: nn.Module, *, compiles: bool) -> None:
    """Make the block's input the one thing that requires a gradient."""
    if compiles:
        # A new leaf would break the graph; one added number is fused into what is computed anyway.
        anchor = nn.Parameter(torch.zeros((), device=next(model.parameters()).device))
        model.register_parameter("anchor", anchor)

        def begin(x: torch.Tensor) -> torch.Tensor:
            return x + anchor.to(x.dtype)
    else:

        def begin(x: torch.Tensor) -> torch.Tensor:
            return x.detach().requires_grad_()

    block.register_forward_pre_hook(lambda module, args: (begin(args[0]), *args[1:]))


def adapted_names(model: nn.Module, cell: Cell) -> list[str]:
    """Full names of the layers that a cell adapts: the same ones for every arm."""
    config = AdapterConfig(targets=TARGETS[cell.targets])
    return [target.name for target in find_targets(model, config, find_heads(model, None)).targets]


def _add_ours(arm: Arm, model: nn.Module, targets: Sequence[str], rank: int, dropout: float) -> None:
    config = AdapterConfig(
        arm.scheme or ("hB_zero_A_rand" if arm.freezes_A else "hB_zero_hA_he"),
        rank=rank,
        alpha=ALPHA,
        dropout=dropout if arm.has_dropout else 0.0,
        targets=targets,
        **arm.options,
    )
    report = inject_adapters(model, config)
    # No arm trains a head: it would cost all of them the same and hide what differs.
    for head in report.heads:
        model.get_submodule(head).requires_grad_(False)


def _add_peft(arm: Arm, model: nn.Module, targets: list[str], rank: int, dropout: float) -> nn.Module:
    import peft

    modules = dict(model.named_modules())
    parameters = [name for name in targets if name not in modules]  # of experts
    # With an attention of torch's peft adapts its output too.
    layers = [n for n in targets if n in modules and not isinstance(modules[n], NonDynamicallyQuantizableLinear)]
    options: dict[str, Any] = {"r": rank, "target_modules": layers}
    if arm.peft_config == "LoraConfig":
        options |= {"lora_alpha": ALPHA, "target_parameters": parameters or None}
        options["lora_dropout"] = dropout if arm.has_dropout and not parameters else 0.0  # which it has none for
    adapted = peft.get_peft_model(model, getattr(peft, arm.peft_config)(**options))
    if arm.freezes_A:
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name or "lora_embedding_A" in name:
                parameter.requires_grad_(False)
    return adapted
