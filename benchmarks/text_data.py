"""How fast text reaches the model: tokenising, the start from the cache, and how long training waits for data.

    OMP_NUM_THREADS=1 python -m benchmarks.text_data --glue path/to/glue --tokenizer path/or/name

Sentences are CoLA's, repeated under other endings until there are enough. Training is a tiny encoder, so that
the share of waiting is an upper bound of that of any real one.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import SimpleProfiler
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import TextFilesDataModule
from asym_lightning.modules import TextClassifier


def write_sentences(source: Path, target: Path, count: int) -> None:
    sentences = [line.rstrip("\n").split("\t")[3] for line in source.open(encoding="utf-8")]
    with target.open("w", encoding="utf-8") as file:
        file.write("text\tlabel\n")
        for number in range(count):
            file.write(f"{sentences[number % len(sentences)]} {number // len(sentences)}\t{number % 2}\n")


def module_of(folder: Path, tokenizer: str) -> TextFilesDataModule:
    return TextFilesDataModule(
        folder / "train.tsv", label_names=["0", "1"], tokenizer=tokenizer, max_length=128, cache_dir=folder / "cache"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True, help="folder that holds CoLA/train.tsv")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sentences(options.glue / "CoLA" / "train.tsv", folder / "train.tsv", options.sentences)
        AutoTokenizer.from_pretrained(options.tokenizer)  # the first load of a tokenizer imports its code

        first, started, started_cpu = module_of(folder, options.tokenizer), time.perf_counter(), time.process_time()
        first.prepare_data()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
        print(f"first start     {seconds:6.2f} s  {options.sentences / seconds:9,.0f} sentences/s")
        print(f"  of processor  {cpu_seconds:6.2f} s  {options.sentences / cpu_seconds:9,.0f} sentences/s")

        second, started, started_cpu = module_of(folder, options.tokenizer), time.perf_counter(), time.process_time()
        second.prepare_data()
        second.setup("fit")
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
        print(f"second start    {seconds:6.2f} s  (processor {cpu_seconds:.2f} s)")

        vocabulary = len(second.tokenizer)
        size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
        model = BertForSequenceClassification(BertConfig(vocab_size=vocabulary, num_labels=2, **size))
        module = TextClassifier(model, label_names=["0", "1"], adapter=AdapterConfig(), optimizer=torch.optim.AdamW)
        profiler = SimpleProfiler()
        trainer = Trainer(
            accelerator="cpu",
            max_steps=options.steps,
            profiler=profiler,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        logging.disable(logging.INFO)  # the profiler's whole table
        trainer.fit(module, datamodule=second)
        waiting = sum(profiler.recorded_durations["[_TrainingEpochLoop].train_dataloader_next"])
        training = sum(profiler.recorded_durations["run_training_batch"])
        print(f"a batch of 32   {1000 * waiting / options.steps:6.2f} ms to prepare")
        print(f"waiting         {waiting / (waiting + training):6.2%} of the training loop, 2 layers of width 64")


if __name__ == "__main__":
    main()
