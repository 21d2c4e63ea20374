"""Folders of runs of which something is wrong, as reports, comparisons and exports read them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from asym_lightning.adapters import save_adapters
from asym_lightning.adapters.files.directory import CONFIG_FILE, TENSOR_FILE
from asym_lightning.core.run_files import ADAPTER, CONFIG, OUTCOME, RECORD
from asym_lightning.modules import ImageClassifier
from benchmarks.malformed import values
from benchmarks.malformed.adapters import PLACES
from benchmarks.malformed.case import Case
from benchmarks.malformed.command import run_command

RUN = "run"
_CLASS = "asym_lightning.modules.ImageClassifier"
_ADAPTER: Mapping[str, Any] = {"scheme": "hB_zero_A_rand", "rank": 2, "seed": 0}
_RESOLVED: Mapping[str, Any] = {
    "seed_everything": 0,
    "model": {
        "class_path": _CLASS,
        "init_args": {"backbone": "vit_digits", "num_classes": 10, "adapter": dict(_ADAPTER),
                      "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}},
    },
    "data": {"class_path": "asym_lightning.data.DigitsDataModule", "init_args": {"angles": [180]}},
    "trainer": {"max_epochs": 1},
}  # fmt: skip
_RECORD: Mapping[str, Any] = {
    "monitor": "val/accuracy", "mode": "max", "validation": 0.7, "metrics": {"val/accuracy": 0.7, "test/accuracy": 0.6},
    "trained": 100, "total": 1000, "trained_A": 0, "trained_B": 100, "ranks": {"q": 2}, "seconds": 2.0,
    "saved_bytes": 1000, "peak_bytes": None,
}  # fmt: skip


@functools.cache
def _adapter() -> Mapping[str, bytes]:
    from asym_lightning.adapters import AdapterConfig

    model = ImageClassifier("vit_digits", num_classes=10, adapter=AdapterConfig(**_ADAPTER))
    model.configure_model()
    with tempfile.TemporaryDirectory() as name:
        save_adapters(model.backbone, name)  # type: ignore[arg-type]
        return {file: Path(name, file).read_bytes() for file in (CONFIG_FILE, TENSOR_FILE)}


def write_run(folder: Path, number: int = 0) -> Path:
    """A finished run, of which nothing is wrong."""
    run = folder / (RUN if number == 0 else f"{RUN}_{number}")
    (run / ADAPTER).mkdir(parents=True)
    config = {**_RESOLVED, "seed_everything": number}
    (run / CONFIG).write_text(yaml.safe_dump(config))
    (run / RECORD).write_text(json.dumps(_RECORD))
    outcome = {"status": "finished", "error": None, "task": "digits", "arm": "b", "learning_rate": 0.01, "seed": number}
    (run / OUTCOME).write_text(json.dumps(outcome))
    (run / "metrics.csv").write_text("epoch,step,val/accuracy\n0,9,0.5\n1,19,0.7\n")
    for file, data in _adapter().items():
        (run / ADAPTER / file).write_bytes(data)
    return run


def _report(folder: Path) -> None:
    run_command(["report", RUN])


def _compare(folder: Path) -> None:
    run_command(["report", ".", "--compare", "b", "no_such_arm", "--out", "out"])


def _similarity(folder: Path) -> None:
    run_command(["similarity", RUN, f"{RUN}_1", "--out", "out"])


def _export(folder: Path) -> None:
    run_command(["export", RUN, "--output", "out"])


def _merge(folder: Path) -> None:
    run_command(["merge", RUN, "--output", "out"])


def _bounds(folder: Path) -> None:
    run_command(["bounds", RUN, "--num-samples", "10"])


READERS: Mapping[str, Callable[[Path], None]] = {
    "report": _report, "similarity": _similarity, "export": _export, "merge": _merge, "bounds": _bounds
}  # fmt: skip
# The files that each of them can't do without.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "report": (CONFIG, RECORD),
    "similarity": (f"{ADAPTER}/{CONFIG_FILE}", f"{ADAPTER}/{TENSOR_FILE}"),
    "export": (CONFIG, f"{ADAPTER}/{CONFIG_FILE}", f"{ADAPTER}/{TENSOR_FILE}"),
    "merge": (CONFIG, f"{ADAPTER}/{CONFIG_FILE}", f"{ADAPTER}/{TENSOR_FILE}"),
    "bounds": (f"{ADAPTER}/{CONFIG_FILE}", f"{ADAPTER}/{TENSOR_FILE}"),
}


def _case(what: str, reader: str, file: str, change: Callable[[Path], Any], *offenders: str) -> Case:
    def make(folder: Path) -> None:
        run = write_run(folder)
        if reader == "similarity":
            write_run(folder, 1)
        change(run / file)

    return Case(f"{reader}: {file} {what}", (*offenders, Path(file).name, RUN), make, READERS[reader])


@st.composite
def _place_cases(draw: st.DrawFn) -> Case:
    reader = draw(st.sampled_from(list(READERS)))
    file, kind = draw(st.sampled_from(NEEDED[reader])), draw(st.sampled_from(list(PLACES)))

    def replace(path: Path) -> None:
        path.unlink()
        PLACES[kind](path)

    return _case(f"is {kind}", reader, file, replace)


@st.composite
def _byte_cases(draw: st.DrawFn) -> Case:
    reader, data = draw(st.sampled_from(list(READERS))), draw(values.bytes_of_nothing())
    file = draw(st.sampled_from(NEEDED[reader]))
    return _case(f"of {data!r:.60}", reader, file, lambda path: path.write_bytes(data))


@st.composite
def _truncated_cases(draw: st.DrawFn) -> Case:
    reader, share = draw(st.sampled_from(list(READERS))), draw(st.integers(0, 90))
    return _truncated_case(reader, draw(st.sampled_from(_cuttable(reader))), share)


def _cuttable(reader: str) -> list[str]:
    return [name for name in NEEDED[reader] if name != CONFIG]  # YAML may end anywhere


def _truncated_case(reader: str, file: str, share: int) -> Case:
    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * share // 100])

    return _case(f"cut to {share}%", reader, file, cut)


_RECORD_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "metrics": (None, 3, [], "x", {"val/accuracy": "x"}, {"val/accuracy": [1]}, {}),
    "monitor": (3, ["x"], "x", "val/no_such", {}),
    "validation": ("x", [1], {}, float("nan"), float("inf")),
    "trained": ("x", [1], {}, None, -1),
    "mode": (3, "x", [1]),
}
_CONFIG_FIELDS: Mapping[str, tuple[Any, ...]] = {
    "model": (None, 3, [], "x", {}, {"class_path": "no.such.Class"}, {"class_path": 3},
              {"class_path": "os.system", "init_args": {"command": "touch was_run"}}, {"init_args": {}},
              {"class_path": _CLASS, "init_args": {"backbone": "no_such", "num_classes": 10}},
              {"class_path": _CLASS, "init_args": 3}, {"class_path": _CLASS, "init_args": {"no_such": 3}}),
}  # fmt: skip


@st.composite
def _record_cases(draw: st.DrawFn) -> Case:
    field = draw(st.sampled_from(list(_RECORD_FIELDS)))
    value = draw(st.sampled_from(_RECORD_FIELDS[field]))

    def write(path: Path) -> None:
        path.write_text(json.dumps({**_RECORD, field: value}))

    return _case(f"has {field} = {value!r}", "report", RECORD, write, field)


@st.composite
def _config_cases(draw: st.DrawFn) -> Case:
    reader, field = draw(st.sampled_from(["export", "merge"])), draw(st.sampled_from(list(_CONFIG_FIELDS)))
    value = draw(st.sampled_from(_CONFIG_FIELDS[field]))

    def write(path: Path) -> None:
        path.write_text(yaml.safe_dump({**_RESOLVED, field: value}))

    return _case(f"has {field} = {value!r:.90}", reader, CONFIG, write, field, "class", "no_such", "num_classes")


@st.composite
def _checkpoint_cases(draw: st.DrawFn) -> Case:
    reader, data = draw(st.sampled_from(["export", "merge"])), draw(values.bytes_of_nothing())
    return _case(f"of {data!r:.60}", reader, "checkpoints.ckpt", lambda path: path.write_bytes(data), "checkpoint")


@st.composite
def _argument_cases(draw: st.DrawFn) -> Case:
    arguments = draw(
        st.sampled_from(
            [
                ["report", "no_such_folder"],
                ["report", RUN, "--metrics", "no_such_metric"],
                ["report", RUN, "--compare", "b", "no_such_arm"],
                ["report", RUN, "--figures", "jpeg"],
                ["report", RUN, "--style", "no_such_style.yaml"],
                ["similarity", RUN, f"{RUN}_1", "--figures", "pdf"],
                ["similarity", "no_such_folder", RUN],
                ["similarity", RUN, "--arm", "no_such_arm"],
                ["export", "no_such_folder", "--output", "out"],
                ["export", RUN, "--output", RUN],
                ["export", RUN, "--output", "out", "--checkpoint", "no_such_folder"],
                ["merge", "no_such_folder", "--output", "out"],
                ["merge", RUN, "--output", "/dev/null/no_such_folder"],
                ["bounds", "no_such_folder", "--num-samples", "10"],
                ["bounds", RUN, "--num-samples", "0"],
                ["bounds", RUN, "--num-samples", "-3"],
                ["bounds", RUN, "--num-samples", "10", "--bits", "-1"],
                ["bounds", RUN, "--num-samples", "10", "--bits", "nan"],
                ["bounds", RUN, "--num-samples", "10", "--sigma", "inf"],
                ["bounds", RUN, "--num-samples", "x"],
            ]
        )
    )
    offenders = ("no_such", "/dev/null", RUN, "num", "bits", "sigma", "figures")
    return Case(" ".join(arguments), offenders, write_run, lambda folder: run_command(arguments))


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""

    def two(folder: Path) -> None:
        write_run(folder)
        write_run(folder, 1)

    def save_text(path: Path) -> None:
        torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, path)

    return [
        Case("report --compare of an unknown arm", ("no_such_arm",), two, _compare),
        *(_truncated_case(reader, file, 50) for reader in READERS for file in _cuttable(reader)),
        _case("of no states", "export", "best.ckpt", save_text, "checkpoint"),
        _case("of another class", "export", CONFIG, lambda p: p.write_text("model: {class_path: os.path}\n")),
        _case("of text", "export", f"{ADAPTER}/{TENSOR_FILE}", lambda p: p.write_text("x")),
        _case("of a list", "report", RECORD, lambda p: p.write_text("[1]")),
    ]  # fmt: skip


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _place_cases(), _byte_cases(), _truncated_cases(), _record_cases(), _config_cases(), _checkpoint_cases(),
        _argument_cases(),
    )  # fmt: skip
