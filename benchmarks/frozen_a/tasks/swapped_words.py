"""Two neighbouring words of each sentence have changed places: which? Words of CoLA with a pretrained MiniLM."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import nn
from transformers import AutoModelForTokenClassification

from asym_lightning.data import LoaderOptions, TokenClassificationDataModule
from asym_lightning.modules import AdapterModule, BackboneOptions, TokenClassifier
from asym_lightning.modules.heads.headed_backbone import create_headed_backbone
from benchmarks.cola_minilm import NO_DROPOUT, packaged_encoder
from benchmarks.frozen_a.tasks.sentences import acceptable_words
from benchmarks.frozen_a.tasks.task import FOLDER, Task

TAGS = ("O", "B-SWAP", "I-SWAP")
NUM_TRAIN, NUM_VAL, NUM_TEST = 1200, 200, 300
LONGEST = 8  # words
NUM_LAYERS = 3  # the first of six, for half the time of a run


class SwappedWords(Task):
    """1,200 sentences of at most eight words, three layers of the encoder; the score is F1 of the pairs of words.

    Args:
        folder: With GLUE's files.
    """

    name = "swapped words"
    seeds = range(3)
    rates = (1e-3, 2e-3, 4e-3, 8e-3)
    max_epochs, num_steps = 2, 150
    val, test = "val/f1", "test/f1"
    warmup, decay = 0.06, "linear"

    def __init__(self, folder: Path) -> None:
        self.encoder = str(packaged_encoder())
        train = list(tagged_sentences(folder / "CoLA" / "train.tsv"))
        random.Random(0).shuffle(train)
        splits = {
            "train": train[:NUM_TRAIN],
            "val": train[NUM_TRAIN : NUM_TRAIN + NUM_VAL],
            "test": list(tagged_sentences(folder / "CoLA" / "dev.tsv"))[:NUM_TEST],
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.files = {split: FOLDER / f"swapped_words_{split}.jsonl" for split in splits}
        for split, path in self.files.items():
            path.write_text("".join(json.dumps(row) + "\n" for row in splits[split]), encoding="utf-8")

    def data(self, seed: int) -> LightningDataModule:
        return TokenClassificationDataModule(
            **self.files, label_names=TAGS, tokenizer=self.encoder, max_length=32, seed=seed,
            loader=LoaderOptions(16, 64),
        )  # fmt: skip

    def backbone(self) -> nn.Module:
        options = BackboneOptions(model_args={**NO_DROPOUT, "num_hidden_layers": NUM_LAYERS})
        return create_headed_backbone(self.encoder, len(TAGS), TAGS, options, AutoModelForTokenClassification)[0]

    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        return TokenClassifier(backbone, TAGS, **options)


def tagged_sentences(path: Path) -> Iterator[dict[str, list[str]]]:
    """Sentences of a file of CoLA, of whose words two have changed places."""
    draw = random.Random(path.name)
    for words in acceptable_words(path):
        places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
        if places and len(words) <= LONGEST:
            i = draw.choice(places)
            tags = ["O"] * len(words)
            tags[i : i + 2] = TAGS[1:]
            yield {"tokens": [*words[:i], words[i + 1], words[i], *words[i + 2 :]], "tags": tags}
