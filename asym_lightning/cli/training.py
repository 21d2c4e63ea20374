"""The commands fit, validate, test and predict: Lightning's CLI with this package's defaults."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_parsing_settings
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities import rank_zero_only

from asym_lightning.adapters import adapter_layers, num_weights, trainable_parameters, trained_state_dict
from asym_lightning.callbacks import ClassScores, RowAdapters, RunRecord
from asym_lightning.cli.class_names import import_all
from asym_lightning.cli.class_options import check_options_of
from asym_lightning.cli.config_files import with_config_paths
from asym_lightning.cli.devices import check_devices
from asym_lightning.cli.errors import check_checkpoint
from asym_lightning.cli.given import Given
from asym_lightning.cli.help import VERSION
from asym_lightning.cli.interrupts import heard, keeping_interrupts, leaving_termination_to_trainer
from asym_lightning.cli.log_interval import LogEachEpoch
from asym_lightning.cli.model_summary import TrainedParts
from asym_lightning.cli.option_ranges import check_ranges
from asym_lightning.cli.quiet import hush_progress
from asym_lightning.cli.restoring import restoring
from asym_lightning.cli.run_checkpoints import checkpoint_of_run
from asym_lightning.cli.run_folder import RunFolder, RunTrainer, missing, remove_requeued
from asym_lightning.cli.run_names import check_run_names, run_name
from asym_lightning.cli.short_config import SHORT_CONFIG
from asym_lightning.cli.untrained import Untrained
from asym_lightning.core.dtensor import any_sharded
from asym_lightning.core.files import REFUSALS
from asym_lightning.core.run_files import ADAPTER, RUNS, is_run
from asym_lightning.lifecycle.adapter_directory import save_with_outside
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.checkpoint_file import read_checkpoint
from asym_lightning.lifecycle.label_names import HasLabelNames, is_adapter_directory, saved_label_names
from asym_lightning.lifecycle.predictions import PredictionsFile
from asym_lightning.modules.evaluation_sets import EvaluationSetsModule
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule

# Or a later config could not put a class of torch in its place: to jsonargparse a dataclass is no class among others.
set_parsing_settings(subclasses_enabled=[WarmupSchedule, TorchSchedule])


class TrainingCLI(LightningCLI):
    """Lightning's CLI for any module and data module, with runs in `runs/<name>/version_N`.

    Args:
        args: A subcommand and its options.
    """

    _command = ""
    _run_name = "default"
    _checkpoint: str | None = None
    """What is gone on from, or evaluated: the path that `ckpt_path` stands for."""

    def __init__(self, args: Sequence[str]) -> None:
        if any(argument.partition("=")[0].endswith("help") for argument in args):
            import_all()  # a help text lists the classes that there are, and knows them by name
        if "--help" in args:  # `--help all`
            args = [args[0], "--help"]
        self._command = args[0] if args else ""
        self._run_name = run_name(Given.parse(args[1:]).configs)
        super().__init__(
            args=list(args),
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_class=RunTrainer,
            trainer_defaults={
                "logger": {
                    "class_path": "lightning.pytorch.loggers.CSVLogger",
                    "init_args": {"save_dir": RUNS, "name": self._run_name},
                }
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks the object
        """Return the command that is asked for: of four parsers, each of which takes time to make, one is needed."""
        known = super().subcommands()
        return {self._command: known[self._command]} if self._command in known else known

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that raises what is wrong instead of exiting, and reads the short form of a config."""
        kwargs = {**kwargs, "exit_on_error": False, "parser_mode": SHORT_CONFIG}
        kwargs["dump_header"] = [VERSION]
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what Lightning's CLI has not; every subcommand takes all of it, so that one config suits them all."""
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="Test the best checkpoint when fit ends (other commands ignore it).",
        )
        parser.add_argument(
            "--num_threads",
            type=PositiveInt | None,
            default=None,
            help="Threads that PyTorch uses on a CPU; null leaves it to PyTorch. For a tiny model one is fastest: more "
            "wait for each other, and on a busy machine for long.",
        )
        parser.add_argument(
            "--predictions",
            type=str | None,
            default=None,
            help="File in the run's folder that predict writes, ending in .csv, .tsv, .jsonl or .parquet; null means "
            "the task's own, predictions.csv for classes (other commands ignore it).",
        )
        parser.add_argument(
            "--adapters",
            type=dict[str, str] | None,
            default=None,
            help="Directories of adapters over one A, by the names that rows of the data have for them, as those of "
            "`RowAdapters`: '{reviews: runs/reviews/version_0, ...}' (fit ignores it).",
        )
        parser.add_argument("--quiet", action="store_true", help="Say what came out, and on the way only warnings.")
        parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments that were handed over, whatever `sys.argv` holds; configs may be named as recipes are."""
        self.config = parser.parse_args(with_config_paths(args))
        if self.config.get("subcommand"):
            options = self.config[self.config.subcommand]
            if options.quiet:
                hush_progress()
            check_ranges(options.as_dict())
            check_run_names(options.trainer.as_dict())
            check_checkpoint(
                options.get("ckpt_path"),
                str(options.get("trainer.strategy")),
                is_to_go_on=self.config.subcommand == "fit",
            )
            check_devices(options.trainer)
            for section in ("model", "data"):
                check_options_of(section, options.get(section))
        self._given_config = self.config.clone()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, which says and logs as much as suits; fit and test record themselves, for `report`."""
        options = self.config_init.get(str(self.subcommand), self.config_init).trainer
        if self._option("quiet"):
            kwargs |= {"enable_progress_bar": False, "enable_model_summary": False}
        elif options.get("enable_model_summary") is not False and not _has_summary(options.get("callbacks")):
            self.trainer_defaults["callbacks"] = [TrainedParts()]
        trainer = super().instantiate_trainer(**kwargs)
        self._settle_folder(trainer)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
        if self.subcommand != "fit" and (adapters := self._option("adapters")):
            callbacks.append(RowAdapters(adapters))
        if self.subcommand == "predict" and not any(isinstance(callback, PredictionsFile) for callback in callbacks):
            callbacks.append(PredictionsFile(self._option("predictions")))
        records = self.subcommand in ("fit", "test")
        if records and not any(isinstance(callback, RunRecord) for callback in callbacks):
            callbacks.append(RunRecord())
        if isinstance(self.model, EvaluationSetsModule) and not any(isinstance(c, ClassScores) for c in callbacks):
            callbacks.append(ClassScores())
        if options.get("log_every_n_steps") is None:
            callbacks.append(LogEachEpoch())
        return trainer

    def _settle_folder(self, trainer: Trainer) -> None:
        """Let the run have a folder of its own, or that of the run which it goes on with."""
        self._checkpoint = self._option("ckpt_path")
        is_to_go_on = self.subcommand == "fit"
        if self._checkpoint is not None and is_run(self._checkpoint):
            self._checkpoint = str(checkpoint_of_run(self._checkpoint, is_to_go_on=is_to_go_on))
        if not isinstance(trainer, RunTrainer) or trainer.fast_dev_run:  # type: ignore[attr-defined]  # of a connector
            return
        folder = RunFolder(trainer, self._asked_for, self._run_name)
        self._checkpoint = folder.found(self._checkpoint, is_to_go_on=is_to_go_on)
        if self.subcommand == "fit":
            if self._checkpoint is None:
                folder.go_on_with_job()
            else:
                folder.go_on_from(self._checkpoint)
        trainer.folder = folder

    def _asked_for(self) -> dict[str, Any]:
        """The config as it is going to be saved."""
        asked: dict[str, Any] = yaml.safe_load(self.parser.dump(self._given_config, skip_none=False))
        return asked.get(str(self.subcommand), asked)

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before anything computes, and build what the config says.

        Lightning lets the hyperparameters in a checkpoint win over the config, silently: `--ckpt_path` would undo
        `--model.decoding.num_beams 8`, and put the class that was trained in place of the one that evaluates it.
        """
        self.config = self._given_config
        if num_threads := self._option("num_threads"):
            torch.set_num_threads(num_threads)

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train, test the best checkpoint if asked to, save its adapter and say what came out."""
        started = time.monotonic()
        self._run(self.trainer.fit, model=model, **kwargs)
        seconds = time.monotonic() - started
        metrics = dict(self.trainer.callback_metrics)
        remove_requeued(self.trainer)  # or Lightning would test it in place of what is loaded here

        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if best:
            checkpoint = read_checkpoint(best)
            model.on_load_checkpoint(checkpoint)
            model.load_state_dict(checkpoint["state_dict"], strict=model.strict_loading)
        if self._option("test_after_fit"):
            with _started(self.trainer):
                self.trainer.test(model, datamodule=kwargs.get("datamodule"), verbose=False)
            metrics = dict(self.trainer.callback_metrics)
        print_summary(model, metrics, seconds, best, saved_adapter(self.trainer, model))

    def validate(self, **kwargs: Any) -> None:
        """Evaluate on the validation data."""
        self._run(self.trainer.validate, **kwargs)

    def test(self, **kwargs: Any) -> None:
        """Evaluate on the test data."""
        self._run(self.trainer.test, **kwargs)

    def predict(self, **kwargs: Any) -> None:
        """Predict, and write what was predicted to a file in the run directory."""
        self._run(self.trainer.predict, **{**kwargs, "return_predictions": False})  # nobody is there to take them
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
        written = next(callback for callback in callbacks if isinstance(callback, PredictionsFile))
        if self.trainer.is_global_zero:
            print("\n".join(f"predictions  {path}" for path in written.paths))

    def _option(self, name: str) -> Any:
        return self.config.get(str(self.subcommand), self.config).get(name)

    def _run(self, command: Callable[..., Any], **kwargs: Any) -> Any:
        checkpoint = self._checkpoint
        if isinstance(self.model, HasLabelNames) and self.model.label_names is None and checkpoint is not None:
            # Data without classes, such as images to predict, can't tell.
            self.model.adopt_label_names(saved_label_names(checkpoint) or ())
        if self.subcommand != "fit":
            is_adapter = checkpoint is not None and is_adapter_directory(checkpoint)
            if is_adapter or (checkpoint is None and not self._option("adapters")):
                self.trainer.callbacks.append(Untrained(checkpoint))  # type: ignore[attr-defined]  # of a connector
            checkpoint = None if is_adapter else checkpoint
        kwargs["ckpt_path"] = checkpoint
        if kwargs.get("weights_only") is None:
            kwargs["weights_only"] = True  # a checkpoint is data and must not run code
        with _started(self.trainer), restoring(kwargs.get("ckpt_path")):
            return command(**kwargs)


