"""`asym-lightning lm_eval`: a run and an adapter score as the merged model does in the harness's own `hf`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from asym_lightning.cli import main
from tests.cli.writers import base_model, random_adapter, tuned_run
from tests.language_models import write_jsonl

TASK = {
    "task": "letters", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "Name {{number}}. Answer:", "doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "{{label}}",
    "target_delimiter": " ", "metric_list": [{"metric": "acc"}],
}  # fmt: skip


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Evaluates a model on a task of four letters, and returns its log-likelihoods."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"number": i, "label": i % 4} for i in range(8)])
    (tmp_path / "tasks").mkdir()
    task = {**TASK, "dataset_kwargs": {"data_files": {"test": str(rows)}}}
    (tmp_path / "tasks" / "letters.yaml").write_text(yaml.safe_dump(task))

    def evaluate(model: str, arguments: str, out: str) -> list[float]:
        options = ["--tasks", "letters", "--include_path", "tasks", "--log_samples", "--output_path", out]
        assert main(["lm_eval", "--model", model, "--model_args", arguments, "--device", "cpu", *options]) == 0
        (samples,) = Path(out).rglob("samples_*.jsonl")
        lines = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda row: row["doc_id"])
        return [float(response[0][0]) for line in lines for response in line["resps"]]

    return evaluate


def test_a_run_scores_as_its_merged_model(score, tmp_path):
    run = tuned_run(tmp_path)
    assert main(["merge", str(run), "--output", "merged"]) == 0
    ours = score("asym", f"source={run}", "ours")
    assert len(ours) == 32
    assert ours == pytest.approx(score("hf", "pretrained=merged,dtype=float32", "merged_scores"), abs=1e-4)
    assert ours != pytest.approx(score("hf", "pretrained=llama,dtype=float32", "base_scores"), abs=1e-2)


def test_an_adapter_scores_as_peft_has_it(score, tmp_path):
    base = base_model(tmp_path / "base")
    adapter = random_adapter(tmp_path / "adapter", base, seed=1)
    ours = score("asym", f"source={adapter},base={base}", "ours")
    assert ours == pytest.approx(score("hf", f"pretrained={base},peft={adapter},dtype=float32", "of_peft"), abs=1e-4)


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="the harness is installed")
def test_without_the_harness_the_extra_is_named(capsys):
    assert main(["lm_eval", "--model", "asym"]) == 1
    assert capsys.readouterr().err == "error: `lm_eval` needs lm_eval: pip install 'asym-lightning[lm-eval]'.\n"
