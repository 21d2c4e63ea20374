"""Options of the commands beside `fit`, of the wrong kind or out of range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import strategies as st

from asym_lightning.core.messages import printable
from benchmarks.malformed.case import Case
from benchmarks.malformed.command import run_command

_NOT_COUNTS = ("0", "-1", "2.5", "nan", "inf", "x", "[1]", "1e308", str(2**70), "true", "", "0x8", "\x1b[31m")
_NOT_NUMBERS_OR_ZERO = tuple(value for value in _NOT_COUNTS if value != "0")
_NO_PLACES = ("/dev/null/x", "/proc/no", ".", "\x00", "x" * 300)
_NO_CONFIGS = ("no_such", "", ".", "/dev/zero", "/dev/null", "../../etc/passwd", "\x00")
_CALIBRATION: Mapping[str, Sequence[str]] = {
    "--num-batches": _NOT_COUNTS,
    "--head-steps": _NOT_NUMBERS_OR_ZERO,
    "--layers-at-a-time": _NOT_COUNTS,
    "--out": _NO_PLACES,
    "--config": _NO_CONFIGS,
    "--no-such-option": ("1",),
    "--model.adapter.rank": ("0", "x", ".nan"),
    "--model.no_such": ("1",),
}
_ADVISE = ("advise", "--config", "quickstart", "--num-batches=2")
_CALIBRATE = ("calibrate", "--config", "quickstart", "--num-batches=2", "--out=out.safetensors")
_ESTIMATE = ("estimate", "--config", "quickstart")
_SWEEP = ("sweep", "--config", "quickstart", "--arm=adapters/b_only_r8", "--learning-rates=0.01", "--seeds=0",
          "--out=out", "--dry-run")  # fmt: skip
_WRONG: Mapping[Sequence[str], Mapping[str, Sequence[str]]] = {
    _ADVISE: {**_CALIBRATION, "--rules": ("x", "", "zero"), "--budget": _NOT_COUNTS},
    _CALIBRATE: {**_CALIBRATION, "--rule": ("x", "", "rand", "zero", "V")},
    _ESTIMATE: {
        "--strategy": ("x", "", "3", "dp"),
        "--devices": _NOT_COUNTS,
        "--batch-size": _NOT_COUNTS,
        "--image-size": _NOT_COUNTS,
        "--sequence-length": _NOT_COUNTS,
        "--target-length": _NOT_COUNTS,
        "--memory": ("x", "", "-1GB", "0GB", "nan", "infGB", "80XB", "1e400GB", "[1]"),
        "--format": ("x", "", "html"),
        "--out": _NO_PLACES,
        "--config": _NO_CONFIGS,
        "--no-such-option": ("1",),
        "--model.adapter.rank": ("0", "x", ".nan", str(2**70)),
        "--model.no_such": ("1",),
    },
    _SWEEP: {
        "--learning-rates": ("0", "-1", "nan", "inf", "x", "", "[1]"),
        "--seeds": ("-1", "2.5", "nan", "x", "", str(2**70)),
        "--jobs": _NOT_COUNTS,
        "--only": ("-1", "99", "2.5", "x", str(2**70)),
        "--vary": ("x", ""),
        "--arm": ("no_such", "", "..", "/dev/zero", "/dev/null"),
        "--task": ("..", "../x", "a/b", "/x", "\x00", "x" * 300),
        "--sweep": ("no_such", "", ".", "/dev/zero", "/dev/null"),
        "--config": _NO_CONFIGS,
        "--no-such-option": ("1",),
    },
    ("sweep", "--config", "quickstart", "--schemes=hB_zero_A_rand", "--ranks=2", "--learning-rates=0.01", "--seeds=0",
     "--out=out", "--dry-run"): {
        "--ranks": _NOT_COUNTS,
        "--schemes": ("x", "", "hB_zero", "3"),
    },
    ("doctor",): {"--no-such-option": ("1",), "no_such": ("",)},
    ("configs",): {"no_such": ("",), "--no-such-option": ("1",)},
    ("configs", "show"): dict.fromkeys(("no_such", "../quickstart", "/dev/zero", "--no-such"), ("",)),
    ("configs", "copy", "quickstart"): {"/dev/null/x": ("",), "/proc/no": ("",)},
}  # fmt: skip


def _case(command: Sequence[str], option: str, value: str) -> Case:
    # One option that takes several values takes them from what follows it.
    given = [f"{option}={value}"] if option.startswith("--") else [option]
    arguments = [*(part for part in command if part.partition("=")[0] != option), *given]
    if option == "--config":
        arguments = [*(part for part in command if part not in ("--config", "quickstart")), *given]
    name, given_path = option.strip("-"), value or option
    names = (option, name, name.replace("-", "_"), name.rpartition(".")[2])
    place = str(Path(given_path).parent) if given_path.startswith("/") else option
    offenders = (*names, printable(value[:20]) or "''", place)

    def call(folder: Path) -> None:
        run_command(arguments)

    return Case(f"{' '.join([*command[:1], *given])[:90]}", offenders, lambda folder: None, call)


@st.composite
def _option_cases(draw: st.DrawFn) -> Case:
    command = draw(st.sampled_from(list(_WRONG)))
    option = draw(st.sampled_from(list(_WRONG[command])))
    return _case(command, option, draw(st.sampled_from(_WRONG[command][option])))


def named_cases() -> list[Case]:
    """One case of each option."""
    return [_case(command, option, values[0]) for command, wrong in _WRONG.items() for option, values in wrong.items()]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return _option_cases()