def _has_summary(callbacks: Callback | list[Callback] | None) -> bool:
    given = callbacks if isinstance(callbacks, list) else [callbacks]
    return any(isinstance(callback, ModelSummary) for callback in given)


@contextmanager
def _started(trainer: Trainer) -> Iterator[None]:
    """What surrounds whatever a Trainer does."""
    with leaving_termination_to_trainer(), keeping_interrupts(), started_runs_only(trainer):
        yield


@contextmanager
def started_runs_only(trainer: Trainer) -> Iterator[None]:
    """Let a run leave a directory behind only if it got as far as to do something.

    A wrong config may show as late as in the first step; the directory of such a run, which Lightning makes early, is
    removed, unless there is a checkpoint in it.

    Raises:
        KeyboardInterrupt: If the run was interrupted, which Lightning turns into a silent exit.
        OSError: If the system would not write; it names the run's directory where nothing else was named.
    """
    if isinstance(trainer, RunTrainer) and trainer.folder is not None:
        new = trainer.folder.claim()
    else:
        new = missing(trainer.log_dir or ".")
    run = Path(trainer.log_dir or ".")
    try:
        yield
    except SystemExit as error:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        heard()
        checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "") or "none"
        raise KeyboardInterrupt(f"interrupted at step {trainer.global_step}, best checkpoint: {checkpoint}") from error
    except Exception as error:
        has_done_nothing = trainer.global_step <= 1 and not any(run.rglob("*.ckpt"))
        if has_done_nothing and trainer.is_global_zero and run in new:
            shutil.rmtree(run, ignore_errors=True)
            for parent in new[1:]:
                with suppress(OSError):  # another run's folder is there by now
                    parent.rmdir()
        if isinstance(error, OSError) and error.errno in REFUSALS and error.filename is None:
            raise OSError(error.errno, error.strerror, str(run)) from error
        raise


