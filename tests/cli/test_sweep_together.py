"""`sweep --together`: runs in one process leave what runs by themselves leave; others are told why they can not."""

import csv
import json
import multiprocessing
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from asym_lightning.cli import EXIT_INTERRUPTED, main
from asym_lightning.cli.sweep import together
from asym_lightning.cli.sweep.claim import claimed
from asym_lightning.cli.sweep.outcome import is_finished, write_outcome
from asym_lightning.cli.sweep.plan import Arm, check_go_together, plan_runs
from asym_lightning.cli.sweep.run_process import EXIT_CLAIMED_ELSEWHERE, execute_together
from tests.cli.test_sweep import TASK, arguments, sweep, workspace
from tests.image_stand_ins import write_images

__all__ = ["workspace"]  # a fixture


def more_epochs_and_an_early_stop(path):
    stop = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 0.01},
    }
    trainer = {**TASK["trainer"], "max_epochs": 4, "callbacks": [*TASK["trainer"]["callbacks"], stop]}
    path.write_text(yaml.safe_dump({**TASK, "num_threads": 1, "trainer": trainer}))


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_runs_together_leave_what_runs_by_themselves_leave(workspace):
    more_epochs_and_an_early_stop(workspace / "digits.yaml")
    more = ["--learning-rates", "0.01", "1e-6", "--seeds", "0", "1", "2"]
    first = arguments()
    base = [*first[: first.index("--arm")], "--arm", "b_only.yaml", *more]
    assert main([*base, "--out", "apart"]) == 0
    assert main([*base, "--out", "together", "--together", "4"]) == 0
    runs = [path.parent.relative_to("apart") for path in sorted(Path("apart").rglob("run.json"))]
    assert len(runs) == 6
    num_rows = set()
    for run in runs:
        ours, theirs = Path("together") / run, Path("apart") / run
        assert json.loads((ours / "run.json").read_text())["status"] == "finished"
        assert {p.relative_to(ours) for p in ours.rglob("*")} == {p.relative_to(theirs) for p in theirs.rglob("*")}
        found, expected = (load_file(path / "adapter/adapter_model.safetensors") for path in (ours, theirs))
        for name, tensor in expected.items():
            assert (found[name] - tensor).abs().max() < 1e-5, (run, name)
        for row, row_of_alone in zip(rows_of(ours), rows_of(theirs), strict=True):
            assert {k: float(v) for k, v in row.items() if v} == pytest.approx(
                {k: float(v) for k, v in row_of_alone.items() if v}, abs=1e-5, rel=1e-5
            )
        num_rows.add(len(rows_of(ours)))
        records = [json.loads((path / "record.json").read_text()) for path in (ours, theirs)]
        assert records[0]["metrics"] == pytest.approx(records[1]["metrics"], abs=1e-5)
        assert records[0]["steps"] == records[1]["steps"]
        assert records[0]["saved_bytes"] is None
        configs = [(path / "config.yaml").read_text() for path in (ours, theirs)]
        assert configs[0].replace("together/", "apart/") == configs[1]
        logs = [
            re.sub(r"time .*|/?(together|apart)/|\d+\.\d s", "", (p / "log.txt").read_text()) for p in (ours, theirs)
        ]
        assert logs[0] == logs[1]
    assert len(num_rows) > 1  # some stopped early


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "digits/b_only and digits/head_only differ in `model.init_args.adapter`: sweep them one after the other."),
        (
            {"arms": {"a": Arm(), "b": Arm(options={"model.init_args.adapter.rank": 4})}},
            "digits/a and digits/b differ in `model.init_args.adapter.rank`",
        ),
        (
            {"arms": {"a": Arm()}, "tasks": {"x": ["digits.yaml"], "y": ["digits.yaml", "longer.yaml"]}},
            "x/a and y/a differ in `trainer.max_epochs`",
        ),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_runs_that_differ_in_more_are_told_in_what(changes, message):
    Path("longer.yaml").write_text("trainer: {max_epochs: 2}")
    with pytest.raises(ValueError, match=re.escape(message)):
        check_go_together(sweep(**changes))


@pytest.mark.usefixtures("workspace")
def test_runs_may_differ_in_seed_rate_and_data():
    Path("upright.yaml").write_text("data: {angles: [0]}")
    rates = {"a": Arm(), "b": Arm(learning_rates=(0.5,), options={"model.init_args.optimizer.init_args.lr": 0.5})}
    check_go_together(sweep(arms=rates, tasks={"x": ["digits.yaml"], "y": ["digits.yaml", "upright.yaml"]}))


MODULES = {"labels": "MultiLabelImageClassifier", "label": "ImageClassifier", "value": "ImageRegressor"}


