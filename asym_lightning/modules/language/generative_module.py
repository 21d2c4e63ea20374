"""What summarisation and instruction tuning have in common: a language model that is trained, and then writes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import NumberOrZero
from asym_lightning.core.options import from_plain
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.language.decoding import Decoding, decoded
from asym_lightning.modules.language.language_module import LanguageModule
from asym_lightning.modules.language.samples_file import Sample, log_samples, write_jsonl
from asym_lightning.modules.metrics.token_accuracy import TokenAccuracy
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule

EvaluationStage = Literal["val", "test"]
NUM_LOGGED = 8


class GenerativeModule(LanguageModule):
    """A language model whose texts are generated and judged in evaluation, beside the loss of the right ones.

    Logs `loss` and `token_accuracy` of the reference texts, each weighted by tokens, and what `build_text_metric`
    returns of the generated ones, for the first `num_val_samples` or `num_test_samples` rows. The first few samples go
    to `samples/` in the run's directory and to loggers that show text. `predict` generates a text for every row and
    writes them all to a jsonl file in the run's directory.

    A task is a subclass with `step`, `prompts`, `build_text_metric` and the class attributes.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a model
            of transformers.
        adapter: The adapter to inject; None trains everything, which needs `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter` to be None.
        decoding: How texts are generated; None means greedily, at most 64 tokens.
        num_val_samples: Number of rows that texts are generated for in validation; None means all, 0 none.
        num_test_samples: The same in testing.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; None keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well, or a number is negative.
    """

    sample_keys: ClassVar[tuple[str, str, str]]
    """Names of the given text, the reference and the generated text in samples."""

    def __init__(
        self,
        backbone: str | nn.Module,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        decoding: Decoding | None = None,
        num_val_samples: NumberOrZero | None = 64,
        num_test_samples: NumberOrZero | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(
            backbone=backbone,
            adapter=adapter,
            train_backbone=train_backbone,
            optimizer=optimizer,
            scheduler=scheduler,
            backbone_options=backbone_options,
        )
        self.decoding: Decoding = from_plain(Decoding, decoding) or Decoding()
        self.num_samples = {"val": num_val_samples, "test": num_test_samples}
        self._samples: list[Sample] = []
        self._num_generated = 0  # of the metrics' own count a GPU would be waited for

    # What a task defines

    @abstractmethod
    def prompts(self, batch: dict[str, Any]) -> Mapping[str, Any]:
        """Return what the model is given to write on from: `input_ids` and `attention_mask`, or what it takes else."""

    @abstractmethod
    def build_text_metric(self) -> Metric:
        """Return a metric that compares lists of texts: `update(generated, references)`; it counts `num_empty`."""

    def texts(self, batch: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Return given texts and references; the data module's own where they are in the batch, else decoded tokens."""
        source = batch.get("source") or self.decode(self.prompts(batch)["input_ids"])
        if "reference" in batch:
            return source, batch["reference"]
        labels = batch.get("labels")
        return source, [""] * len(source) if labels is None else self.decode(labels)

    # Building

    def configure_model(self) -> None:
        """Build the backbone, inject the adapter and make the metrics; a second call does nothing."""
        if hasattr(self, "backbone"):
            return
        super().configure_model()
        self.val_text_metric = self.build_text_metric()
        self.test_text_metric = self.build_text_metric()

    def build_metrics(self) -> MetricCollection:
        """Return the share of the reference's tokens that are the most likely ones."""
        return MetricCollection({"token_accuracy": TokenAccuracy()})

    # Generating

    def generate(self, inputs: Mapping[str, Any]) -> list[str]:
        """Generate a text for each row; only what is new is returned."""
        # Where blocks are gathered for each token, no process may stop before the others.
        synced = {"synced_gpus": self.device_mesh is not None}
        return self.decode(self.decoding.new_tokens(self.backbone, inputs, self.pad_token_id, **synced))

    def decode(self, ids: Tensor) -> list[str]:
        """Return texts without special tokens; positions of -100 are left out."""
        return decoded(ids, self.tokenizer)

    # Evaluation

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log `val/loss` and the metrics over the epoch, and generate the first texts."""
        self._step_and_log("val", batch)
        self._generate_samples("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log `test/loss` and the metrics over the epoch, and generate texts."""
        self._step_and_log("test", batch)
        self._generate_samples("test", batch)

    def on_validation_epoch_start(self) -> None:
        """Forget the samples of the last epoch."""
        self._samples, self._num_generated = [], 0

    def on_test_epoch_start(self) -> None:
        """Forget the samples of the last epoch."""
        self._samples, self._num_generated = [], 0

    def on_validation_epoch_end(self) -> None:
        """Log the scores of generated texts, and some of the texts."""
        self._log_texts("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of generated texts, and some of the texts."""
        self._log_texts("test")

    def _text_metric(self, stage: EvaluationStage) -> Any:
        return getattr(self, f"{stage}_text_metric")

    def _generate_samples(self, stage: EvaluationStage, batch: dict[str, Any]) -> None:
        count = len(next(iter(batch.values())))
        limit = self.num_samples[stage]
        if limit is not None:
            count = min(count, math.ceil(limit / self.trainer.world_size) - self._num_generated)
        if count < 1:
            return
        samples = self.samples({name: value[:count] for name, value in batch.items()})
        _, reference, generated = self.sample_keys
        self._text_metric(stage).update(
            [str(sample[generated]) for sample in samples], [str(sample[reference]) for sample in samples]
        )
        self._num_generated += count
        self._samples += samples[: NUM_LOGGED - len(self._samples)]

    def samples(self, batch: dict[str, Any]) -> list[Sample]:
        """Generate a text for each row and put it beside what was given and what was expected."""
        generated = self.generate(self.prompts(batch))
        rows = zip(*self.texts(batch), generated, strict=True)
        return [dict(zip(self.sample_keys, row, strict=True)) for row in rows]

    def _log_texts(self, stage: EvaluationStage) -> None:
        metric = self._text_metric(stage)
        if not metric.update_called:
            return
        values = {f"{stage}/{name}": value for name, value in metric.compute().items()}
        # All processes hold the same values by now; `sync_dist` only keeps Lightning from warning that they might not.
        self.log_dict(values, prog_bar=True, sync_dist=True)
        if metric.num_empty:
            total = int(metric.num_texts)
            rank_zero_warn(f"{int(metric.num_empty)} of {total} texts generated in {stage} are empty and score 0.")
        metric.reset()
        path = self.run_directory / "samples" / f"{stage}_step_{self.global_step}.jsonl"
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            write_jsonl(path, self._samples)
            log_samples(self.trainer.loggers, f"{stage}/samples", self._samples, self.global_step)

    # Prediction

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Sequence[Sample]:
        """Generate a text for each row."""
        return self.samples(batch)

    def prediction_rows(self, prediction: Sequence[Sample], batch: Any, identifiers: Sequence[str]) -> Sequence[Row]:
        """Return the samples as they are."""
        return prediction
