"""MMLU with shared prefixes against one prompt at a time without a cache: seconds, and the greatest difference.

    python -m benchmarks.mmlu_speed --folder data/mmlu

The folder has the original layout. The model is a small Llama with random weights, its tokenizer byte pairs trained
on the questions: speed hangs on lengths, not on what the weights say.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from asym_lightning.data import LoaderOptions, MMLUDataModule
from asym_lightning.data.language.mmlu_prompts import HendrycksPrompt, Question
from asym_lightning.modules import MMLUEvaluator
from tests.language_models import byte_tokenizer, tiny_llama


def questions(folder: Path, split: str, subject: str) -> list[Question]:
    with (folder / split / f"{subject}_{split}.csv").open(newline="", encoding="utf-8") as file:
        return [Question(row[0], (row[1], row[2], row[3], row[4]), row[5]) for row in csv.reader(file)]


def one_at_a_time(model: torch.nn.Module, tokenizer, folder: Path, subjects: list[str], limit: int | None):
    """The direct way: each prompt whole, alone, without a cache."""
    log_probs = []
    for subject in subjects:
        shots = questions(folder, "dev", subject)[:5]
        for question in questions(folder, "test", subject)[:limit]:
            ids = torch.tensor([tokenizer(HendrycksPrompt()(subject, shots, question))["input_ids"]])
            with torch.no_grad():
                log_probs.append(model(ids, use_cache=False).logits[0, -1].float().log_softmax(-1))
    return torch.stack(log_probs)


class Keeping(MMLUEvaluator):
    """Keeps the log-probabilities that it computes, to compare them."""

    def next_log_probs(self, batch):
        log_probs = super().next_log_probs(batch)
        self.kept = getattr(self, "kept", {}) | dict(zip(batch["row"].tolist(), log_probs, strict=True))
        return log_probs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="MMLU in the original layout")
    parser.add_argument("--width", type=int, default=128, help="width of the model")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mmlu_speed.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    subjects = sorted(file.name.removesuffix("_test.csv") for file in options.folder.glob("test/*_test.csv"))
    texts = [q.text for subject in subjects for q in questions(options.folder, "test", subject)]
    tokenizer = byte_tokenizer([*texts, "Answer: A B C D"], size=4000)
    model = tiny_llama(len(tokenizer), options.width, options.layers, initializer_range=0.1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        loader = LoaderOptions(eval_batch_size=options.batch_size)
        data = MMLUDataModule(options.folder, tokenizer=tokenizer, loader=loader, cache_dir=folder)
        module = Keeping(model)
        trainer = Trainer(default_root_dir=folder, logger=False, accelerator="cpu", enable_progress_bar=False)
        trainer.test(module, datamodule=data, verbose=False)
        shared = time.perf_counter() - start  # reading and tokenising included
    start = time.perf_counter()
    expected = one_at_a_time(model.eval(), tokenizer, options.folder, subjects, None)
    direct = time.perf_counter() - start
    found = torch.stack([module.kept[row] for row in range(len(expected))])
    result = {
        "subjects": subjects,
        "questions": len(expected),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_one_at_a_time": round(direct, 1),
        "seconds_shared_prefix": round(shared, 1),
        "speedup": round(direct / shared, 2),
        "greatest_difference_of_log_probabilities": float((found - expected).abs().max()),
        "torch": torch.__version__,
        "threads": 1,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
