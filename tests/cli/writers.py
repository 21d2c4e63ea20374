"""A tuned decoder's run, adapters of its base, and models for the commands that write."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

from asym_lightning.adapters import AdapterConfig, inject_adapters, save_adapters
from asym_lightning.cli import main
from tests.language_models import byte_tokenizer, saved, tiny_llama

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
RECORDS = [{"instruction": f"Name {i}." + " Please." * (i % 3), "output": "ABCD"[i % 4]} for i in range(24)]
RECORDS[1]["input"] = "a b c"


def base_model(folder: Path, chat_template: str | None = None) -> str:
    tokenizer = byte_tokenizer(["### Instruction: Response: Name the number Answer: A B C D"], size=300)
    tokenizer.chat_template = chat_template
    return saved(folder, tiny_llama(len(tokenizer), initializer_range=0.2), tokenizer)


def tuned_run(folder: Path) -> Path:
    """Tune a decoder on `alpaca.json`, and return the run's directory; `config.yaml` in the folder is its config."""
    (folder / "alpaca.json").write_text(json.dumps(RECORDS))
    config = {
        "model": {"class_path": "InstructionTuner", "backbone": base_model(folder / "llama"),
                  "adapter": {"scheme": "hB_zero_A_rand", "rank": 8, "alpha": 64, "targets": ["q", "v"]},
                  "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}},
                  "decoding": {"max_new_tokens": 6}},
        "data": {"class_path": "AlpacaDataModule", "train": str(folder / "alpaca.json"), "num_val": 4,
                 "predict": str(folder / "alpaca.json"), "cache_dir": str(folder / "cache")},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False,
                    "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "run"}}},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(folder / "config.yaml")]) == 0
    return folder / "run" / "version_0"


def random_adapter(folder: Path, base: str, seed: int, **options: object) -> str:
    """Save an adapter of a base model that changes what it writes."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    config = {"scheme": "hB_he_hA_rand", "rank": 4, "alpha": 32, "seed": seed, "targets": ["q", "v"], **options}
    inject_adapters(model, AdapterConfig(**config))
    save_adapters(model, folder)
    return str(folder)
