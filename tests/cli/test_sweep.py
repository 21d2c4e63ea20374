"""`asym-lightning sweep`: planning, claims, continuation, failure. The runs themselves are tiny."""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from asym_lightning import cli
from asym_lightning.cli import main
from asym_lightning.cli.config_files import merged_config
from asym_lightning.cli.sweep.claim import claimed
from asym_lightning.cli.sweep.outcome import is_finished, read_outcome, write_outcome
from asym_lightning.cli.sweep.plan import Arm, Sweep, plan_runs
from asym_lightning.cli.sweep.run_process import execute

TASK = {
    "model": {
        "class_path": "ImageClassifier",
        "backbone": "vit_digits",
        "num_classes": 10,
        "adapter": {"scheme": "hB_zero_A_rand", "rank": 2},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
    },
    "data": {"class_path": "DigitsDataModule", "num_train": 50},
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_model_summary": False,
        "callbacks": [
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"monitor": "val/accuracy", "mode": "max"},
            }
        ],
    },
}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(TASK))
    (tmp_path / "b_only.yaml").write_text("model: {adapter: {scheme: hB_zero_A_rand}}")
    (tmp_path / "head_only.yaml").write_text("model: {adapter: null}")
    return tmp_path


def sweep(**changes):
    fields = {
        "directory": Path("runs"),
        "tasks": {"digits": ["digits.yaml"]},
        "arms": {"b_only": Arm(("b_only.yaml",)), "head_only": Arm(("head_only.yaml",))},
        "learning_rates": [0.01, 0.1],
        "seeds": [0, 1],
    }
    return Sweep(**{**fields, **changes})


def arguments(*further):
    return [
        "sweep", "--config", "digits.yaml", "--arm", "b_only.yaml", "--arm", "head_only.yaml",
        "--learning-rates", "0.01", "--seeds", "0", "1", "--out", "runs", *further,
    ]  # fmt: skip


def outcomes(directory="runs"):
    return {str(path.parent): json.loads(path.read_text()) for path in Path(directory).rglob("run.json")}


# Planning


def test_each_run_is_an_ordinary_fit_in_a_directory_of_its_own(workspace):
    runs = plan_runs(sweep())
    assert len(runs) == 8
    assert len({run.directory for run in runs}) == 8
    assert runs[0].arguments[:5] == ("fit", "--config", "digits.yaml", "--config", "b_only.yaml")
    assert f"--trainer.logger.save_dir={runs[0].directory}" in runs[0].arguments
    assert str(runs[0].directory) == "runs/digits/b_only/lr_0.01/seed_0"


def test_seeds_of_adapter_head_and_data_are_apart(workspace):
    options = {run.seed: run.arguments for run in plan_runs(sweep(vary=["head"], data_seed_key="data.seed"))}
    assert "--seed_everything=1" in options[1]
    assert "--data.seed=0" in options[1]
    assert "--trainer.callbacks.seed=0" in options[1]
    adapter_seeds = {run.seeds["adapter"] for run in plan_runs(sweep(vary=["head", "data"]))}
    assert adapter_seeds == {0}


def test_an_arm_without_an_adapter_gets_no_adapter_seed(workspace):
    for run in plan_runs(sweep()):
        has_seed = any(part.startswith("--model.init_args.adapter.seed=") for part in run.arguments)
        assert has_seed == (run.arm == "b_only")


def test_short_and_long_overlays_are_merged(workspace):
    merged = merged_config(["digits.yaml", "b_only.yaml"])
    assert merged["model"]["init_args"]["adapter"] == {"scheme": "hB_zero_A_rand", "rank": 2}
    assert merged_config(["digits.yaml", "head_only.yaml"])["model"]["init_args"]["adapter"] is None


def test_arms_have_their_own_rates(workspace):
    arms = {"a": Arm(learning_rates=(0.5,)), "b": Arm()}
    assert {(run.arm, run.learning_rate) for run in plan_runs(sweep(arms=arms))} == {
        ("a", 0.5),
        ("b", 0.01),
        ("b", 0.1),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "no seeds: name some, as in `--seeds 0 1 2`"),
        ({"seeds": [1, 1]}, "`seeds` names a seed twice: 1, 1"),
        ({"tasks": {}}, "no tasks: name some by `--config`"),
        ({"arms": {}}, "no arms: name some by `--arm`"),
        ({"arms": {"a b": Arm()}}, "arm 'a b' cannot name a directory"),
        ({"learning_rates": []}, "arm 'b_only' has no learning rates to try: name some, as in `--learning-rates"),
        ({"vary": ["nothing"]}, "`vary` must be one of adapter, head, data, not 'nothing'"),
    ],
)
def test_refuses_a_sweep_that_makes_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        sweep(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--config", "missing.yaml", "--schemes", "hB_zero_A_rand", "--ranks", "2"],
            "there is no config 'missing.yaml'",
        ),
        (["--config", "digits.yaml", "--schemes", "hB_zero_A_rand"], "`--schemes` and `--ranks` go together"),
        (["--config", "digits.yaml", "--jobs", "0"], "`--jobs` must be at least 1, not 0."),
        (["--config", "digits.yaml", "--schemes", "hB_zero_A_rand", "--ranks", "0"], "`--ranks` must be at least"),
        (["--config", "digits.yaml", "--schemes", "mine", "--ranks", "2"], "'mine'"),
        (["--sweep", "missing.yaml"], "there is no sweep file 'missing.yaml'"),
        (["--sweep", "wrong.yaml"], "unknown key 'arm': did you mean arms?"),
        (["--config", "digits.yaml", "--arm", "b_only.yaml", "--jobs", "0"], "`--jobs` must be at least 1"),
        (["--config", "digits.yaml", "--arm", "b_only.yaml", "--only", "9"], "`--only` must be from 0 to 0"),
        (["--config", "digits.yaml", "--arm", "b_only_r8"], "no config 'b_only_r8': did you mean adapters/b_only_r8?"),
    ],
)
def test_bad_options_are_one_sentence(workspace, capsys, options, message):
    (workspace / "wrong.yaml").write_text("arm: x")
    assert main(["sweep", *options, "--learning-rates", "0.1", "--seeds", "0", "--out", "runs"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_dry_run_prints_commands_and_does_nothing(workspace, capsys):
    assert main(arguments("--dry-run", "--", "--trainer.max_epochs=2")) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [command[:2] for command in commands] == [["lightning", "fit"]] * 4
    assert all("--trainer.max_epochs=2" in command for command in commands)
    assert not Path("runs").exists()


def test_slurm_script_makes_one_run_a_task(workspace, capsys):
    assert main(arguments("--slurm", "--jobs", "3")) == 0
    script = Path("runs/sweep.sbatch").read_text()
    assert "#SBATCH --array=0-3%3" in script
    assert subprocess.run(["bash", "-n", "runs/sweep.sbatch"]).returncode == 0
    last = script.splitlines()[-1]
    assert last == f'asym-lightning {shlex.join(arguments("--jobs", "3"))} --only "$SLURM_ARRAY_TASK_ID"'


# Claims and outcomes


def hold(run_directory, sweep_directory, held):
    with claimed(run_directory, sweep_directory) as is_ours:
        assert is_ours
        held.set()
        time.sleep(60)


def test_a_claim_excludes_others_and_dies_with_its_process(tmp_path):
    held = multiprocessing.Event()
    process = multiprocessing.Process(target=hold, args=(tmp_path / "a", tmp_path, held))
    process.start()
    assert held.wait(10)
    with claimed(tmp_path / "a", tmp_path) as is_ours:
        assert not is_ours
    with claimed(tmp_path / "b", tmp_path) as is_ours:
        assert is_ours
    process.kill()
    process.join()
    with claimed(tmp_path / "a", tmp_path) as is_ours:
        assert is_ours


def note_start_method(run, sweep_directory):
    def note(arguments):
        (sweep_directory / "method").write_text(multiprocessing.get_start_method())
        return 0

    cli.main = note
    execute(run, sweep_directory)


@pytest.mark.usefixtures("workspace")
def test_workers_of_a_run_start_as_they_do_without_a_sweep():
    run = plan_runs(sweep())[0]
    process = multiprocessing.get_context("forkserver").Process(target=note_start_method, args=(run, Path("runs")))
    process.start()
    process.join()
    assert Path("runs/method").read_text() == multiprocessing.get_start_method()


def test_a_finished_run_of_other_settings_is_refused(workspace):
    run = plan_runs(sweep())[0]
    write_outcome(run, None)
    assert is_finished(run)
    changed = plan_runs(sweep(options=["--trainer.max_epochs=9"]))[0]
    with pytest.raises(ValueError, match="made with other configs or options"):
        read_outcome(changed)
    (workspace / "digits.yaml").write_text(yaml.safe_dump({**TASK, "seed_everything": 3}))
    with pytest.raises(ValueError, match="made with other configs or options"):
        read_outcome(plan_runs(sweep())[0])


# Running


def start(*further):
    return subprocess.Popen(
        [sys.executable, "-m", "asym_lightning", *arguments(*further)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_sweep_continues_without_repeating_and_two_at_once_share_the_work(workspace):
    first = start()
    wait_for(lambda: len(outcomes()) >= 1)
    wait_for(lambda: list(Path("runs").rglob("metrics.csv")) and len(list(Path("runs").rglob("log.txt"))) >= 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("run.json")}
    assert 1 <= len(before) < 4

    both = [start(), start("--jobs", "2")]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(outcomes()) == 4
    assert {outcome["status"] for outcome in outcomes().values()} == {"finished"}
    for path, modified in before.items():
        assert path.stat().st_mtime_ns == modified  # not repeated
    for path in Path("runs").rglob("log.txt"):  # and made by one process each
        assert path.read_text().count("\ntrained ") == 1
    assert Path("runs/report.html").is_file()


def test_a_failed_run_is_reported_and_does_not_stop_the_others(workspace, capfd):
    (workspace / "broken.yaml").write_text("model: {adapter: {rank: 1000}}")
    further = ["--arm", "broken.yaml", "--seeds", "0"]
    assert main(arguments(*further)) == 1
    statuses = {outcome["arm"]: outcome["status"] for outcome in outcomes().values()}
    assert statuses == {"b_only": "finished", "head_only": "finished", "broken": "failed"}
    output = capfd.readouterr().out
    assert "failed: digits/broken/lr_0.01/seed_0: `rank` is 1000, but `blocks.0.attn.qkv`" in output
    assert "failed and is left out" in output  # in the table's notes
    assert "1 of 3 runs failed; the same command tries them again." in output
