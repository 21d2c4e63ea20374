"""Every shipped config of summarisation, instruction tuning and MMLU runs, on tiny stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asym_lightning.cli import main
from tests.language_models import byte_tokenizer, saved, tiny_bart, tiny_llama, write_jsonl
from tests.modules.language.test_mmlu_evaluator import write_questions

CONFIGS = Path(__file__).parents[1] / "configs"
QUICK = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"]
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.accumulate_grad_batches", "1"]
OVERLAYS = sorted((CONFIGS / "instruction" / "overlays").glob("*.yaml"))


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config(*names: str) -> list[str]:
    return [option for name in names for option in ("--config", str(CONFIGS / name))]


@pytest.mark.parametrize("name", ["xsum", "cnn_dailymail"])
def test_summarization_config_trains_and_tests(name, tmp_path, capsys) -> None:
    tokenizer = byte_tokenizer()
    backbone = saved(tmp_path / "bart", tiny_bart(len(tokenizer)), tokenizer)
    file = str(write_jsonl(tmp_path / "a.jsonl", [{"document": f"It is {i}.", "summary": f"{i}"} for i in range(3)]))
    own = ["--data.dataset", "null", "--data.train", file, "--data.val", file, "--data.test", file]
    arguments = [*config(f"summarization/{name}.yaml"), *own, "--model.backbone", backbone, *QUICK, *SHORT]
    assert main(["fit", *arguments, "--model.decoding.num_beams", "2"]) == 0
    assert "test/rougeLsum" in capsys.readouterr().out


@pytest.mark.parametrize("packing", ["false", "true"])
def test_instruction_config_trains(packing, tmp_path, capsys) -> None:
    tokenizer = byte_tokenizer()
    backbone = saved(tmp_path / "llama", tiny_llama(len(tokenizer), 64), tokenizer)
    Path("alpaca.json").write_text(json.dumps([{"instruction": f"Say {i}.", "output": f"{i}"} for i in range(12)]))
    own = [
        "--data.train",
        "alpaca.json",
        "--data.num_val",
        "2",
        "--data.packing",
        packing,
        "--model.backbone",
        backbone,
    ]
    arguments = [*config("instruction/alpaca_llama2_7b.yaml"), *own, *QUICK, *SHORT]
    model = ["--model.backbone_options.precision", "float32", "--model.decoding.max_new_tokens", "2"]
    assert main(["fit", *arguments, *model]) == 0
    assert "val/exact_match" in capsys.readouterr().out


def test_mmlu_config_tests(tmp_path, capsys) -> None:
    tokenizer = byte_tokenizer()
    backbone = saved(tmp_path / "llama", tiny_llama(len(tokenizer)), tokenizer)
    folder = str(write_questions(tmp_path / "mmlu", num_questions=2))
    arguments = [*config("mmlu/llama2_7b.yaml"), "--data.folder", folder, "--model.backbone", backbone, *QUICK]
    assert main(["test", *arguments]) == 0
    assert "social_sciences" in capsys.readouterr().out


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("command", "base"), [("fit", "instruction/alpaca_llama2_7b"), ("test", "mmlu/llama2_7b")])
def test_overlays_change_the_backbone_and_nothing_else(command, base, overlay, capsys) -> None:
    printed = []
    for names in ([f"{base}.yaml"], [f"{base}.yaml", f"instruction/overlays/{overlay.name}"]):
        with pytest.raises(SystemExit):
            main([command, *config(*names), "--print_config"])
        printed.append(capsys.readouterr().out.splitlines())
    changed = [(a, b) for a, b in zip(*printed, strict=True) if a != b]
    assert [a.strip() for a, _ in changed] == ["backbone: meta-llama/Llama-2-7b-hf"]
