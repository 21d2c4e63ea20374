"""Options of the wrong kind or out of range, in Python and on the command line."""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

import asym_lightning.callbacks
import asym_lightning.data
import asym_lightning.modules
from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Range
from asym_lightning.core.messages import printable
from benchmarks.malformed import values
from benchmarks.malformed.case import Case
from benchmarks.malformed.command import fit_in

# What a class can't do without; those of which nothing more is known are left out.
_REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "DomainBedDataModule": {"dataset": "PACS"},
    "GLUEDataModule": {"task": "rte"},
    "ImageFolderDataModule": {"folder": "images"},
    "ImageClassifier": {"backbone": "vit_digits", "num_classes": 10},
    "TextClassifier": {"backbone": "roberta-base"},
    "Summarizer": {"backbone": "t5-small"},
    "InstructionTuner": {"backbone": "gpt2"},
    "MMLUEvaluator": {"backbone": "gpt2"},
    "TextFilesDataModule": {"train": "train.csv"},
    "SummarizationDataModule": {"train": "train.csv"},
    "AlpacaDataModule": {"train": "train.json"},
    "MMLUDataModule": {"folder": "mmlu"},
    "Budget": {"total": 4, "end_step": 10},
    "GrowOnStall": {"monitor": "val/loss", "max_rank": 4},
    "OrderSeed": {"seed": 0},
    "Milestones": {"ranks": {2: 3}},
    "TorchSchedule": {"make": dict},
    "PrivateTraining": {"epsilon": 1.0, "delta": 1e-5},
    "RedrawA": {"num_links": 2, "every_n_steps": 3},
}
_KNOWN = (bool, int, float, str)


def classes() -> Iterator[type]:
    """The classes that configs name."""
    yield AdapterConfig
    for module in (asym_lightning.data, asym_lightning.modules, asym_lightning.callbacks):
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) and not inspect.isabstract(found) and name not in ("StepOutput", "AdapterModule"):
                yield found


