"""Every task with a tiny backbone and a batch, a foreign project and callbacks, for tests of what all of them do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers as tf
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig
from asym_lightning.adapters.rank.policies import Energy, Milestones
from asym_lightning.callbacks import AdapterCheckpoint, AdapterInjection, BNormMonitor, FreezeA, RankScheduler, RedrawA
from asym_lightning.callbacks.run_record import RunRecord
from asym_lightning.data.language.packing import PackedRows
from asym_lightning.data.tokens.padding import PadBatch
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from asym_lightning.modules import (
    AudioClassifier,
    ImageClassifier,
    ImageRegressor,
    InstructionTuner,
    MultiLabelImageClassifier,
    MultiLabelTextClassifier,
    ObjectDetector,
    PreferenceTuner,
    QuestionAnswerer,
    SegmentationModule,
    SentenceEncoder,
    SpeechRecognizer,
    Summarizer,
    TextClassifier,
    TokenClassifier,
    VisionLanguageTuner,
)
from asym_lightning.modules.language.language_module import LanguageModule
from tests.audio_stand_ins import tiny_wav2vec2_config, tiny_whisper_config
from tests.language_models import tiny_bart, tiny_llama, word_tokenizer
from tests.picture_stand_ins import llava_processor, tiny_llava
from tests.text_stand_ins import tiny_bert_config

VOCABULARY = 50
PAD = PadBatch({"labels": -100}, multiple=1)
B_ONLY, A_ONLY, BOTH = "hB_zero_A_rand", "hA_rand_B_U", "hA_rand_hB_zero"
ARMS = (B_ONLY, A_ONLY, BOTH)
Case = tuple[LightningModule, Any]
"""A module and a batch for it."""


def config(**options: Any) -> AdapterConfig:
    return AdapterConfig(**{"rank": 2, "targets": "all-linear", "dropout": 0.1, **options})


def images(adapter: AdapterConfig, **options: Any) -> Case:
    module = ImageClassifier("vit_digits", num_classes=3, adapter=adapter, **options)
    return module, (torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 1]))


def image_label_sets(adapter: AdapterConfig, **options: Any) -> Case:
    module = MultiLabelImageClassifier("vit_digits", ["a", "b", "c"], adapter, **options)
    return module, (torch.randn(4, 1, 8, 8), torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]))


def image_values(adapter: AdapterConfig) -> Case:
    return ImageRegressor("vit_digits", adapter), (torch.randn(4, 1, 8, 8), torch.tensor([0.5, 1.0, 2.0, 0.0]))


def masked_images(adapter: AdapterConfig) -> Case:
    module = SegmentationModule("vit_digits", ["a", "b", "c"], adapter, decoder_width=8)
    masks = torch.randint(0, 3, (4, 8, 8)).where(torch.rand(4, 8, 8) < 0.9, -100)
    return module, (torch.randn(4, 1, 8, 8), masks)


def boxes(adapter: AdapterConfig) -> Case:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "image_size": [16, 16], "patch_size": 8}
    model = tf.YolosForObjectDetection(
        tf.YolosConfig(**sizes, num_hidden_layers=2, num_attention_heads=2, num_detection_tokens=5, num_labels=2)
    )
    one, two = torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.rand(2, 4) / 4 + 0.3
    targets = [{"boxes": one, "labels": torch.tensor([1])}, {"boxes": two, "labels": torch.tensor([0, 1])}]
    return ObjectDetector(model, ["blue", "red"], adapter), (torch.randn(2, 3, 16, 16), targets)


def picture_chats(adapter: AdapterConfig) -> Case:
    processor = llava_processor()
    tokenizer = processor.tokenizer
    ids = tokenizer("user : <image> what colour ? assistant : red", add_special_tokens=False)["input_ids"]
    image = tokenizer.convert_tokens_to_ids("<image>")
    ids = [part for i in ids for part in ([image] * 4 if i == image else [i])]  # 4 patches
    input_ids = torch.tensor([ids, ids])
    labels = input_ids.where(torch.arange(len(ids)) == len(ids) - 1, -100)
    batch = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}
    batch |= {"pixel_values": [torch.randn(1, 3, 8, 8) for _ in range(2)], "row": torch.arange(2)}
    batch["prompt_length"] = torch.tensor([len(ids) - 1] * 2)
    module = VisionLanguageTuner(tiny_llava(tokenizer), adapter)
    module.tokenizer = tokenizer
    return module, batch


def texts(adapter: AdapterConfig, task: str, **options: Any) -> Case:
    is_regression = task in ("stsb", "regression")
    model = tf.BertForSequenceClassification(tiny_bert_config(num_labels=1 if is_regression else 2))
    labels = torch.tensor([0.5, 1.0, 2.0]) if is_regression else torch.tensor([0, 1, 1])
    rows = [np.arange(4, 4 + size) for size in (5, 3, 6)]
    batch = PAD([{"input_ids": row} for row in rows]) | {"labels": labels}
    return TextClassifier(model, task, adapter=adapter, **options), batch


def words(adapter: AdapterConfig, tags: Sequence[str]) -> Case:
    model = tf.BertForTokenClassification(tiny_bert_config(num_labels=len(tags)))
    rows = [np.arange(4, 4 + size) for size in (5, 3, 6)]
    batch = PAD([{"input_ids": row, "labels": np.where(row % 2, row % 3, -100)} for row in rows])
    return TokenClassifier(model, tags, adapter), batch


def sounds(adapter: AdapterConfig) -> Case:
    model = tf.Wav2Vec2ForSequenceClassification(tiny_wav2vec2_config(num_labels=3))
    # Without a mask, which the model waits for.
    return AudioClassifier(model, None, adapter), {
        "input_values": torch.randn(3, 800),
        "labels": torch.tensor([0, 2, 1]),
    }


def speech(adapter: AdapterConfig) -> Case:
    model = tf.Wav2Vec2ForCTC(tiny_wav2vec2_config(vocab_size=8, pad_token_id=0))
    batch = {"input_values": torch.randn(2, 800), "labels": torch.tensor([[5, 6], [7, -100]]), "file": ["a", "b"]}
    return built(SpeechRecognizer(model, adapter)), batch


def speech_to_words(adapter: AdapterConfig) -> Case:
    module = SpeechRecognizer(tf.WhisperForConditionalGeneration(tiny_whisper_config()), adapter)
    batch = {"input_features": torch.randn(2, 16, 100), "labels": torch.tensor([[5, 6, 2], [7, 2, -100]])}
    return built(module), batch | {"file": ["a", "b"]}


def label_sets(adapter: AdapterConfig) -> Case:
    batch = PAD([{"input_ids": np.arange(4, 4 + size)} for size in (5, 3, 6)])
    batch["labels"] = torch.tensor([[0, 2], [1, -1], [-1, -1]])
    return MultiLabelTextClassifier(
        tf.BertForSequenceClassification(tiny_bert_config(num_labels=3)), None, adapter
    ), batch


def questions(adapter: AdapterConfig) -> Case:
    batch = PAD([{"input_ids": np.arange(4, 4 + size)} for size in (5, 3, 6)])
    batch |= {"start_positions": torch.tensor([2, 0, 1]), "end_positions": torch.tensor([3, 0, 4])}
    return QuestionAnswerer(tf.BertForQuestionAnswering(tiny_bert_config()), adapter), batch


def embeddings(adapter: AdapterConfig, **options: Any) -> Case:
    sides = {side: PAD([{"input_ids": np.arange(4, 4 + n)} for n in (5, 3, 6)]) for side in ("anchor", "positive")}
    batch = {f"{side}_{name}": value for side, values in sides.items() for name, value in values.items()}
    return SentenceEncoder(tf.BertModel(tiny_bert_config()), adapter, **options), batch


def rows() -> TokenizedRows:
    random = np.random.default_rng(0)
    ids = [random.integers(3, VOCABULARY, size).tolist() for size in (5, 9, 3, 12, 7, 4, 10, 6)]
    labels = [[-100] * (len(i) // 2) + i[len(i) // 2 :] for i in ids]
    return TokenizedRows({"input_ids": Ragged.of(ids), "labels": Ragged.of(labels)})


def instructions(adapter: AdapterConfig, is_packed: bool = False, **options: Any) -> Case:
    examples = PackedRows(rows(), capacity=24) if is_packed else rows()
    batch = PAD([examples[0], examples[1]])
    return with_tokenizer(InstructionTuner(tiny_llama(VOCABULARY), adapter, **options)), batch


def summaries(adapter: AdapterConfig, **options: Any) -> Case:
    batch = PAD([rows()[0], rows()[1]])
    return with_tokenizer(Summarizer(tiny_bart(VOCABULARY), adapter, **options)), batch


def preferences(adapter: AdapterConfig, loss: str) -> Case:
    pairs = rows()
    sides = {side: PAD([pairs[number], pairs[number + 1]]) for side, number in (("chosen", 0), ("rejected", 2))}
    batch = {f"{side}_{name}": value for side, values in sides.items() for name, value in values.items()}
    return with_tokenizer(PreferenceTuner(tiny_llama(VOCABULARY), adapter, loss=loss)), batch


def built(module: SpeechRecognizer) -> LanguageModule:
    module.configure_model()  # before a batch is prepared, which asks what model it is for
    return with_tokenizer(module)


def with_tokenizer(module: LanguageModule) -> LanguageModule:
    module.tokenizer = word_tokenizer(["a text"])
    return module


class Foreign(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def foreign(scheme: str, callbacks: list[Callback]) -> tuple[LightningModule, Any, list[Callback]]:
    """A foreign project with an injection and other callbacks, and a batch for it."""
    injection = AdapterInjection(config(targets=["net.0"], scheme=scheme, heads=["net.2"]))
    return Foreign(), [torch.randn(8, 6), torch.randn(8, 2)], [injection, *callbacks]


TASKS: dict[str, Callable[..., Case]] = {
    "images": images,
    "images, weighted": partial(images, class_weights=[1.0, 2.0, 1.0], label_smoothing=0.1),
    "image label sets": image_label_sets,
    "image label sets, weighted": partial(image_label_sets, positive_weights=[1.0, 2.0, 1.0]),
    "image values": image_values,
    "masked images": masked_images,
    "images, mixed": partial(images, mixup=0.2),
    **{task: partial(texts, task=task) for task in ("classification", "cola", "mrpc", "regression")},
    "entities": partial(words, tags=["O", "B-PER", "I-PER"]),
    "parts of speech": partial(words, tags=["NOUN", "VERB", "ADJ"]),
    "sounds": sounds,
    "speech, to words": speech_to_words,
    "label sets": label_sets,
    "questions": questions,
    "embeddings": embeddings,
    "embeddings, in chunks": partial(embeddings, chunk_size=2),
    "instructions": instructions,
    "instructions, all logits": partial(instructions, chunk_size=None),
    "packed instructions": partial(instructions, is_packed=True),
    **{loss: partial(preferences, loss=loss) for loss in ("dpo", "ipo", "kto", "orpo", "simpo")},
    "pictures": picture_chats,
    "summaries": summaries,
    "summaries, smooth": partial(summaries, label_smoothing=0.1),
}
WITH_NUMBERS: dict[str, Callable[..., Case]] = {"speech": speech, "boxes": boxes}
"""Tasks that need numbers: the loss of CTC has no form without them, and boxes are matched on the CPU."""
# Of each the arm that it is for.
CALLBACKS: list[tuple[str, Callable[[], list[Callback]]]] = [
    *((scheme, list) for scheme in ARMS),
    (BOTH, lambda: [FreezeA(after_steps=100)]),
    (B_ONLY, lambda: [FreezeA()]),
    (B_ONLY, lambda: [RedrawA(2, every_n_steps=1)]),
    (BOTH, lambda: [RankScheduler(Milestones({0: 2, 100: 4}))]),
    (A_ONLY, lambda: [RankScheduler(Energy(every_n_steps=100))]),
    (BOTH, lambda: [BNormMonitor(every_n_steps=100)]),
    (BOTH, lambda: [AdapterCheckpoint(every_n_train_steps=100)]),
    (B_ONLY, lambda: [RunRecord()]),
]
