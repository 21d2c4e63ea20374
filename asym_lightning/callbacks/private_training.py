"""Train with differential privacy."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from asym_lightning.adapters import adapter_layers, adapters_by_name
from asym_lightning.analysis.sample_gradients import BatchGradients, SampleGradients
from asym_lightning.core.either_lightning import either
from asym_lightning.core.extras import check_installed
from asym_lightning.core.kinds import Positive, Range, Seed
from asym_lightning.core.messages import listed
from asym_lightning.core.names import plain_modules
from asym_lightning.core.options import CheckedArguments
from asym_lightning.lifecycle.backbone import refuse_fsdp1
from asym_lightning.lifecycle.loops import train_loaders
from asym_lightning.lifecycle.poisson_sampling import draw_by_chance, num_rows, rows_of, sample_rate
from asym_lightning.lifecycle.rehearsal import Rehearsal

NUM_CHECKED = 8  # samples that are trained on one at a time before the first step
RARE = 1e-6  # probability of what need not be provided for
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class PrivateTraining(CheckedArguments, Callback):
    """Train by DP-SGD: what the weights tell of any one training sample is bounded by epsilon and delta.

    The gradient of each sample is clipped to `max_grad_norm`, the sum gets Gaussian noise, and batches are drawn by
    chance. Noise, its size for the steps of the run and the account of what is spent are those of Opacus. The norm of a
    sample's gradient of B comes of `rank` numbers a token and the gradients at the layer's output, in the one backward
    pass of the batch; heads may train too.

    A sample is an element of the training data set. Every batch is a Poisson sample: each element is in it with
    the same probability, `batch_size / number of samples`, independently of the others, so batches differ in size and
    may be empty. That takes the place of the loader's own order. The loss has to be the mean of the samples' own
    losses; before the first step that is tried on a few samples, one at a time. What is logged of training
    data, such as the training loss, is not private, and neither are checkpoints to resume from.

    The account is in the checkpoint, and a resumed run goes on with it. A callback spends its epsilon once: a second
    fit that would spend more is refused.

    Args:
        epsilon: What may be spent when the run ends.
        delta: Probability with which more may be told; well below one over the number of samples.
        max_grad_norm: Norm that each sample's gradient is clipped to.
        accountant: How Opacus accounts: `prv` numerically, `rdp` by Renyi divergences, which finds more spent.
        seed: Seed of batches and noise. Whoever knows it knows the noise, so it is for tests; None takes one from the
            operating system and keeps it nowhere.

    Raises:
        ModuleNotFoundError: On start, if Opacus is missing.
        ValueError: On construction, if a number is out of its range; on start, if gradients of single samples are
            not known or are no such, A is chosen from data, or the run accumulates, uses several processes or
            optimizers, scales its loss, has no end, or its training data can't be drawn from.

    Example:
        >>> PrivateTraining(epsilon=3.0, delta=1e-5).max_grad_norm
        1.0

    Source: Abadi et al. 2016 (arXiv 1607.00133).
    """

    def __init__(
        self,
        epsilon: Positive,
        delta: Annotated[float, Range(0, 1, is_open_below=True, is_open_above=True)],
        max_grad_norm: Positive = 1.0,
        *,
        accountant: Literal["prv", "rdp"] = "prv",
        seed: Seed | None = None,
    ) -> None:
        super().__init__()
        self.epsilon, self.delta, self.max_grad_norm = epsilon, delta, max_grad_norm
        self.accountant, self.seed = accountant, seed
        self.noise_multiplier: float | None = None
        self._history: list[tuple[float, float, int]] = []
        self._sampling = torch.Generator()
        self._noise: torch.Generator | None = None
        self._noise_state: Tensor | None = None
        self._gradients: SampleGradients | None = None
        self._optimizer: Any = None
        self._of_batch: BatchGradients | None = None
        self._observing = ExitStack()

    # Lightning's hooks

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse the runs that can't be private; let batches be drawn by chance."""
        check_installed("opacus", needed_by=type(self).__name__)
        if stage != TrainerFn.FITTING:
            return
        _refuse_run(trainer, pl_module)
        self._sampling.manual_seed(secrets.randbits(63) if self.seed is None else self.seed)
        draw_by_chance(trainer, self._sampling)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the noise for the steps of the run, once gradients of single samples are known to be right."""
        # With the extra `private` alone.
        from opacus.accountants.utils import get_noise_multiplier
        from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping

        loaders = train_loaders(trainer)
        if len(loaders) != 1:
            raise ValueError(f"PrivateTraining draws from one training loader, and there are {len(loaders)}.")
        rate, num_samples = sample_rate(loaders[0]), len(loaders[0].dataset)
        num_steps = trainer.estimated_stepping_batches - trainer.global_step
        if num_steps == float("inf"):
            raise ValueError("PrivateTraining needs to know where the run ends: set `max_epochs` or `max_steps`.")
        num_steps = int(num_steps)
        self._gradients = SampleGradients(pl_module)
        _refuse_module(pl_module)
        self._check_samples(trainer, pl_module, may_be_empty=num_steps * (1 - rate) ** num_samples > RARE)
        if self.noise_multiplier is None:
            self.noise_multiplier = get_noise_multiplier(
                target_epsilon=self.epsilon,
                target_delta=self.delta,
                sample_rate=rate,
                steps=max(num_steps, 1),
                accountant=self.accountant,
            )
        in_the_end = self._epsilon_of([*self._history, (self.noise_multiplier, rate, num_steps)])
        if num_steps > 0 and in_the_end > self.epsilon:
            raise ValueError(
                f"PrivateTraining has spent an epsilon of {self.spent():.3g} and would have spent {in_the_end:.3g} "
                f"after {num_steps} more steps, more than `epsilon: {self.epsilon:g}`: train fewer steps, or take a "
                "larger epsilon."
            )
        self._noise = self._noise_generator(pl_module.device)
        self._optimizer = DPOptimizerFastGradientClipping(
            trainer.optimizers[0],
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=rate * num_samples,  # type: ignore[arg-type]  # it is only divided by
            generator=self._noise,
        )
        account = self._account(self._history)
        self._history = account.history
        self._optimizer.attach_step_hook(account.get_optimizer_hook_fn(rate))

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to observe the batch."""
        assert self._gradients is not None
        self._of_batch = self._observing.enter_context(self._gradients.observed(num_rows(batch)))

    @override
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the noisy sum of clipped gradients in the place of the batch's gradient; count the step."""
        assert self._of_batch is not None
        weights = (self.max_grad_norm / (self._of_batch.norms() + 1e-6)).clamp(max=1.0)
        for parameter, summed in self._of_batch.weighted_sums(weights):
            parameter.grad = summed
        self._observing.close()
        self._of_batch = None
        self._optimizer.pre_step()
        for parameter in self._optimizer.params:
            parameter.summed_grad = None

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is spent, as `privacy/epsilon`."""
        pl_module.log("privacy/epsilon", self.spent(), prog_bar=True, batch_size=1)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is spent."""
        self._release()
        rank_zero_info(
            f"The trained weights have an epsilon of {self.spent():.3g} at delta {self.delta:g}, by the accountant "
            f"{self.accountant} for Poisson samples, with noise of {self.noise_multiplier:.3g} times the largest norm."
        )

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Hold nothing of the run any longer."""
        self._release()

    @override
    def state_dict(self) -> dict[str, Any]:
        """The account: the noise, and how many steps were taken with which noise at which rate.

        Where noise is drawn by a known seed, also how far.
        """
        noise = None if self.seed is None or self._noise is None else self._noise.get_state()
        history = [[float(noise), float(rate), int(steps)] for noise, rate, steps in self._history]
        return {"noise_multiplier": self.noise_multiplier, "history": history, "noise": noise}

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore it."""
        self.noise_multiplier, self._noise_state = state_dict["noise_multiplier"], state_dict["noise"]
        self._history = [(noise, rate, steps) for noise, rate, steps in state_dict["history"]]

    # Parts

    def spent(self) -> float:
        """Epsilon that is spent so far."""
        return self._epsilon_of(self._history)

    def _epsilon_of(self, history: list[tuple[float, float, int]]) -> float:
        taken = [row for row in history if row[2] > 0]
        return float(self._account(taken).get_epsilon(self.delta)) if taken else 0.0

    def _account(self, history: list[tuple[float, float, int]]) -> Any:
        from opacus.accountants import create_accountant  # with the extra `private` alone

        account = create_accountant(self.accountant)
        account.history = list(history)
        return account

    def _noise_generator(self, device: torch.device) -> torch.Generator:
        seed = secrets.randbits(63) if self.seed is None else self.seed + 1
        generator = torch.Generator(device).manual_seed(seed)
        if self._noise_state is not None:
            generator.set_state(self._noise_state)
        return generator

    def _release(self) -> None:
        self._observing.close()
        self._of_batch = self._gradients = self._optimizer = None

    def _check_samples(self, trainer: Trainer, module: LightningModule, *, may_be_empty: bool) -> None:
        """Try on a few samples whether what is taken for their gradients is what each has alone.

        Raises:
            ValueError: It is not.
        """
        assert self._gradients is not None
        tolerance = 0.05 if "16" in str(trainer.precision) else 1e-3
        trained = self._gradients.parameters
        with Rehearsal(trainer, module) as rehearsal, _children_in_evaluation(module):
            batch = next(batch for batch in rehearsal.batches() if num_rows(batch) > 1)
            if may_be_empty:
                _try_empty(rehearsal, batch)
            samples = rows_of(batch, slice(NUM_CHECKED))
            count = num_rows(samples)
            with self._gradients.observed(count) as found:
                _backward(rehearsal, samples, trained)
            norms, sums = found.norms(), dict(found.weighted_sums(torch.full((count,), 1 / count)))
            for name, parameter in trained.items():
                if parameter.grad is None:
                    raise ValueError(
                        f"`{name}` gets no gradient in the training step and would learn noise alone: freeze it, or "
                        "name its layer in the adapter's `exclude`."
                    )
                if (sums[parameter] - parameter.grad).norm() > tolerance * norms.max():
                    raise ValueError(
                        f"`{name}` gets gradients that are not of calls of its layer, as where it is shared, read by "
                        "other code or compiled, so those of single samples are not known: freeze it."
                    )
            for number in range(count):
                _backward(rehearsal, rows_of(samples, slice(number, number + 1)), trained)
                alone = torch.stack([p.grad.float().norm() for p in trained.values() if p.grad is not None]).norm()
                if (alone - norms[number]).abs() > tolerance * norms.max():
                    raise ValueError(
                        f"A sample's gradient has norm {alone:.3g} alone and {norms[number]:.3g} in a batch of {count}:"
                        " samples have to be the first dimension of all that layers get, none may act on another, and "
                        "the loss has to be the mean of their losses, without weights of classes, mixup, or a mean "
                        "over all tokens."
                    )


