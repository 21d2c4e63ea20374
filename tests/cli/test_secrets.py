"""A token of the hub, which commands may need, is in nothing that they write."""

import pytest

from asym_lightning.cli import main

TOKEN = "hf_" + "NoBodyMayReadThisOne"


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_a_token_of_the_hub_reaches_no_file(variable, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(variable, TOKEN)
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
    assert main(["fit", "--config", "quickstart", *short]) == 0
    run = "runs/quickstart/version_0"
    assert main(["export", run, "--output", "adapter"]) == 0
    assert main(["merge", run, "--output", "merged"]) == 0
    assert main(["report", "runs"]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"record.json", "config.yaml", "best.ckpt", "README.md", "report.html"} <= {path.name for path in files}
    assert [path.name for path in files if TOKEN.encode() in path.read_bytes()] == []
    printed = capsys.readouterr()
    assert TOKEN not in printed.out + printed.err
