"""What trains: B on A's of every rule, chains, LoRA, all, and `peft`'s own methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning.pytorch import Callback
from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, init_rule, register_init
from asym_lightning.adapters.init.subspaces import whitened_gradient_directions
from asym_lightning.callbacks import CalibrateA, FreezeA, RedrawA
from benchmarks.frozen_a.peft_methods import PeftMethod

RANK = 8
B_ONLY = "hB_zero_A_rand"
NUM_LINKS = 4


@register_init
class White(InitRule):
    """What `whitened_gradient` has before its rows are made orthonormal: ``A x`` is white."""

    name = "white"
    needs_data = True

    def rows(self, draw: Draw) -> Tensor:
        """Rows of Frobenius norm sqrt(rank)."""
        assert draw.statistics is not None
        gradients, inputs = draw.statistics.weight_gradients(), draw.statistics.inputs
        return whitened_gradient_directions(gradients, inputs, draw.rank)


@dataclass(frozen=True)
class Arm:
    """One arm.

    Args:
        name: In the tables.
        scheme: Of our adapter; None for arms without one.
        rule: By which an A was chosen that is frozen all the time.
        rank: Of the adapter; None means that by which LoRA has as many trained numbers as B alone has at rank 8.
        callbacks: Makes them for a run of so many steps, on a task whose heads want so many steps before calibration.
        trains_all: Train the whole backbone.
        peft: For arms of that package.
        rate_factor: Its rates are the task's times this.
    """

    name: str
    scheme: str | None = None
    rule: str | None = None
    rank: int | None = RANK
    callbacks: Callable[[int, int], Sequence[Callback]] = lambda num_steps, head_steps: ()
    trains_all: bool = False
    peft: PeftMethod | None = None
    rate_factor: float = 1.0


def frozen(name: str, rule: str, rank: int = RANK) -> Arm:
    """B on an A of a rule: drawn with the adapter, or chosen from data before the first step."""
    if init_rule(rule).needs_data:
        calibrate = lambda num_steps, head_steps: (CalibrateA(rule, head_steps=head_steps),)  # noqa: E731
        return Arm(name, B_ONLY, rule, rank, calibrate)
    return Arm(name, f"hB_zero_A_{rule}", rule, rank)


def _chained(num_steps: int, head_steps: int) -> Sequence[Callback]:
    return (RedrawA(NUM_LINKS, every_n_steps=max(num_steps // NUM_LINKS, 1)),)


def _warm(num_steps: int, head_steps: int) -> Sequence[Callback]:
    return (FreezeA(after_fraction=0.1, orthonormalize=True),)


ARMS = {
    arm.name: arm
    for arm in (
        frozen("B, whitened gradient", "whitened_gradient"),
        frozen("B, random", "rand"),
        Arm("LoRA", "hB_zero_hA_he"),
        Arm("LoRA, equal numbers", "hB_zero_hA_he", rank=None),
        frozen("B, gradient", "gradient"),
        frozen("B, inputs", "inputs"),
        frozen("B, whitened, not orthonormal", "white"),
        frozen("B, coordinates", "coordinate"),
        frozen("B, blocks", "block"),
        Arm("B, chain of 4, rank 2 each", B_ONLY, rank=2, callbacks=_chained),
        Arm("A", "B_rand_hA_zero"),
        Arm("peft LoRA", peft=PeftMethod(adapts_convolutions=True)),
        Arm("peft MiSS", peft=PeftMethod("MissConfig"), rate_factor=0.5),
        Arm("peft LoRA-FA", peft=PeftMethod(freezes_A=True)),
        Arm("B, A warm for a tenth", "hB_zero_hA_rand", callbacks=_warm),
        Arm("all", trains_all=True, rate_factor=0.1),
        Arm("peft PiSSA", peft=PeftMethod(options={"init_lora_weights": "pissa"})),
        Arm("peft DoRA", peft=PeftMethod(options={"use_dora": True}, adapts_convolutions=True)),
        Arm("peft EVA", peft=PeftMethod(options={"init_lora_weights": "eva"})),
        Arm("head", rate_factor=10),
    )
}
