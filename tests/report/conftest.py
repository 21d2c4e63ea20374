import json

import pytest
import yaml


@pytest.fixture
def write_run(tmp_path):
    """Write a run directory as `fit` in a sweep leaves it; what is None is left out."""

    def write(
        arm="b_only", seed=0, test=0.8, *, task="digits", rate=0.01, validation=None, metric="accuracy", name=None,
        rank=8, backbone="vit_digits", trained=100, status="finished", record=True, outcome=True, mode="max",
        tests=None,
    ):  # fmt: skip
        directory = tmp_path / (name or f"{task}/{arm}/lr_{rate:g}/seed_{seed}")
        directory.mkdir(parents=True)
        config = {
            "seed_everything": seed,
            "model": {
                "class_path": "ImageClassifier",
                "init_args": {
                    "backbone": backbone,
                    "adapter": {"scheme": "hB_zero_A_rand", "rank": rank, "seed": seed},
                    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": rate}},
                },
            },
            "data": {"class_path": "asym_lightning.data.DigitsDataModule", "init_args": {"angles": [180]}},
            "trainer": {"max_epochs": 3, "logger": {"init_args": {"save_dir": str(directory)}}},
        }
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
        if record:
            written = {
                "monitor": f"val/{metric}",
                "mode": mode,
                "validation": test - 0.01 if validation is None else validation,
                "metrics": {} if test is None else {f"val/{metric}": test, **(tests or {f"test/{metric}": test})},
                "trained": trained,
                "total": 1000,
                "trained_A": 0,
                "trained_B": trained,
                "ranks": {"blocks.0.q": rank},
                "seconds": 2.0 + seed,
                "saved_bytes": 1_000_000,
                "peak_bytes": None,
            }
            (directory / "record.json").write_text(json.dumps(written))
        if outcome:
            identity = {"task": task, "arm": arm, "learning_rate": rate, "seed": seed}
            error = "`rank` is too large." if status == "failed" else None
            (directory / "run.json").write_text(json.dumps({"status": status, "error": error, **identity}))
        rows = ["epoch,step,val/accuracy", "0,9,0.5", "1,19,0.7"]
        (directory / "metrics.csv").write_text("\n".join(rows) + "\n")
        return directory

    return write
