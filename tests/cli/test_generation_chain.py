"""From data to answers: tune, test, merge, load with plain transformers; tune on instructions, score MMLU."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from asym_lightning.cli import main
from tests.language_models import byte_tokenizer, saved, tiny_bart, tiny_llama, word_tokenizer, write_jsonl
from tests.modules.language.test_mmlu_evaluator import write_questions

MODULES = ("argparse", "ast", "calendar", "codecs", "collections", "configparser", "csv", "datetime", "decimal",
           "difflib", "doctest", "fractions")  # fmt: skip


def documented() -> list[dict[str, str]]:
    """Real text: what the standard library's docstrings say, and the line that sums each up."""
    pairs = []
    for name in MODULES:
        for _, thing in inspect.getmembers(importlib.import_module(name)):
            summary, _, body = (inspect.getdoc(thing) or "").partition("\n\n")
            body = " ".join(re.findall(r"[a-z]+", body.lower())[:40])
            if len(body) > 80 and 10 < len(summary) < 70:
                pairs.append({"document": body, "summary": summary.replace("\n", " ")})
    return pairs[:60]


def run(command: str, folder: Path, config: dict, *arguments: str) -> None:
    file = folder / f"{command}.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main([command, "--config", str(file), *arguments]) == 0


TRAINER = {
    "accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False,
    "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": "run"}},
}  # fmt: skip
ADAPTER = {"scheme": "hB_zero_A_rand", "rank": 8, "alpha": 64}
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.02}}


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_summarizer_from_tuning_to_plain_transformers(tmp_path, capsys) -> None:
    pairs = documented()
    assert len(pairs) == 60
    tokenizer = word_tokenizer([text for pair in pairs for text in pair.values()], encoder_decoder=True)
    backbone = saved(tmp_path / "bart", tiny_bart(len(tokenizer), init_std=0.2), tokenizer)
    files = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", part)) for name, part in
             {"train": pairs[:44], "val": pairs[44:52], "test": pairs[52:]}.items()}  # fmt: skip
    decoding = {"num_beams": 2, "max_new_tokens": 12}
    config = {
        "model": {"class_path": "Summarizer", "backbone": backbone, "adapter": ADAPTER, "optimizer": OPTIMIZER,
                  "decoding": decoding},
        "data": {"class_path": "SummarizationDataModule", **files, "cache_dir": "cache"},
        "trainer": TRAINER,
    }  # fmt: skip
    run("fit", tmp_path, config)
    run("predict", tmp_path, config, "--ckpt_path", str(next(Path("runs/run/version_0").glob("**/*.ckpt"))))
    run("test", tmp_path, config, "--ckpt_path", str(next(Path("runs/run/version_0").glob("**/*.ckpt"))))
    assert "test/rougeLsum" in capsys.readouterr().out
    assert main(["merge", "runs/run/version_0", "--output", "merged"]) == 0

    model = AutoModelForSeq2SeqLM.from_pretrained("merged").eval()
    plain = AutoTokenizer.from_pretrained("merged")
    written = [json.loads(line) for line in Path("runs/run/version_1/summaries.jsonl").read_text().splitlines()]
    assert [w["source"] for w in written] == [pair["document"] for pair in pairs[52:]]
    for sample in written:
        ids = model.generate(**plain(sample["source"], return_tensors="pt"), num_beams=2, max_new_tokens=12)
        assert plain.decode(ids[0], skip_special_tokens=True).strip() == sample["summary"]
    assert any(w["summary"] for w in written)


@pytest.fixture
def instruction_run(tmp_path) -> tuple[Path, dict]:
    """A tuned decoder's run directory and its config."""
    tokenizer = byte_tokenizer(["### Instruction: Response: Name the number Answer: A B C D"], size=300)
    backbone = saved(tmp_path / "llama", tiny_llama(len(tokenizer), initializer_range=0.2), tokenizer)
    records = [{"instruction": f"Name {i}.", "output": "ABCD"[i % 4]} for i in range(24)]
    (tmp_path / "alpaca.json").write_text(json.dumps(records))
    config = {
        "model": {"class_path": "InstructionTuner", "backbone": backbone, "adapter": {**ADAPTER, "targets": ["q", "v"]},
                  "optimizer": OPTIMIZER, "decoding": {"max_new_tokens": 3}},
        "data": {"class_path": "AlpacaDataModule", "train": "alpaca.json", "num_val": 4, "packing": True,
                 "cache_dir": "cache"},
        "trainer": TRAINER,
    }  # fmt: skip
    run("fit", tmp_path, config)
    return Path("runs/run/version_0"), config


