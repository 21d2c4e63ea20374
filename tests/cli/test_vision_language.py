"""Questions on pictures through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from PIL import Image

from asym_lightning.cli import main
from tests.picture_stand_ins import write_questions, write_tiny_llava

CONFIG = Path(__file__).parents[2] / "configs" / "vision_language" / "llava_1_5_7b.yaml"
OPTIONS = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false",
           "--model.backbone_options.precision=float32", "--model.backbone_options.gradient_checkpointing=false",
           "--data.train=train.jsonl", "--data.val=test.jsonl", "--data.test=test.jsonl", "--data.loader.num_workers=0",
           "--model.adapter.targets=[all-linear, projector]", "--model.adapter.exclude=[]",
           "--model.decoding.max_new_tokens=4", "--trainer.accumulate_grad_batches=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers(capsys):
    backbone = str(write_tiny_llava(Path("seeing")))
    for name, count in (("train", 120), ("test", 20)):
        write_questions(Path(f"{name}.jsonl"), count)
    options = ["--config", str(CONFIG), "--model.backbone", backbone, *OPTIONS]
    with pytest.warns(UserWarning, match="the adapter is fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    learn = ["--model.optimizer.lr=0.01", "--model.scheduler=null", "--trainer.max_epochs=4"]
    assert main(["fit", *options, *learn]) == 0
    after = scores(capsys)
    assert before["test/exact_match"] < 0.1 and after["test/exact_match"] > 0.8
    run = Path("runs/llava_1_5_7b/version_1")
    assert main(["predict", *options, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/llava_1_5_7b").glob("*/responses.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in Path("test.jsonl").read_text().splitlines()]
    assert [row["reference"] for row in rows] == [record["messages"][1]["content"] for record in records]
    right = sum(row["response"] == row["reference"] for row in rows)
    assert right / 20 == pytest.approx(after["test/exact_match"], abs=1e-4)

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    processor = tf.AutoProcessor.from_pretrained("merge")
    merged = tf.AutoModelForImageTextToText.from_pretrained("merge").eval()
    for row, record in zip(rows[:4], records, strict=False):
        inputs = processor(text=row["prompt"], images=Image.open(record["images"][0]), return_tensors="pt")
        ids = merged.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
        assert processor.tokenizer.decode(ids, skip_special_tokens=True).strip() == row["response"]
    peft = pytest.importorskip("peft")
    assert "PeftModel.from_pretrained(model, folder)" in Path("export/README.md").read_text()
    base = tf.AutoModelForImageTextToText.from_pretrained(backbone)
    with_peft = peft.PeftModel.from_pretrained(base, "export").eval()
    with torch.no_grad():
        torch.testing.assert_close(with_peft(**inputs).logits, merged(**inputs).logits, rtol=0, atol=1e-4)
