"""The way of who knows Lightning's command line well: answers, configs by name, runs, Ctrl-C, going on, predictions."""

from __future__ import annotations

import csv
import signal
import time

import pytest
import yaml

pytestmark = pytest.mark.slow
TASK = ["--config", "quickstart"]
FIT = ["fit", *TASK, "--config", "mine.yaml", "--trainer.enable_progress_bar=false"]
MISTAKES = {
    "did you mean fit?": ["fitt"],
    "`fit` needs a task: `lightning fit --config quickstart`": ["fit"],
    "did you mean --config glue/rte?": ["fit", "glue/rte"],
    "did you mean quickstart?": ["fit", "--config", "quikstart"],
    "did you mean trainer.max_epochs?": ["fit", *TASK, "--trainer.max_epocs", "3"],
    "did you mean num_classes": ["fit", *TASK, "--model.num_clases", "3"],
    "it is `model.optimizer.lr`": ["fit", *TASK, "--lr", "3"],
    "lora_r8 names no task": ["fit", "--config", "adapters/lora_r8"],
}
PATIENCE = 1800


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_answers(run, tmp_path):
    where = run("python", "-c", "import asym_lightning; print(asym_lightning.__file__)")
    assert where.startswith(run("python", "-c", "import sys; print(sys.prefix)").strip())
    assert run("lightning", "--version") == run("asym-lightning", "--version") == "asym-lightning 0.1.0\n"
    assert "lightning fit --config quickstart" in run("lightning", "--help")
    assert len(run("lightning", "fit", "--help").splitlines()) <= 24
    assert len(run("lightning", "fit", "--model.help", "ImageClassifier").splitlines()) <= 60
    assert "glue/rte" in run("asym-lightning", "configs")
    assert yaml.safe_load(run("asym-lightning", "configs", "show", "quickstart"))["model"]
    for sentence, arguments in MISTAKES.items():
        error = run("lightning", *arguments, code=1 if "--config" in arguments and "quikstart" in arguments else 2)
        assert sentence in error and len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_runs(run, started, tmp_path):
    run("asym-lightning", "configs", "copy", "adapters/lora_r8", "mine.yaml")
    printed = run("lightning", *FIT, "--trainer.max_epochs=1", "--model.adapter.rank=4")
    runs = tmp_path / "runs/quickstart"
    adapter = yaml.safe_load((runs / "version_0/config.yaml").read_text())["model"]["init_args"]["adapter"]
    assert (adapter["scheme"], adapter["rank"]) == ("hB_zero_hA_he", 4)
    assert [line.split()[0] for line in printed.splitlines()[-2:]] == ["checkpoint", "adapter"]

    interrupted = started("lightning", *FIT, "--trainer.max_epochs=1000")
    until = time.monotonic() + PATIENCE
    while not list(runs.glob("version_1/checkpoints/*.ckpt")) and time.monotonic() < until:
        time.sleep(0.05)
    interrupted.send_signal(signal.SIGINT)
    error = interrupted.communicate(timeout=PATIENCE)[1]
    assert interrupted.returncode == 130
    assert error.splitlines()[1:] == [error.splitlines()[-1]]  # after the line of the seed
    assert error.splitlines()[-1].startswith("interrupted at step ") and "version_1/checkpoints/best.ckpt" in error

    epochs = max(int(row["epoch"]) for row in rows_of(runs / "version_1/metrics.csv")) + 2
    run("lightning", *FIT, f"--trainer.max_epochs={epochs}", "--ckpt_path", "last")
    losses = [row for row in rows_of(runs / "version_1/metrics.csv") if row["val/loss"]]
    assert [int(row["epoch"]) for row in losses] == list(range(epochs))
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]

    evaluate = [*TASK, "--config", "mine.yaml", "--ckpt_path"]
    assert "test/accuracy" in run("lightning", "test", *evaluate, "best")
    predictions = tmp_path / run("lightning", "predict", *evaluate, str(runs / "version_1")).split()[-1]
    rows = rows_of(predictions)
    assert len(rows) == 400 and {row["label"] for row in rows} <= set("0123456789")
    probabilities = [[float(row[f"probability_{digit}"]) for digit in range(10)] for row in rows]
    assert list(map(sum, probabilities)) == pytest.approx([1] * len(rows), abs=1e-5)
