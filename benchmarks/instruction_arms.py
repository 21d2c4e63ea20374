"""A tiny decoder that learns to follow instructions: B-only, A-only and LoRA, three seeds, held-out prompts.

    python -m benchmarks.instruction_arms

An instruction names a position, and the answer is the word there in a list of four. The backbone is trained in full on
the first and the third word, as a stand-in for pretraining. Then each arm is tuned to add to the first word another one
that stands for it in a code that the backbone has never seen, at the best of its own learning rates by the mean score
of validation prompts. An answer is right if it is both words, in order, and then ends; all prompts are held out.
All arms train about the same number of parameters, so LoRA, which trains both factors, has half the rank.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import statistics
import tempfile
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import AlpacaDataModule, LoaderOptions
from asym_lightning.modules import InstructionTuner, WarmupSchedule
from asym_lightning.modules.language.decoding import Decoding
from tests.language_models import tiny_llama, word_tokenizer, write_jsonl

WORDS = ("red", "blue", "green", "black", "white", "pink", "gold", "grey", "lime", "teal", "navy", "plum", "rose",
         "sand", "snow", "wine")  # fmt: skip
PRETRAINING, NEW_TASK = ("first", "third"), "coded"
CODE = dict(zip(WORDS, (*WORDS[5:], *WORDS[:5]), strict=True))
ARMS = {
    "B-only": AdapterConfig("hB_zero_A_rand", rank=8, alpha=16, targets=["q", "k", "v", "o", "mlp"]),
    "A-only": AdapterConfig("B_rand_hA_zero", rank=8, alpha=16, targets=["q", "k", "v", "o", "mlp"]),
    "LoRA": AdapterConfig("hB_zero_hA_he", rank=4, alpha=8, targets=["q", "k", "v", "o", "mlp"]),
}
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
NUM_EXAMPLES = 2000


def record(task: str, draw: random.Random) -> dict[str, str]:
    words = draw.sample(WORDS, 4)
    answers = {"first": words[0], "third": words[2], "coded": f"{words[0]} {CODE[words[0]]}"}
    instruction = f"Name the {'first' if task == 'coded' else task} word ."
    return {"instruction": instruction, "input": " ".join(words), "output": answers[task]}


def records(tasks: tuple[str, ...], count: int, seed: int) -> list[dict[str, str]]:
    draw = random.Random(seed)
    return [record(tasks[i % len(tasks)], draw) for i in range(count)]


def data(folder: Path, tokenizer, tasks: tuple[str, ...], num_train: int, seed: int) -> AlpacaDataModule:
    """Training, validation and test prompts; no list of words is in two of them."""
    every = records(tasks, num_train + 600, seed)
    unique = list({(r["instruction"], r["input"]): r for r in every}.values())
    parts = {"test": unique[:200], "val": unique[200:300], "train": unique[300 : 300 + num_train]}
    files = {name: write_jsonl(folder / f"{name}_{'_'.join(tasks)}_{seed}.jsonl", part) for name, part in parts.items()}
    return AlpacaDataModule(
        **files, tokenizer=tokenizer, loader=LoaderOptions(32, 100), cache_dir=folder / "cache", seed=seed
    )


def fit(model, arm: AdapterConfig | None, rate: float, steps: int, source: AlpacaDataModule, seed: int):
    """Tune a copy of a model and return the module, its test score and its validation score."""
    seed_everything(seed, verbose=False)
    module = InstructionTuner(
        copy.deepcopy(model),
        adapter=arm,
        train_backbone=arm is None,
        decoding=Decoding(max_new_tokens=3),
        num_val_samples=None,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=rate, weight_decay=0.0),
        scheduler=WarmupSchedule(warmup=0.1),
    )
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "default_root_dir": source.cache_dir,
    }
    Trainer(max_steps=steps, limit_val_batches=0, **quiet).fit(module, datamodule=source)
    (val,) = Trainer(**quiet).validate(module, datamodule=source, verbose=False)
    (test,) = Trainer(**quiet).test(module, datamodule=source, verbose=False)
    return module, test["test/exact_match"], val["val/exact_match"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretraining-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/instruction_arms.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    from asym_lightning.data.language.prompts import alpaca_prompt

    texts = [alpaca_prompt(r["instruction"], r["input"]) for r in records((*PRETRAINING, NEW_TASK), 300, 9)]
    tokenizer = word_tokenizer(texts)
    results: dict = {"pretraining": {}, "arms": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = data(folder, tokenizer, PRETRAINING, 8000, 0)
        start, score, _ = fit(tiny_llama(len(tokenizer), 64, 2), None, 3e-3, options.pretraining_steps, old, 0)
        backbone = start.backbone
        results["pretraining"] = {"tasks": PRETRAINING, "exact_match": round(score, 4)}
        print("pretraining", results["pretraining"], flush=True)
        sources = {seed: data(folder, tokenizer, (NEW_TASK,), NUM_EXAMPLES, seed) for seed in options.seeds}
        for arm, config in ARMS.items():
            tried = {}
            for rate in RATES:
                tried[rate] = [
                    fit(backbone, config, rate, options.steps, source, seed) for seed, source in sources.items()
                ]
                print(arm, rate, [(test, val) for _, test, val in tried[rate]], flush=True)
            validation = {rate: statistics.mean(val for _, _, val in runs) for rate, runs in tried.items()}
            rate = max(validation, key=validation.__getitem__)
            module = tried[rate][0][0]
            results["arms"][arm] = {
                "rate": rate,
                "validation_by_rate": {str(r): round(value, 4) for r, value in validation.items()},
                "exact_match": [round(test, 4) for _, test, _ in tried[rate]],
                "mean": round(statistics.mean(test for _, test, _ in tried[rate]), 4),
                "trained_parameters": sum(p.numel() for p in module.backbone.parameters() if p.requires_grad),
            }
        untuned = InstructionTuner(backbone, train_backbone=True, decoding=Decoding(max_new_tokens=3))
        quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "default_root_dir": folder}
        (before,) = Trainer(**quiet).test(
            untuned, datamodule=data(folder, tokenizer, (NEW_TASK,), 500, 0), verbose=False
        )
        results["before_tuning"] = round(before["test/exact_match"], 4)
    results["torch"] = torch.__version__
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