@functools.cache
def _arguments(cls: type) -> dict[str, Any]:
    """Arguments of a kind that is known here, with their annotations."""
    hints = get_type_hints(cls.__init__, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return" and _wrong(hint) is not None}


def _wrong(annotation: Any) -> st.SearchStrategy[Any] | None:
    """Values that an annotation does not allow; None where it may allow anything."""
    parts = list(_parts(annotation))
    kinds = [kind for kind, _ in parts]
    if any(kind not in _KNOWN and kind is not type(None) and _plain(kind) is None for kind in kinds):
        return None
    candidates: list[Any] = [*values.NOT_FINITE, *values.HUGE, {1: 2}, {"a": {"b": [3]}}]
    if type(None) not in kinds:
        candidates.append(None)
    if bool not in kinds:
        candidates += [True, False] if not any(get_origin(kind) is Literal for kind in kinds) else []
    if not any(_plain(kind) is Sequence for kind in kinds):
        candidates += [[1], ["a"], ()]
    else:
        candidates += [[None], [[1]], [{}], 3]
    if str not in kinds and not any(get_origin(kind) is Literal for kind in kinds):
        candidates += ["x", "", "3"] if not any(get_args(kind) == (str,) for kind in kinds) else []
    if float not in kinds:
        candidates += [0.5, 1e-9] if int in kinds else [2.5]
    if any(get_origin(kind) is Literal for kind in kinds):
        candidates += ["x", "", 3]
    for kind, limits in parts:
        if kind in (int, float) and limits is not None:
            candidates += _beyond(kind, limits)
    return st.sampled_from(candidates)


def _beyond(kind: type, limits: Range) -> list[Any]:
    step = 1 if kind is int else 0.01
    low = [limits.low - step, limits.low - 1000] if limits.low > -math.inf else []
    high = [limits.high + step, limits.high * 2 + 1] if limits.high < math.inf else []
    edges = [limits.low] * limits.is_open_below + [limits.high] * limits.is_open_above
    return [kind(value) for value in (*low, *high, *edges) if math.isfinite(value)]


def _parts(annotation: Any) -> Iterator[tuple[Any, Range | None]]:
    if get_origin(annotation) is Annotated:
        kind, *others = get_args(annotation)
        limits = next((other for other in others if isinstance(other, Range)), None)
        yield from ((part, limits) for part, _ in _parts(kind))
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation, None


def _plain(kind: Any) -> Any:
    origin = get_origin(kind)
    return origin if origin in (Literal, Sequence) else None


@st.composite
def _constructor_cases(draw: st.DrawFn) -> Case:
    cls = draw(st.sampled_from([found for found in classes() if _arguments(found)]))
    name = draw(st.sampled_from(list(_arguments(cls))))
    wrong = _wrong(_arguments(cls)[name])
    assert wrong is not None
    value = draw(wrong)
    arguments = {**_REQUIRED.get(cls.__name__, {}), name: value}
    return Case(f"{cls.__name__}({name}={value!r:.60})", (name,), lambda folder: None, lambda folder: cls(**arguments))


_NOT_COUNTS = ("0", "-1", "2.5", ".nan", ".inf", "x", "[1]", "1e308", str(2**70), "true")
_NOT_SHARES = ("-0.1", "1.5", ".nan", ".inf", "-.inf", "x", "[1]", "1e308", str(2**70))
_ON_COMMAND_LINE: Mapping[str, Sequence[str]] = {
    "model.adapter.rank": _NOT_COUNTS,
    "model.adapter.alpha": ("0", "-1", ".nan", ".inf", "1e308", "x", "[1]"),
    "model.adapter.dropout": ("1", *_NOT_SHARES),
    "model.adapter.seed": ("2.5", ".nan", "x", str(2**70), "[1]"),
    "model.adapter.scheme": ("", "x", "hB_zero", "A_rand_A_rand", "3"),
    "model.adapter.max_rank": ("0", "3", ".inf", "1000000000", "x"),
    "model.adapter.targets": ("[]", "[no_such_layer]", "[3]"),
    "model.num_classes": _NOT_COUNTS,
    "model.label_smoothing": _NOT_SHARES,
    "model.class_weights": ("[1]", "[-1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", "x", "[.nan]", "[[1]]"),
    "model.mixup": ("-1", ".nan", ".inf", "x", "1e308"),
    "model.optimizer.lr": ("-1", ".nan", ".inf", "-.inf", "x", "1e308"),
    "model.optimizer.weight_decay": ("-1", ".nan", ".inf", "x", "1e308"),
    "model.scheduler.warmup": ("1", *_NOT_SHARES),
    "model.backbone": ("", "no_such_model", "/no/such/folder", "../../etc", "\x00"),
    "data.num_train": _NOT_COUNTS,
    "data.angles": ("[]", "[.nan]", "[.inf]", "[x]", "x", "[1e308]"),
    "data.seed": ("-1", "2.5", ".nan", str(2**40), str(2**70), "x"),
    "data.loader.batch_size": _NOT_COUNTS,
    "data.loader.num_workers": ("-1", "2.5", ".nan", "100000", "x"),
    "trainer.max_epochs": ("-2", "2.5", ".nan", ".inf", "x", str(2**70)),
    "trainer.accumulate_grad_batches": ("0", "-1", "2.5", ".nan", "x", str(2**70)),
    "trainer.max_steps": ("-2", "2.5", ".nan", "x", str(2**70)),
    "trainer.limit_train_batches": ("-1", "-0.5", ".nan", ".inf", "x", "1e308", "1.5"),
    "trainer.limit_val_batches": ("-1", ".nan", ".inf", "x", "1.5"),
    "trainer.gradient_clip_val": ("-1", ".nan", ".inf", "x", "1e308"),
    "trainer.devices": ("99", "0", "-3", "x", "2.5", ".nan", "[99]", str(2**70)),
    "trainer.num_nodes": ("0", "-1", ".nan", "x"),
    "trainer.accelerator": ("x", "", "3"),
    "trainer.precision": ("x", "7", ""),
    "trainer.strategy": ("x", "", "3"),
    "trainer.log_every_n_steps": ("-1", ".nan", "x", "2.5"),
    "trainer.check_val_every_n_epoch": ("0", "-1", ".nan", "x"),
    "trainer.val_check_interval": ("-1", "-0.5", "0", ".nan", ".inf", "1.5", "x", str(2**70)),
    "trainer.max_time": ("x", "-1", "1:2", "[1]"),
    "trainer.gradient_clip_algorithm": ("x", "3"),
    "trainer.min_epochs": ("-1", ".nan", "x"),
    "trainer.overfit_batches": ("-1", ".nan", "1.5", "x"),
    "trainer.reload_dataloaders_every_n_epochs": ("-1", ".nan", "x"),
    "trainer.fast_dev_run": ("-1", ".nan", "x", "2.5"),
    "trainer.profiler": ("x", "3"),
    "trainer.num_sanity_val_steps": ("-2", ".nan", "x"),
    "trainer.logger.name": ("../../escaped", "/tmp/escaped", "a/../../b", "x" * 300),
    "trainer.logger.version": ("../../escaped", "/tmp/escaped", "x" * 300),
    "trainer.logger.save_dir": ("/proc/no", "/dev/null/x", "/dev/null"),
    "num_threads": ("0", "-1", "3000", "2.5", ".nan", str(2**70), "x"),
    "seed_everything": ("-1", str(2**40), str(2**70), ".nan", "x", "2.5"),
    "ckpt_path": ("no_such.ckpt", "/dev/zero", "/dev/null", "/", "\x1b[31m.ckpt"),
    "no_such_option": ("1",),
    "trainer.no_such_option": ("1",),
    "model.no_such_option": ("1",),
    "model.backbone_options.model_args": ("[1]", "x", "{no_such: 1}", "{depth: x}", "{depth: -1}", "{embed_dim: 1e9}"),
    "model.backbone_options.precision": ("x", "float8", "3"),
}  # fmt: skip


def _option_case(option: str, value: str) -> Case:
    last = option.rpartition(".")[2]
    call: Callable[[Path], Any] = lambda folder: fit_in(folder, f"--{option}={value}")  # noqa: E731
    return Case(f"--{option}={value:.40}", (option, last, printable(value[:20]) or option), lambda folder: None, call)


@st.composite
def _option_cases(draw: st.DrawFn) -> Case:
    option = draw(st.sampled_from(list(_ON_COMMAND_LINE)))
    return _option_case(option, draw(st.sampled_from(_ON_COMMAND_LINE[option])))


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""
    seen = {
        "num_threads": ["3000", str(2**70)],
        "trainer.devices": ["99"],
        "trainer.accumulate_grad_batches": ["0", "-1", ".nan"],
        "trainer.val_check_interval": ["0", "-0.5", "1.5", "x"],
        "seed_everything": [str(2**40)],
        "data.angles": ["[.nan]"],
        "data.num_train": ["-1", str(2**70)],
        "trainer.logger.name": ["../../escaped"],
        "trainer.logger.save_dir": ["/proc/no", "/dev/null"],
        "model.adapter.alpha": ["1e308", ".nan", ".inf", "-1"],
        "model.optimizer.lr": [".nan", ".inf", "-1"],
        "model.backbone_options.model_args": ["{no_such: 1}", "{depth: x}"],
    }
    return [_option_case(option, value) for option, values in seen.items() for value in values]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(_constructor_cases(), _option_cases())