def test_instruction_tuning_then_mmlu_then_merging(instruction_run, tmp_path, capsys) -> None:
    directory, config = instruction_run
    checkpoint = str(next(directory.glob("**/*.ckpt")))
    model = {name: config["model"][name] for name in ("backbone", "adapter")}
    mmlu = {
        "model": {"class_path": "MMLUEvaluator", **model},
        "data": {
            "class_path": "MMLUDataModule",
            "folder": str(write_questions(tmp_path / "mmlu")),
            "cache_dir": "cache",
        },
        "trainer": TRAINER,
    }
    run("test", tmp_path, mmlu, "--ckpt_path", checkpoint)
    adapted = json.loads(Path("runs/run/version_1/mmlu.json").read_text())
    assert adapted["overall"]["questions"] == 21
    assert "philosophy" in capsys.readouterr().out

    assert main(["merge", str(directory), "--output", "merged"]) == 0
    mmlu["model"] = {"class_path": "MMLUEvaluator", "backbone": "merged"}
    run("test", tmp_path, mmlu)
    assert json.loads(Path("runs/run/version_2/mmlu.json").read_text()) == adapted

    merged, base = (
        AutoModelForCausalLM.from_pretrained(name).eval() for name in ("merged", config["model"]["backbone"])
    )
    ids = torch.arange(3, 40)[None]
    exported = Path("exported")
    assert main(["export", str(directory), "--output", str(exported)]) == 0
    with torch.no_grad():
        plain, before = merged(ids).logits, base(ids).logits
        with_peft = PeftModel.from_pretrained(base, exported).eval()(ids).logits
    torch.testing.assert_close(plain, with_peft, rtol=0, atol=1e-5)
    assert (plain - before).abs().max() > 0.1  # there was something to merge
    assert set(merged.state_dict()) == set(tiny_llama(merged.config.vocab_size).state_dict())


def test_merged_timm_model_gives_the_same_logits(tmp_path) -> None:
    import timm

    from asym_lightning.cli.trained_run import load_trained_run

    config = {
        "model": {"class_path": "ImageClassifier", "backbone": "vit_digits", "num_classes": 10, "adapter": ADAPTER,
                  "optimizer": OPTIMIZER},
        "data": {"class_path": "DigitsDataModule", "num_train": 100},
        "trainer": TRAINER,
    }  # fmt: skip
    run("fit", tmp_path, config)
    assert main(["merge", "runs/run/version_0", "--output", "merged"]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'merged'}", pretrained=True).eval()
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        expected = load_trained_run("runs/run/version_0").model(images)
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)


def test_exported_adapter_has_a_card_and_a_compact_form(instruction_run) -> None:
    directory, _ = instruction_run
    assert main(["export", str(directory), "--output", "full"]) == 0
    assert main(["export", str(directory), "--output", "compact", "--compact"]) == 0
    card = Path("full/README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata == {"library_name": "peft", "tags": ["lora", "asym-lightning"]}  # a local folder is not named
    assert "Only B was trained, A was frozen." in card
    assert "| rank | 8 |" in card
    assert "`peft` cannot do that" in Path("compact/README.md").read_text()
    sizes = [Path(name, "adapter_model.safetensors").stat().st_size for name in ("full", "compact")]
    assert sizes[1] < 0.75 * sizes[0]
    assert {file.name for file in Path("full").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip


@pytest.mark.parametrize("command", ["merge", "export"])
def test_push_to_hub_uploads_the_written_folder(command, instruction_run, monkeypatch, capsys) -> None:
    directory, _ = instruction_run
    uploads = []

    class Hub:
        def create_repo(self, repository, private, exist_ok):
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repository}")

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploads.append((repo_id, sorted(file.name for file in Path(folder_path).iterdir())))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    arguments = [command, str(directory), "--output", "out", "--push-to-hub", "me/tuned"]
    assert main(arguments) == 1
    assert "`--push-to-hub` needs a login" in capsys.readouterr().err
    assert not Path("out").exists()  # refused before the work
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    assert main(arguments) == 0
    ((repository, files),) = uploads
    assert repository == "me/tuned"
    assert {"merge": "model.safetensors", "export": "adapter_model.safetensors"}[command] in files


def test_bad_input_is_one_sentence_and_leaves_nothing_behind(instruction_run, tmp_path, capsys) -> None:
    directory, _ = instruction_run
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        ([str(tmp_path / "none"), "--output", "out"], "is no run directory: it has no config.yaml"),
        ([str(directory), "--output", "full"], "exists and is not an empty folder"),
        ([str(directory), "--output", "out", "--checkpoint", "none.ckpt"], "there is no checkpoint 'none.ckpt'"),
    ):
        assert main(["merge", *arguments]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error
    assert main(["merge", str(directory)]) == 2
    assert capsys.readouterr().err == "error: `asym-lightning merge`: the following arguments are required: --output.\n"
    assert sorted(tmp_path.iterdir()) == before
    for name in ("best-a", "best-b"):
        next(directory.glob("**/*.ckpt")).with_name(f"{name}.ckpt").write_bytes(b"")
    assert main(["merge", str(directory), "--output", "out"]) == 1
    assert "has 2 checkpoints: choose one by `--checkpoint`" in capsys.readouterr().err


def test_a_run_without_adapter_is_merged_and_not_exported(instruction_run, tmp_path, capsys) -> None:
    _, config = instruction_run
    config["model"] |= {"adapter": None, "train_backbone": True, "optimizer": OPTIMIZER}
    run("fit", tmp_path, config)
    assert main(["export", "runs/run/version_1", "--output", "out"]) == 1
    assert "the run has no adapter to export" in capsys.readouterr().err
    assert main(["merge", "runs/run/version_1", "--output", "out"]) == 0
    assert AutoModelForCausalLM.from_pretrained("out").lm_head.weight.isfinite().all()
