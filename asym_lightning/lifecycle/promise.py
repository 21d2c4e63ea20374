"""What was promised to train and to stay, and whether it does."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from asym_lightning.adapters.layers.lookup import factors_by_name
from asym_lightning.core.dtensor import is_sharded
from asym_lightning.core.messages import listed
from asym_lightning.core.names import plain_name
from asym_lightning.core.samples import is_still, sample


class Promise:
    """Which parameters of a module train and which stay, as its layers were adapted.

    Callbacks, optimizers' makers and modules may all write `requires_grad`, and whoever does it last would win: frozen
    weights that train are in no adapter, and adapters that don't stay zero.

    Args:
        module: Its parameters go by their names.
        decided: The part of it in which all that is frozen now has to stay.
        trained: What has to train.
    """

    def __init__(self, module: nn.Module, decided: nn.Module, trained: Iterable[nn.Parameter]) -> None:
        inside, ours = {id(p) for p in decided.parameters()}, {id(p) for p in trained}
        named = [(plain_name(name), parameter) for name, parameter in module.named_parameters()]
        self._trained = {name for name, parameter in named if id(parameter) in ours}
        self._frozen = {name for name, p in named if id(p) in inside and not p.requires_grad}
        self._factors = {plain_name(name) for name in factors_by_name(module)}
        self._watched: list[tuple[str, nn.Parameter, bool]] = []
        self._samples: dict[str, Tensor] = {}

    def watch(self, module: nn.Module) -> None:
        """Look from now on at the parameters that the module has now; they may have been sharded since."""
        promised = self._trained | self._frozen
        named = ((plain_name(name), parameter) for name, parameter in module.named_parameters())
        self._watched = [(name, parameter, name in self._trained) for name, parameter in named if name in promised]

    def take_factors_as_they_are(self, module: nn.Module) -> None:
        """Expect of factors from now on what they do now."""
        for name, parameter in module.named_parameters():
            if (plain := plain_name(name)) in self._factors:
                (self._trained if parameter.requires_grad else self._frozen).add(plain)
                (self._frozen if parameter.requires_grad else self._trained).discard(plain)
        self.watch(module)

    def release(self) -> None:
        """Hold no parameters any longer; what was promised stays."""
        self._watched, self._samples = [], {}

    def check_who_trains(self) -> None:
        """Check that nobody has frozen or unfrozen anything.

        Raises:
            RuntimeError: Somebody has; the message names what.
        """
        changed = [(name, trains) for name, parameter, trains in self._watched if parameter.requires_grad != trains]
        if not changed:
            return
        unfrozen = [f"`{name}`" for name, trains in changed if not trains]
        if unfrozen:
            raise RuntimeError(
                f"Frozen parameters have been unfrozen, and would train without being in the adapter: "
                f"{listed(unfrozen, 3)}; name them in `heads` if they are to train, else leave out what unfreezes them."
            )
        frozen = [f"`{name}`" for name, _ in changed]
        raise RuntimeError(
            f"Parameters that are to train have been frozen: {listed(frozen, 3)}; leave out what freezes them, or "
            "freeze a factor by FreezeA."
        )

    def note_values(self) -> None:
        """Take what is frozen, but for factors, for what it has to remain."""
        self._samples = {name: sample(parameter) for name, parameter in self._kept()}

    def check_values(self) -> None:
        """Check that frozen weights are what they were at :meth:`note_values`, by some hundred numbers of each.

        Raises:
            RuntimeError: They are not; the message names some.
        """
        if not self._samples:
            return
        kept = dict(self._kept())
        moved = [f"`{n}`" for n, before in self._samples.items() if n in kept and not is_still(before, kept[n])]
        if moved:
            raise RuntimeError(
                f"{len(moved)} frozen parameters are not what they were when training began, so that no adapter would "
                f"fit what was trained: {listed(moved, 3)}; what writes to them has to be left out."
            )

    def _kept(self) -> Iterable[tuple[str, nn.Parameter]]:
        for name, parameter, trains in self._watched:
            is_readable = type(parameter) is nn.Parameter or is_sharded(parameter)  # not packed
            if not trains and name not in self._factors and is_readable and not parameter.is_meta:
                yield name, parameter


def refuse_other_deciders(trainer: Trainer, asking: Callback | None = None) -> None:
    """Refuse callbacks that decide what trains, as an injection does.

    Args:
        trainer: Its callbacks are looked at.
        asking: The callback in whose `setup` it is; None while none has been set up.

    Raises:
        ValueError: There is one, such as `BackboneFinetuning`.
    """
    callbacks = list(trainer.callbacks)  # type: ignore[attr-defined]  # it is set by a connector
    for number, callback in enumerate(callbacks):
        if hasattr(callback, "freeze_before_training") and hasattr(callback, "finetune_function"):
            has_frozen = asking is not None and number < callbacks.index(asking)
            rest = ", which it has frozen already, so build the module anew" if has_frozen else ""
            raise ValueError(
                f"{type(callback).__name__} freezes and unfreezes layers, and so do adapters, which train themselves "
                "and the `heads` while all else stays: leave that callback out, and name in `heads` what is to "
                f"train{rest}."
            )
