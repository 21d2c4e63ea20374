"""Speech to text with any Hugging Face model of it: encoders with CTC, and encoder-decoders such as Whisper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torchmetrics import MetricCollection

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import NumberOrZero
from asym_lightning.modules.audio.ctc import LENGTHS, CTCLengths, ctc_loss, likeliest_tokens
from asym_lightning.modules.audio.example_clips import example_speech
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.language.decoding import Decoding
from asym_lightning.modules.language.generative_module import GenerativeModule
from asym_lightning.modules.metrics.transcript_errors import TranscriptErrors
from asym_lightning.modules.prepared_batches import PreparedBatches
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule

INPUTS = ("input_values", "input_features", "attention_mask")


class SpeechRecognizer(PreparedBatches, GenerativeModule):
    """Write down what is said: wav2vec2, HuBERT or WavLM with CTC, or Whisper and its like.

    Batches are dictionaries with `input_values` (batch, samples) or `input_features` (batch, ...), as the model's
    feature extractor makes them, `attention_mask` (batch, samples) if the model takes one, `labels` (batch, length),
    the transcripts' tokens and -100 behind them, and for evaluation the texts `file` and `reference`.

    Logs `loss`, of encoder-decoders `token_accuracy`, and of the transcripts `wer` and `cer`: the errors in words and
    in characters, by the number of those there are. `predict` writes `transcripts.jsonl` with `file`, `reference` and
    `transcript`. A text that CTC has no time to say, for its clip is too short, teaches nothing.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a model.
        adapter: The adapter to inject; null trains the head of CTC alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        decoding: How encoder-decoders write; null means greedily, at most 224 tokens.
        num_val_samples: Number of clips that are written down in validation; null means all, 0 none.
        num_test_samples: The same in testing.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well, or a number is out of range.

    Example:
        >>> from transformers import Wav2Vec2Config, Wav2Vec2ForCTC
        >>> config = Wav2Vec2Config(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        ...     intermediate_size=8, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8),
        ...     num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
        >>> module = SpeechRecognizer(Wav2Vec2ForCTC(config), adapter=AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> batch = {"input_values": torch.randn(2, 400), "labels": torch.tensor([[1, 2], [3, -100]])}
        >>> bool(module.eval().step(batch).loss > 0)
        True
    """

    architecture = "speech"
    sample_keys = ("file", "reference", "transcript")
    predictions_file = "transcripts.jsonl"

    def __init__(
        self,
        backbone: str | nn.Module,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        decoding: Decoding | None = None,
        num_val_samples: NumberOrZero | None = None,
        num_test_samples: NumberOrZero | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(
            backbone=backbone, adapter=adapter, train_backbone=train_backbone,
            decoding=decoding or Decoding(max_new_tokens=224), num_val_samples=num_val_samples,
            num_test_samples=num_test_samples, optimizer=optimizer, scheduler=scheduler,
            backbone_options=backbone_options,
        )  # fmt: skip

    def build_backbone(self, source: str | nn.Module) -> nn.Module:
        """Build the model; one that is given is used as it is."""
        model = super().build_backbone(source)
        config: Any = model.config
        self.is_ctc = not config.is_encoder_decoder
        self._start, self._blank = getattr(config, "decoder_start_token_id", None), config.pad_token_id
        return model

    def build_metrics(self) -> MetricCollection:
        """Return the share of tokens that are the most likely ones; of CTC, which aligns none, nothing."""
        return MetricCollection({}) if self.is_ctc else super().build_metrics()

    def build_text_metric(self) -> TranscriptErrors:
        """Return the errors in words and in characters."""
        return TranscriptErrors()

    def prepared(self, batch: Any) -> Any:
        """Count what CTC needs to know of lengths, or leave out the token that an encoder-decoder puts first itself."""
        if not isinstance(batch, Mapping) or "labels" not in batch or LENGTHS in batch:
            return batch
        if self.is_ctc:
            return {**batch, LENGTHS: CTCLengths.of(self.backbone, batch)}
        starts_all = bool((batch["labels"][:, 0] == self._start).all())
        return {**batch, "labels": batch["labels"][:, 1:]} if starts_all else batch

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the mean loss of the transcripts: of alignments by CTC, or of tokens."""
        inputs, labels = self._inputs(batch), batch["labels"]
        if not self.is_ctc:
            output = self(**inputs, labels=labels)
            return StepOutput(output.loss, output.logits.argmax(dim=-1), labels)
        logits = self(**inputs).logits
        loss = ctc_loss(logits, labels, self.prepared(batch)[LENGTHS], self._blank)
        return StepOutput(loss, logits.argmax(dim=-1), labels)

    def example_batch(self, shape: BatchShape) -> dict[str, Any]:
        """Return clips with transcripts as long as there are steps, or positions of the decoder."""
        return example_speech(self.backbone, shape)

    def prompts(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the clips, and of a model of several languages the one that the tokenizer was set to."""
        language = getattr(self.tokenizer, "language", None)
        known = {} if language is None or self.is_ctc else {"language": language, "task": "transcribe"}
        return {**self._inputs(batch), **known}

    def texts(self, batch: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Return the files and the transcripts that are known."""
        return batch["file"], batch.get("reference") or [""] * len(batch["file"])

    @torch.no_grad()
    def generate(self, inputs: Mapping[str, Any]) -> list[str]:
        """Write each clip down."""
        if not self.is_ctc:
            return super().generate(inputs)
        tokens = likeliest_tokens(self.backbone, inputs, self(**inputs).logits, self.pad_token_id)
        # With `skip_special_tokens` the tokenizer would drop the blanks before it drops what is repeated.
        return [str(text).strip() for text in self.tokenizer.batch_decode(tokens)]

    def _inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: batch[name] for name in INPUTS if name in batch}
