"""Every overlay of configs/strategies goes on top of every task, and trains where a CPU can."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import yaml

from asym_lightning.cli import main
from tests.language_models import byte_tokenizer, saved, tiny_bart, tiny_llama, write_jsonl
from tests.text_stand_ins import write_glue_task, write_tiny_bert

CONFIGS = Path(__file__).parents[2] / "configs"
OVERLAYS = sorted((CONFIGS / "strategies").glob("*.yaml"))
NOT_TASKS = ("adapters", "strategies", "overlays", "callbacks")
TASKS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name not in NOT_TASKS]
NEEDS_CUDA = {"fsdp"}
NEEDS_PACKAGE = {"int8": "bitsandbytes", "nf4": "bitsandbytes"}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    # What Lightning leaves behind where a run is distributed, if only over one process.
    os.environ.clear()
    os.environ.update(before)
    if dist.is_initialized():
        dist.destroy_process_group()


def options(*configs: Path) -> list[str]:
    return [option for config in configs for option in ("--config", str(config))]


def merged(given: dict, into: dict) -> dict:
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(into.get(key), dict)
        into[key] = merged(value, into[key]) if both else value
    return into


@pytest.mark.parametrize("task", TASKS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_overlay_goes_on_top_of_a_task(task, capsys):
    # All in one command, since a start takes its time; each is parsed, and the last word on every option is kept.
    command = "test" if task.parent.name == "mmlu" else "fit"
    with pytest.raises(SystemExit) as stop:
        main([command, *options(task, *OVERLAYS), "--print_config"])
    assert stop.value.code == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    asked = {}
    for overlay in OVERLAYS:
        merged(yaml.safe_load(overlay.read_text()), asked)
    for name, value in asked["trainer"].items():
        if isinstance(value, (str, int)):
            assert str(resolved["trainer"][name]) == str(value)
    for name, value in asked.get("model", {}).items():
        found = resolved["model"]["init_args"][name]  # of an option object it may be a part
        assert found == (merged(value, dict(found)) if isinstance(value, dict) else value)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_trains_a_step_or_says_what_it_lacks(overlay, capsys):
    package = NEEDS_PACKAGE.get(overlay.stem)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    one_step = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    code = main(["fit", *options(CONFIGS / "quickstart.yaml", overlay), *one_step, *quiet])
    printed = capsys.readouterr()
    if overlay.stem in NEEDS_CUDA:
        assert code == 1 and printed.err.strip().splitlines()[-1].startswith("error: ")
        assert "GPU" in printed.err.strip().splitlines()[-1]
    else:
        assert code == 0, printed.err
        assert "trained " in printed.out and "adapter " in printed.out


def classify(folder: Path) -> list[str]:
    backbone, data = write_tiny_bert(folder / "bert"), write_glue_task(folder / "glue", "stsb")
    stand_ins = ["--model.backbone", str(backbone), "--data.folder", str(data), "--data.loader.batch_size", "4"]
    return [*options(CONFIGS / "glue" / "stsb.yaml"), *stand_ins]


def summarize(folder: Path) -> list[str]:
    tokenizer = byte_tokenizer()
    backbone = saved(folder / "bart", tiny_bart(len(tokenizer)), tokenizer)
    rows = [{"document": f"It is {i}.", "summary": f"{i}"} for i in range(3)]
    file = str(write_jsonl(folder / "rows.jsonl", rows))
    data = ["--data.dataset", "null", "--data.train", file, "--data.val", file, "--data.test", file]
    model = ["--model.backbone", backbone, "--model.decoding.num_beams", "2"]
    return [*options(CONFIGS / "summarization" / "xsum.yaml"), *data, *model]


def instruct(folder: Path) -> list[str]:
    tokenizer = byte_tokenizer()
    backbone = saved(folder / "llama", tiny_llama(len(tokenizer), 64), tokenizer)
    rows = [{"instruction": f"Say {i}.", "output": f"{i}"} for i in range(6)]
    file = str(write_jsonl(folder / "rows.jsonl", rows))
    model = ["--model.backbone", backbone, "--model.backbone_options.precision", "float32"]
    model += ["--model.decoding.max_new_tokens", "2"]
    return [
        *options(CONFIGS / "instruction" / "alpaca_llama2_7b.yaml"),
        "--data.train",
        file,
        "--data.num_val",
        "2",
        *model,
    ]


@pytest.mark.parametrize("task", [classify, summarize, instruct], ids=lambda task: task.__name__)
def test_a_backbone_in_bfloat16_trains_and_evaluates_each_kind_of_text_task(task, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    short = [
        "--trainer.max_epochs",
        "1",
        "--trainer.limit_train_batches",
        "1",
        "--trainer.accumulate_grad_batches",
        "1",
    ]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    command = [*task(tmp_path), *options(CONFIGS / "strategies" / "bf16_true.yaml"), *short, *quiet]
    assert main(["fit", *command]) == 0
    (checkpoint,) = tmp_path.glob("runs/**/*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {value.dtype for name, value in state.items() if "factor" in name} == {torch.float32}
