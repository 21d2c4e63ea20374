"""Preference tuning through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import csv
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asym_lightning.cli import main
from tests.language_models import byte_tokenizer, saved, tiny_llama, write_jsonl

CONFIG = Path(__file__).parents[2] / "configs" / "preference" / "zephyr_7b.yaml"
PLAIN = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false",
         "--model.backbone_options.precision=float32", "--data.template=none"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and "/" in line[0] and line[0] != "runs"}


def write_pairs(name, numbers):
    """Of two answers the one that names the number is preferred."""
    pairs = [{"prompt": f"Say {i}: ", "chosen": f"{i}.", "rejected": f"{'abcdefgh'[i % 8]}!"} for i in numbers]
    return str(write_jsonl(Path(f"{name}.jsonl"), pairs))


def sum_of_answer(model, tokenizer, prompt, answer):
    given = tokenizer(prompt)["input_ids"]
    ids = torch.tensor([[*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        found = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
    return found[len(given) - 1 :].sum().item()


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers(capsys):
    tokenizer = byte_tokenizer(size=262)
    backbone = saved(Path("llama").resolve(), tiny_llama(len(tokenizer), initializer_range=0.2), tokenizer)
    train, test = write_pairs("train", range(10, 60)), write_pairs("test", range(60, 76))
    options = ["--config", str(CONFIG), "--model.backbone", backbone, *PLAIN, "--data.train", train]
    options += ["--data.val", test, "--data.test", test, "--trainer.accumulate_grad_batches=1", "--model.beta=0.1"]
    with pytest.warns(UserWarning, match="the adapter is fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options, "--model.optimizer.lr=0.02", "--trainer.max_epochs=2", "--test_after_fit=true"]) == 0
    after = scores(capsys)
    assert before["test/margin"] == pytest.approx(0, abs=1e-5)
    assert after["test/accuracy"] > 0.9 and after["test/margin"] > 0.5
    run = Path("runs/zephyr/version_1")
    assert main(["predict", *options, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/zephyr").glob("*/predictions.csv")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 16

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    merged, base = (AutoModelForCausalLM.from_pretrained(name).eval() for name in ("merge", backbone))
    plain = AutoTokenizer.from_pretrained("merge")
    ratio = sum(s * sum_of_answer(model, plain, "Say 60: ", "60.") for s, model in ((1, merged), (-1, base)))
    assert 0.1 * ratio == pytest.approx(float(rows[0]["chosen_reward"]), abs=1e-4)
    peft = pytest.importorskip("peft")
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        with_peft = peft.PeftModel.from_pretrained(base, "export").eval()(ids).logits
        torch.testing.assert_close(with_peft, merged(ids).logits, rtol=0, atol=1e-5)
