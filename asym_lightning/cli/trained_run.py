"""Finished runs: the model that a run directory describes, with what was trained in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningArgumentParser

from asym_lightning.adapters import load_adapters
from asym_lightning.cli.class_names import import_named
from asym_lightning.cli.errors import check_checkpoint
from asym_lightning.cli.run_checkpoints import best_checkpoint
from asym_lightning.cli.short_config import with_init_args
from asym_lightning.core.run_files import ADAPTER, RECORD, read_config, read_facts
from asym_lightning.lifecycle.checkpoint_file import read_checkpoint
from asym_lightning.lifecycle.label_names import saved_label_names

PREPROCESSORS = ("tokenizer", "feature_extractor", "processor")
"""Arguments of data modules that name what stands beside a model; null means beside the backbone."""
# Arguments of data modules that say what the data is, and where.
_NAMES_OF_DATA = (("task", "dataset"), ("folder", "train"))


@dataclass(frozen=True)
class TrainedRun:
    """A run that was trained.

    Args:
        model: The module, built and with its trained weights.
        backbone_name: What the config calls the backbone.
        preprocessors: Where its tokenizer, feature extractor and processor are, by what they are called, as far as the
            task has them.
        data: The class of its data, and the data's names; folders that hold them are not named.
        scores: What it came to, by metric; those of the test, else those of the validation.
    """

    model: LightningModule
    backbone_name: str
    preprocessors: Mapping[str, str]
    data: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokenizer_name(self) -> str | None:
        """Where its tokenizer is; None where the task has none."""
        return self.preprocessors.get("tokenizer")

    @property
    def label_names(self) -> list[str]:
        """Names of the classes by number; none where there are no classes, or no names."""
        return list(getattr(self.model, "label_names", None) or ())


def load_trained_run(
    directory: str | Path, checkpoint: str | Path | None = None, *, precision: str | None = None
) -> TrainedRun:
    """Build the model of a run directory and load what was trained.

    Args:
        directory: A run directory, which holds `config.yaml`.
        checkpoint: The checkpoint to load. None takes the best one of the run, or the only one, or the saved adapter.
        precision: Of the backbone's weights; None means as they were trained.

    Raises:
        FileNotFoundError: If there is no run, no checkpoint or no adapter.
        ValueError: If there are several checkpoints to choose from, or one does not fit.
    """
    directory = Path(directory)
    config = with_init_args(read_config(directory))
    import_named(str(config))
    if checkpoint is not None:
        check_checkpoint(str(checkpoint))
    found = Path(checkpoint) if checkpoint is not None else best_checkpoint(directory, "--checkpoint")
    adapter = directory / ADAPTER
    if found is None and not adapter.is_dir():
        raise FileNotFoundError(f"the run {str(directory)!r} has neither a checkpoint nor an adapter.")
    arguments = config.get("model", {}).get("init_args") or {}
    if "backbone" not in arguments:
        raise ValueError(f"the config of {str(directory)!r} names no model with a `backbone`.")
    if precision is not None:
        arguments["backbone_options"] = {**(arguments.get("backbone_options") or {}), "precision": precision}
    saved = None if found is None else read_checkpoint(found)
    learnt = {"label_names": saved_label_names(adapter)} if saved is None else saved.get("hyper_parameters", {})
    model = _built(config["model"], learnt)
    model.configure_model()
    if saved is None:
        load_adapters(model.backbone, adapter)  # type: ignore[arg-type]
    else:
        model.on_load_checkpoint(saved)
        model.load_state_dict(saved["state_dict"], strict=model.strict_loading)
    of_data = (config.get("data") or {}).get("init_args") or {}
    return TrainedRun(
        model.eval(),
        arguments["backbone"],
        {name: of_data[name] or arguments["backbone"] for name in PREPROCESSORS if name in of_data},
        _data(config.get("data")),
        _scores(read_facts(directory, RECORD)),
    )


def _data(config: Any) -> str | None:
    """What data a config names.

    >>> _data({"class_path": "asym_lightning.data.GLUEDataModule", "init_args": {"task": "rte", "folder": "/me/glue"}})
    '`GLUEDataModule`: rte, glue'
    """
    if not isinstance(config, dict) or "class_path" not in config:
        return None
    arguments = config.get("init_args") or {}
    given = [[arguments[name] for name in names if arguments.get(name)] for names in _NAMES_OF_DATA]
    named = [Path(str(values[0])).name for values in given if values]
    return f"`{config['class_path'].rpartition('.')[2]}`" + (f": {', '.join(named)}" if named else "")


def _scores(record: dict[str, Any]) -> dict[str, float]:
    metrics = {name: value for name, value in record.get("metrics", {}).items() if isinstance(value, float)}
    chosen: dict[str, float] = {}
    if isinstance(record.get("validation"), float) and record.get("monitor"):
        chosen[record["monitor"]] = record["validation"]  # of the checkpoint, where `metrics` are of the last one
    tested = {name: value for name, value in metrics.items() if name.startswith("test/")}
    others = {name: value for name, value in metrics.items() if name.startswith("val/")}
    return {**chosen, **(tested or others if tested or not chosen else {})}


def _built(config: dict[str, Any], hyperparameters: dict[str, Any]) -> LightningModule:
    arguments = dict(config.get("init_args") or {})
    # What a module learnt from its data module, such as the names of the classes, is in the checkpoint alone.
    arguments |= {
        name: value for name, value in hyperparameters.items() if name in arguments and arguments[name] is None
    }
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parsed = parser.parse_object({"model": {**config, "init_args": arguments}})
    model: LightningModule = parser.instantiate_classes(parsed).model
    return model