def write_tasks_of_three_widths():
    write_images(Path(), ["ant", "bee"], per_class=8, size=8)
    rows = [{"file": f"{name}/{n}.png", "label": name, "labels": [name, *["even", "odd"][n % 2 :]], "value": n / 8}
            for name in ("ant", "bee") for n in range(8)]  # fmt: skip
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for target, module in MODULES.items():
        data = {"class_path": "ImageTableDataModule", "train": "rows.jsonl", "val": "rows.jsonl", "test": "rows.jsonl",
                "target": target, "augmentation": "none", "image_size": 8, "mean": [0.5], "std": [0.5],
                "loader": {"batch_size": 8, "num_workers": 0}}  # fmt: skip
        model = {**TASK["model"], "class_path": module, "num_classes": 2}
        if target != "label":
            del model["num_classes"]
        checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/loss"}}
        trainer = {**TASK["trainer"], "callbacks": [checkpoint]}
        Path(f"{target}.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))


@pytest.mark.usefixtures("workspace")
def test_tasks_may_differ_in_module_and_outputs_but_not_in_backbone():
    write_tasks_of_three_widths()
    tasks = {target: [f"{target}.yaml"] for target in MODULES}
    check_go_together(sweep(tasks=tasks, arms={"a": Arm()}))
    Path("wide.yaml").write_text("model: {backbone: vit_tiny_patch16_224}")
    with pytest.raises(ValueError, match=r"label/a differ in `model\.init_args\.backbone`"):
        check_go_together(sweep(tasks=tasks | {"label": ["label.yaml", "wide.yaml"]}, arms={"a": Arm()}))
    with pytest.raises(ValueError, match=r"differ in `model\.init_args\.num_classes`"):
        check_go_together(sweep(arms={"a": Arm(), "b": Arm(options={"model.init_args.num_classes": 3})}))


@pytest.mark.slow
@pytest.mark.usefixtures("workspace")
def test_tasks_of_different_widths_together_leave_what_they_leave_by_themselves():
    write_tasks_of_three_widths()
    plan = {"tasks": {target: [f"{target}.yaml"] for target in MODULES}, "arms": {"b_only": "b_only.yaml"},
            "learning_rates": [0.01], "seeds": [0]}  # fmt: skip
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    for out, more in (("apart", []), ("together", ["--together", "3"])):
        assert main(["sweep", "--sweep", "plan.yaml", "--out", out, *more]) == 0
    found, expected = (
        {target: load_file(next(Path(out, target).rglob("adapter_model.safetensors"))) for target in MODULES}
        for out in ("together", "apart")
    )
    widths = {target: len(tensors[next(n for n in tensors if "head.bias" in n)]) for target, tensors in found.items()}
    assert widths == {"labels": 4, "label": 2, "value": 1}
    for target, tensors in expected.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(found[target][name], tensor, rtol=0, atol=1e-5)
    factors = [{n: t for n, t in tensors.items() if "lora_A" in n} for tensors in found.values()]
    assert factors[0] and all(torch.equal(factors[0][n], other[n]) for other in factors for n in factors[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--together", "0"], "`--together` must be at least 1, not 0."),
        (["--together", "2"], "differ in `model.init_args.adapter`"),
        (["--together", "2", "--slurm"], "`--together` makes runs in one process"),
        (["--together", "2", "--only", "0"], "`--together` makes runs in one process"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_bad_options_are_one_sentence(capsys, options, message):
    arms = ["--arm", "b_only.yaml"] + (["--arm", "head_only.yaml"] if options == ["--together", "2"] else [])
    base = ["sweep", "--config", "digits.yaml", "--learning-rates", "0.1", "--seeds", "0", "--out", "runs"]
    assert main([*base, *arms, *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_runs_that_are_finished_or_claimed_elsewhere_are_left_out(workspace, monkeypatch):
    monkeypatch.setattr(multiprocessing, "set_start_method", lambda *args, **kwargs: None)
    monkeypatch.setattr(together, "fit_together", lambda runs: [write_outcome(run, None) for run in runs])
    runs = plan_runs(sweep())[:3]
    write_outcome(runs[0], None)
    before = (runs[0].directory / "run.json").stat().st_mtime_ns
    with claimed(runs[1].directory, Path("runs")), pytest.raises(SystemExit) as exit:
        execute_together(runs, Path("runs"))
    assert exit.value.code == EXIT_CLAIMED_ELSEWHERE
    assert [is_finished(run) for run in runs] == [True, False, True]
    assert (runs[0].directory / "run.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_ctrl_c_ends_all_with_one_line_and_the_same_command_goes_on(workspace):
    task = {**TASK, "trainer": {**TASK["trainer"], "max_epochs": 40}}
    (workspace / "digits.yaml").write_text(yaml.safe_dump(task))
    command = ["--config", "digits.yaml", "--arm", "b_only.yaml", "--learning-rates", "0.01", "--seeds", "0", "1"]
    command = [sys.executable, "-m", "asym_lightning", "sweep", *command, "--out", "runs", "--together", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(list(Path("runs").rglob("*.ckpt"))) < 2:  # both have trained an epoch
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=120)
    assert process.returncode == EXIT_INTERRUPTED, printed
    assert printed[1].splitlines()[-1] == "interrupted"
    assert "Traceback" not in "".join(printed) + "".join(p.read_text() for p in Path("runs").rglob("log.txt"))
    assert not list(Path("runs").rglob("run.json"))
    for checkpoint in Path("runs").rglob("*.ckpt"):
        torch.load(checkpoint, weights_only=True)
    assert subprocess.run(command, capture_output=True, check=False, timeout=1200).returncode == 0
    assert len([p for p in Path("runs").rglob("run.json") if json.loads(p.read_text())["status"] == "finished"]) == 2