def _refuse_run(trainer: Trainer, module: LightningModule) -> None:
    refuse_fsdp1(trainer)
    finders = (*either(LearningRateFinder), *either(BatchSizeFinder))
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
    reasons = {
        f"uses {trainer.world_size} processes: set `trainer.devices: 1`": trainer.world_size > 1,
        "accumulates gradients: set `trainer.accumulate_grad_batches: 1` and a larger `batch_size`": (
            trainer.accumulate_grad_batches != 1
            or any(isinstance(c, either(GradientAccumulationScheduler)) for c in callbacks)
        ),
        "scales its loss: set `trainer.precision` to bf16-mixed or 32": (
            getattr(trainer.precision_plugin, "scaler", None) is not None
        ),
        "tries rates or sizes on the training data, which is not accounted for: leave the finder out": any(
            isinstance(c, finders) for c in callbacks
        ),
        "steps its optimizers by itself": not module.automatic_optimization,
    }
    for reason, applies in reasons.items():
        if applies:
            raise ValueError(f"Private training has to know each step's samples, and this run {reason}.")


def _refuse_module(module: LightningModule) -> None:
    if any(layer.adapters.config.dropout for layer in adapter_layers(module).values()):
        raise ValueError(
            "What an adapter's dropout leaves of a sample is not known to private training: set `adapter.dropout: 0`."
        )
    drawn = [
        f"`{name}`"
        for name, adapter in adapters_by_name(module).items()
        if adapter.scheme.A.rule.needs_data or adapter.scheme.B.rule.needs_data
    ]
    if drawn:
        raise ValueError(
            f"{listed(drawn, 2)} is drawn from the training data, which is not accounted for: use a scheme whose A "
            "needs none, such as 'hB_zero_A_rand'."
        )
    statistics = [
        f"`{name}`"
        for name, layer in plain_modules(module)
        if layer.training and (isinstance(layer, _BATCH_NORMS) or getattr(layer, "track_running_stats", False))
    ]
    if statistics:
        raise ValueError(
            f"{listed(statistics, 2)} computes with statistics of the batch in training, so no sample has a gradient "
            "of its own: freeze it, or use nn.GroupNorm."
        )


def _backward(rehearsal: Rehearsal, batch: Any, trained: Mapping[str, nn.Parameter]) -> None:
    for parameter in trained.values():
        parameter.grad = None
    rehearsal.loss(batch, 0).backward()


def _try_empty(rehearsal: Rehearsal, batch: Any) -> None:
    try:
        rehearsal.loss(rows_of(batch, slice(0)), 0).backward()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"A batch that is drawn by chance may be of no sample, and then the step fails ({error}): take a larger "
            "`batch_size`."
        ) from error


@contextmanager
def _children_in_evaluation(module: nn.Module) -> Iterator[None]:
    """Without dropout, but for a module that trains: its loss is that of training."""
    modes = [(child, child.training) for child in module.modules() if child is not module]
    for child, _ in modes:
        child.training = False
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode
