"""Where runs are and what they go on with: a folder of its own for each, in which it resumes."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, Logger

from asym_lightning.adapters.files.directory import read_adapter
from asym_lightning.cli import main
from asym_lightning.cli.run_folder import RunFolder, RunTrainer
from asym_lightning.core.files import read_json

QUICKSTART = ["--config", str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")]
SHORT = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2", "--trainer.enable_progress_bar=false"]
RUNS = Path("runs/quickstart")
HERE = "tests.cli.test_run_folder"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fit(capsys):
    """Run a short fit of the quickstart and return the lines of its summary."""

    def _fit(*options: str, epochs: int = 1, code: int = 0) -> dict[str, str]:
        capsys.readouterr()
        assert main(["fit", *QUICKSTART, *SHORT, f"--trainer.max_epochs={epochs}", *options]) == code
        out = capsys.readouterr().out
        return dict(line.split(maxsplit=1) for line in out.strip().splitlines()[-8:]) if code == 0 else {}

    return _fit


def steps_logged(folder: Path) -> list[int]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["val/loss"]]


class Worse(Callback):
    """Makes all epochs but the first worse than they are, in what checkpoints are chosen by."""

    def on_validation_end(self, trainer, pl_module) -> None:
        if trainer.current_epoch:
            trainer.callback_metrics["val/accuracy"] -= 1


class Requeue(Callback):
    """Makes SLURM's signal before the given step, and ends the process as SLURM does: the first time only."""

    has_been = False

    def __init__(self, step: int = 3) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step and not Requeue.has_been:
            Requeue.has_been = True
            os.kill(os.getpid(), signal.SIGUSR1)
            raise RuntimeError("the job is over")


class Elsewhere(Logger):
    """A logger without a folder for each run, as those of services are."""

    name, version, save_dir = "project", "id", "."

    def log_metrics(self, metrics, step=None) -> None:
        pass

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        pass


def test_a_resumed_run_goes_on_in_its_folder_with_its_rows_and_its_best_score(fit):
    worse = f"--trainer.callbacks+={HERE}.Worse"
    last = "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=newest"
    fit(worse, *last)
    before = torch.load(RUNS / "version_0/checkpoints/best.ckpt", weights_only=True)["global_step"]
    summary = fit(worse, *last, "--ckpt_path", str(RUNS / "version_0/checkpoints/newest.ckpt"), epochs=3)
    assert [path.name for path in RUNS.iterdir()] == ["version_0"]
    assert steps_logged(RUNS / "version_0") == [1, 3, 5]
    assert yaml.safe_load((RUNS / "version_0/config.yaml").read_text())["trainer"]["max_epochs"] == 3
    # All later epochs are worse, so the best is that of before the interruption, and is what is tested and exported.
    best = torch.load(summary["checkpoint"], weights_only=True)
    assert best["global_step"] == before == 2
    head = read_adapter(RUNS / "version_0/adapter").others["head.weight"]
    assert torch.equal(head, best["state_dict"]["backbone.head.weight"])


def test_last_and_best_are_those_of_the_newest_run_in_a_new_process(fit, capsys):
    fit()
    fit("--model.adapter.rank=2")
    with pytest.raises(AssertionError):
        fit("--ckpt_path=last", epochs=2)  # of rank 2, which the quickstart is not
    fit("--ckpt_path=last", "--model.adapter.rank=2", epochs=2)
    assert sorted(path.name for path in RUNS.iterdir()) == ["version_0", "version_1"]
    assert steps_logged(RUNS / "version_1") == [1, 3]
    capsys.readouterr()
    assert main(["test", *QUICKSTART, *SHORT, "--model.adapter.rank=2", "--ckpt_path=best"]) == 0


def test_last_without_any_run_starts_one(fit):
    fit("--ckpt_path=last")
    assert steps_logged(RUNS / "version_0") == [1]


def test_best_without_any_run_is_refused(capsys):
    assert main(["test", *QUICKSTART, "--ckpt_path=best"]) == 1
    assert "there is no best checkpoint yet" in capsys.readouterr().err


def test_a_finished_run_with_more_epochs_goes_on_with_the_rate_of_the_longer_schedule(fit):
    fit(epochs=2)
    fit("--ckpt_path=last", "--trainer.callbacks+=LearningRateMonitor", "--trainer.log_every_n_steps=1", epochs=4)
    with (RUNS / "version_0/metrics.csv").open(newline="") as file:
        rates = [float(row["lr-AdamW/pg1"]) for row in csv.DictReader(file) if row.get("lr-AdamW/pg1")]
    assert rates[0] > 0.006  # the shorter one ends at 0


@pytest.fixture
def job(monkeypatch):
    """This process is a task of a job of SLURM."""
    Requeue.has_been = False
    variables = {"JOB_ID": 7, "NTASKS": 1, "NTASKS_PER_NODE": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NNODES": 1}
    for name, value in {**variables, "JOB_NAME": "train", "NODELIST": "localhost"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


@pytest.mark.usefixtures("job")
def test_a_requeued_job_goes_on_and_tests_and_exports_its_best_checkpoint(fit, monkeypatch, capsys):
    requeue = f"--trainer.callbacks+={HERE}.Requeue"
    fit(requeue, epochs=3, code=1)
    assert [path.name for path in RUNS.rglob("*.ckpt") if "hpc" in path.name] == ["hpc_ckpt_1.ckpt"]
    # Another job beside it starts for itself.
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    fit()
    # Another run of the same job, too.
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    fit("--model.adapter.rank=2")
    summary = fit(requeue, epochs=3)
    assert sorted(path.name for path in RUNS.iterdir()) == ["job_7", "job_7_1", "job_8"]
    assert steps_logged(RUNS / "job_7") == [1, 3, 5]
    assert Path(summary["checkpoint"]) == RUNS / "job_7/checkpoints/best.ckpt"
    assert not list(Path().rglob("hpc_ckpt*"))
    again = read_json(RUNS / "job_7/record.json")["metrics"]["test/accuracy"]
    assert float(summary["test/accuracy"]) == pytest.approx(again, abs=1e-4)
    assert main(["test", *QUICKSTART, *SHORT, "--ckpt_path", summary["checkpoint"]]) == 0
    assert str(again)[:6] in capsys.readouterr().out


@pytest.mark.parametrize("logger", [f"{HERE}.Elsewhere", "false"])
def test_runs_have_folders_of_their_own_whatever_the_logger(fit, logger, capsys):
    for seed in (0, 1):
        summary = fit(f"--trainer.logger={logger}", f"--seed_everything={seed}")
        folder = Path(f"runs/quickstart/version_{seed}")
        assert Path(summary["checkpoint"]) == folder / "checkpoints/best.ckpt"
        assert Path(summary["adapter"]) == folder / "adapter"
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"] == seed
        assert (folder / "metrics.csv").is_file() == (logger != "false")
    assert {path.name for path in Path().iterdir()} == {"runs"}
    capsys.readouterr()
    assert main(["report", "runs"]) == 0
    assert "| 14,794 | 0.01 | 2 |" in capsys.readouterr().out


def test_a_users_logger_stays_the_first(fit, monkeypatch):
    seen = []
    monkeypatch.setattr(Elsewhere, "log_metrics", lambda self, metrics, step=None: seen.append(step))
    fit(f"--trainer.logger={HERE}.Elsewhere")
    assert seen


def run_folder(name: str = "x") -> RunFolder:
    return RunFolder(RunTrainer(logger=CSVLogger("runs", name=name), accelerator="cpu"), dict)


def test_of_two_runs_that_chose_one_folder_at_the_same_instant_each_gets_its_own():
    first, second, third = (run_folder() for _ in range(3))
    assert first.path == second.path == third.path == "runs/x/version_0"
    made = [folder.claim() for folder in (first, second, third)]
    assert [folder.path for folder in (first, second, third)] == [f"runs/x/version_{n}" for n in range(3)]
    assert [[str(path) for path in new] for new in made][1:] == [["runs/x/version_1"], ["runs/x/version_2"]]
    assert second.claim() == [] and second.path == "runs/x/version_1"


def test_a_file_in_place_of_the_folder_is_no_reason_to_choose_for_ever():
    folder = run_folder()
    Path(folder.path).parent.mkdir(parents=True)
    Path(folder.path).touch()
    with pytest.raises(FileExistsError):
        folder.claim()


def test_the_newest_run_is_that_of_the_greatest_number_whatever_the_clock_was():
    for seconds, version in enumerate((10, 9, 2)):
        path = Path(f"runs/x/version_{version}/checkpoints/best.ckpt")
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (seconds, seconds))
    assert run_folder().found("last") == "runs/x/version_10/checkpoints/best.ckpt"
