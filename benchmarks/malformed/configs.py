"""Config files and sweep files of which something is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.malformed import values
from benchmarks.malformed.adapters import PLACES
from benchmarks.malformed.case import Case
from benchmarks.malformed.command import fit_in, run_command

FILE = "mine.yaml"


def _fit(folder: Path) -> None:
    fit_in(folder, configs=("quickstart", FILE))


def _fit_alone(folder: Path) -> None:
    fit_in(folder, configs=(FILE,))


def _bounds(folder: Path) -> None:
    run_command(["bounds", "--config", FILE, "--num-samples", "100"])


def _sweep(folder: Path) -> None:
    run_command(["sweep", "--sweep", FILE, "--out", "out", "--dry-run"])


def _sweep_task(folder: Path) -> None:
    run_command(["sweep", "--config", FILE, "--arm", "adapters/b_only_r8", "--learning-rates", "1e-2", "--seeds", "0",
                 "--out", "out", "--dry-run"])  # fmt: skip


READERS: Mapping[str, Callable[[Path], None]] = {
    "fit, laid over a task": _fit, "fit": _fit_alone, "bounds": _bounds, "sweep": _sweep, "task of a sweep": _sweep_task
}  # fmt: skip
NOT_EMPTY = ("fit", "bounds", "sweep")  # the others may be given an empty one
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(10)
)
TEXTS: Mapping[str, str | bytes] = {
    "a list": "- 1\n- 2\n",
    "a number": "3\n",
    "a word": "trainer\n",
    "a truth": "true\n",
    "unclosed brackets": "trainer: [1, 2\nmodel: x\n",
    "an unclosed brace": "trainer: {max_epochs: 3\n",
    "an unclosed quote": "model: 'x\n",
    "tabs": "trainer:\n\tmax_epochs: 1\n",
    "wrong indents": "trainer:\n    max_epochs: 1\n  max_steps: 2\n",
    "two colons": "trainer: max_epochs: 1\n",
    "an alias of nothing": "trainer: *x\n",
    "an alias of itself": "trainer: &x [*x]\n",
    "a mapping of itself": "trainer: &x\n  logger: *x\n",
    "an alias bomb": BOMB,
    "code": "trainer: !!python/object/apply:os.system [touch was_run]\n",
    "a python name": "trainer: !!python/name:os.system\n",
    "a tag": "trainer: !mine 3\n",
    "deep brackets": "[" * 10_000,
    "deep mappings": "{a: " * 5_000,
    "NUL": b"trainer: \x00\n",
    "control characters": b"trainer: \x07\x1b[31m\n",
    "UTF-16": "trainer: {max_epochs: 1}\n".encode("utf-16"),
    "latin-1": "model: é\n".encode("latin-1"),
    "random bytes": bytes(range(128, 256)),
    "two documents": "trainer: {}\n---\nmodel: {}\n",
    "a key that is a list": "? [1, 2]\n: 3\n",
    "a key that is a number": "3: 4\n",
    "a date that is none": "trainer: 2024-99-99\n",
    "a merge of nothing": "<<: 3\n",
}


def _case(what: str, reader: str, data: str | bytes, *offenders: str) -> Case:
    written = data.encode() if isinstance(data, str) else data
    return Case(f"{reader}: {what}", offenders or (FILE,), lambda folder: (folder / FILE).write_bytes(written),
                READERS[reader])  # fmt: skip


@st.composite
def _text_cases(draw: st.DrawFn) -> Case:
    what, reader = draw(st.sampled_from(list(TEXTS))), draw(st.sampled_from(list(READERS)))
    return _case(what, reader, TEXTS[what])


@st.composite
def _byte_cases(draw: st.DrawFn) -> Case:
    data, reader = draw(values.bytes_of_nothing()), draw(st.sampled_from(NOT_EMPTY))
    return _case(f"{data!r:.60}", reader, data)


@st.composite
def _damaged_cases(draw: st.DrawFn) -> Case:
    """A sound config with a bad line somewhere."""
    reader = draw(st.sampled_from(("fit, laid over a task", "fit", "bounds")))
    bad = draw(st.sampled_from(["\tx: 1", "x: [", "}", "- 3", "'", "@x: 1", "x: *nothing", "%", "a: b: c", "\x01"]))
    lines = ["trainer:", "  max_epochs: 1", "data:", "  num_train: 50", "model:", "  num_classes: 10"]
    place = draw(st.integers(0, len(lines)))
    text = "\n".join([*lines[:place], bad, *lines[place:]]) + "\n"
    return _case(f"{bad!r} in line {place + 1}", reader, text)


@st.composite
def _section_cases(draw: st.DrawFn) -> Case:
    """A section of another kind than a mapping, or with what there is not."""
    section = draw(st.sampled_from(("trainer", "model", "data")))
    value = draw(st.sampled_from(("3", "[1, 2]", "true", "{no_such_option: 1}", "{class_path: no.such.Class}",
                                  "{class_path: 3}", "{class_path: [a]}", "{init_args: 3}", "2.5")))  # fmt: skip
    return _case(f"{section}: {value}", "fit, laid over a task", f"{section}: {value}\n", section, "no_such_option")


@st.composite
def _sweep_cases(draw: st.DrawFn) -> Case:
    sound = {"out": "out", "tasks": {"digits": "quickstart"}, "arms": {"b": "adapters/b_only_r8"},
             "learning_rates": [0.1], "seeds": [0]}  # fmt: skip
    wrong: Mapping[str, st.SearchStrategy[Any]] = {
        "tasks": st.sampled_from([3, [], "x", {}, {"..": "quickstart"}, {"a/b": "quickstart"}, {"": "quickstart"},
                                  {"x": 3}, {"x": [3]}, {"x": "no_such"}, {3: "quickstart"},
                                  {"x" * 300: "quickstart"}]),
        "arms": st.sampled_from([3, [], "x", {}, {"..": None}, {".": None}, {"../../x": None}, {".hidden": None},
                                 {"x": 3}, {"x": {"configs": 3}}, {"x": {"no_such": 3}},
                                 {"x": {"learning_rates": ["a"]}},
                                 {"x": {"options": [1]}}, {"x": {"learning_rates": [-1.0]}}, {"x": ["no_such"]}]),
        "learning_rates": st.sampled_from([3, "x", ["x"], [[1]], [-0.1], [0], [float("nan")], [float("inf")], [1e300],
                                           [None], {"a": 1}, [True]]),
        "seeds": st.sampled_from([3, "x", ["x"], ["0"], [-1], [2**40], [0.5], [None], [1, 1], {"a": 1}, [True]]),
        "ranks": st.sampled_from([[0], [-1], ["x"], 3, [2.5]]),
        "schemes": st.sampled_from([[3], 3, {"a": 1}]),
        "vary": st.sampled_from([["x"], 3, [3], {"a": 1}]),
        "options": st.sampled_from([3, {"a": 1}, [3], [["a"]]]),
        "data_seed_key": st.sampled_from([3, ["a"], {"a": 1}]),
        "no_such": st.just(1),
    }  # fmt: skip
    key = draw(st.sampled_from(list(wrong)))
    value = draw(wrong[key])
    text = "".join(f"{k}: {_yaml(v)}\n" for k, v in {**sound, key: value}.items())
    named = {"ranks": ("ranks", "schemes"), "schemes": ("schemes", "ranks"), "arms": ("arm", "learning_rates")}.get(
        key, (key, key.removesuffix("s"))
    )
    return _case(f"{key} = {value!r:.60}", "sweep", text, *named, "no_such")


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True).replace("\n...", "").strip()


@st.composite
def _place_cases(draw: st.DrawFn) -> Case:
    kind, reader = draw(st.sampled_from(list(PLACES))), draw(st.sampled_from(list(READERS)))
    return Case(f"{reader}: is {kind}", (FILE,), lambda folder: PLACES[kind](folder / FILE), READERS[reader])


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""
    empty = [_case(what, "fit", text) for what, text in {"empty": "", "a comment": "# x\n", "null": "null\n"}.items()]
    pipe = Case("fit: a pipe", (FILE,), lambda folder: os.mkfifo(folder / FILE), _fit)
    return [*empty, pipe, *(_case(what, "fit, laid over a task", text) for what, text in TEXTS.items())]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _text_cases(), _byte_cases(), _damaged_cases(), _section_cases(), _sweep_cases(), _sweep_cases(), _place_cases()
    )