def saved_adapter(trainer: Trainer, model: LightningModule) -> Path | None:
    """Save the adapter to the run directory and return where, or None if there is no adapter or no directory."""
    folder = trainer.log_dir  # of all processes: the Trainer sends it to them
    if isinstance(trainer.strategy, FSDPStrategy):  # flattened in parts; checkpoints have them whole
        return None
    backbone, is_sharded = adapted_backbone(trainer, model), any_sharded(model)
    if not folder or not adapter_layers(backbone) or not (trainer.is_global_zero or is_sharded):
        return None
    directory = Path(folder, ADAPTER)
    state = {} if is_sharded else trained_state_dict(model)
    save_with_outside(model, backbone, state, directory, writes_whole=not is_sharded)
    return directory


@rank_zero_only
def print_summary(
    model: LightningModule, metrics: dict[str, torch.Tensor], seconds: float, checkpoint: str, adapter: Path | None
) -> None:
    """Print the last lines of a fit: metrics, time, what trained, and where it is."""
    total = sum(num_weights(parameter) for parameter in model.parameters())
    trained = sum(parameter.numel() for _, parameter in trainable_parameters(model))
    lines = {name: f"{float(value):.4f}" for name, value in sorted(metrics.items())}
    lines["time"] = f"{seconds:.1f} s"
    lines["trained"] = f"{trained:,} of {total:,} parameters ({trained / total:.2%})"
    lines["checkpoint"] = checkpoint or "none, all this is of the weights after the last step"
    if adapter:
        lines["adapter"] = str(adapter)
    width = max(map(len, lines))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in lines.items()))
