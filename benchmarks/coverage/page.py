"""The page of the documentation that says how far adapters go: totals, families of models, and all that is refused."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PAGE = Path("docs/coverage.md")
TARGETS = ("all-linear", "q v")
_RIGHT_OR_NOT_THERE = ("right", "absent", "in part")
_NOT_EXAMINED = ("not built", "not run")
_VERDICTS = ("right", "absent", "in part", "partial", "refused", "wrong")
# What the class that is built of a type ends in, by what such models are called here; the first that fits.
_KINDS = (
    ("ForCausalLM", "language models"), ("LMHeadModel", "language models"),
    ("ForConditionalGeneration", "sequence to sequence, and images to text"),
    ("ForSequenceClassification", "text encoders, speech encoders"), ("ForCTC", "text encoders, speech encoders"),
    ("ForAudioClassification", "text encoders, speech encoders"), ("ForMaskedLM", "text encoders, speech encoders"),
    ("Classification", "images and video"), ("Detection", "images and video"), ("Segmentation", "images and video"),
    ("Estimation", "images and video"),
)  # fmt: skip


# What the reason of a model that was not examined has in it, and what it means; the first that fits.
_WHY_NOT = (
    ("ImportError|does not have it", "need a package or a class that is not installed"),
    ('required "forward"', "have no `forward`"),
    ("the process ended|allocate memory", "take more memory or time than a model may here"),
    ("^[0-9,]+ parameters", "have too many weights however small their configuration is made"),
    ("missing .* required positional|must be not None|cannot be None", "take an input that is not made here"),
    ("not run:|not called:", "run with none of the inputs that were tried"),
    ("", "have fields whose values hang together in ways of their own"),
)


def write_page(rows: Sequence[Row], path: Path = PAGE) -> None:
    """Write the page anew from results."""
    path.write_text("\n".join(_lines(rows)) + "\n")


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    yield "# Coverage"
    yield ""
    yield "Written by `python -m benchmarks.coverage`, whose README says how it examines a model. What `peft` reads of"
    yield "these adapters, and why a model was not built, is in `benchmarks/results/coverage.md`."
    yield ""
    models = {row["model"] for row in rows if row["arm"] == "ours"}
    not_built = {row["model"] for row in rows if row["arm"] == "ours" and row["verdict"] in _NOT_EXAMINED}
    yield f"Of timm's modules, by the smallest model of each, and transformers' types {len(models)} were tried;"
    yield f"{len(models - not_built)} could be built small and called."
    if not_built:
        yield from _why_not_built(rows)
    yield ""
    yield from _table(("models", "targets", "by"), _totals(rows))
    yield ""
    yield from _tested([row for row in _ours(rows) if row["targets"] == TARGETS[0]])
    yield ""
    yield "*Absent* are roles of a model without attention. *In part* is a role that some attention has no layer for,"
    yield "as the report of the injection says; *partial* one of which it does not. `peft` has no words for roles: its"
    yield "row is of what it adapts where nothing is named. It knows that of some types and refuses others."
    yield ""
    yield "## By kind of model"
    yield ""
    yield from _table(("kind", "targets", "by"), _by_kind(rows))
    yield ""
    yield "## What is not right"
    yield ""
    yield "| model | targets | verdict | reason |"
    yield "|---|---|---|---|"
    for row in sorted(_ours(rows), key=lambda row: (row["targets"], row["model"])):
        if row["verdict"] not in ("right", "absent", *_NOT_EXAMINED):
            name = row["model"].partition(":")[2]
            yield f"| {name} | {_words(row['targets'])} | {row['verdict']} | {_reason(row['reason'])} |"


def _tested(rows: Sequence[Row]) -> Iterator[str]:
    """How much of what is adapted the calls go through."""
    adapted, tested = (sum(row.get(name, 0) for row in rows) for name in ("num_matrices", "num_tested"))
    share = tested / max(adapted, 1)
    yield f"Of the {adapted:,} matrices that `all-linear` adapts the calls give {share:.0%} a gradient;"
    yield "the others are in towers and branches that they do not go through."


def _why_not_built(rows: Sequence[Row]) -> Iterator[str]:
    """Which of the models that were not examined are so for which kind of reason, the most frequent first."""
    reasons = {r["model"]: r["reason"] for r in rows if r["arm"] == "ours" and r["verdict"] in _NOT_EXAMINED}
    names: dict[str, list[str]] = {}
    for model, why in sorted(reasons.items()):
        kind = next(kind for pattern, kind in _WHY_NOT if re.search(pattern, why))
        names.setdefault(kind, []).append(model.partition(":")[2])
    yield "Of the others:"
    yield ""
    for kind, found in sorted(names.items(), key=lambda item: -len(item[1])):
        line = f"- {len(found)} {kind}: {', '.join(found)}"
        yield from textwrap.wrap(line, 118, subsequent_indent="  ", break_on_hyphens=False)


def _table(head: Sequence[str], groups: Iterable[tuple[Sequence[str], Sequence[Row]]]) -> Iterator[str]:
    yield "| " + " | ".join((*head, "built", *_VERDICTS, "right or not there")) + " |"
    yield "|---" * (len(head) + len(_VERDICTS) + 2) + "|"
    for cells, found in groups:
        counts = Counter(row["verdict"] for row in found)
        share = sum(counts[verdict] for verdict in _RIGHT_OR_NOT_THERE) / len(found)
        numbers = [str(counts[verdict] or "") for verdict in _VERDICTS]
        yield "| " + " | ".join((*cells, str(len(found)), *numbers, f"{share:.1%}")) + " |"


def _totals(rows: Sequence[Row]) -> Iterator[tuple[Sequence[str], Sequence[Row]]]:
    by_arm = {arm: [r for r in _examined(rows) if r["arm"] == arm] for arm in ("ours", "peft")}
    with_both = {(r["model"], r["targets"]) for r in by_arm["peft"]}
    for targets in TARGETS:
        ours, theirs = ([r for r in found if r["targets"] == targets] for found in by_arm.values())
        if ours:
            yield ("all", _words(targets), "this package"), ours
        if theirs:
            same = [r for r in ours if (r["model"], targets) in with_both]
            yield ("drawn at random", _words(targets), "this package"), same
            yield ("the same", _words(targets), "`peft`"), theirs


def _by_kind(rows: Sequence[Row]) -> Iterator[tuple[Sequence[str], Sequence[Row]]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in _ours(_examined(rows)):
        groups.setdefault((_kind(row["model"]), row["targets"]), []).append(row)
    return (((kind, _words(targets), "this package"), found) for (kind, targets), found in sorted(groups.items()))


def _kind(model: str) -> str:
    from benchmarks.coverage.transformers_models import model_class_name

    library, _, name = model.partition(":")
    if library == "timm":
        return "timm"
    class_name = model_class_name(name) or ""
    return next((kind for ending, kind in _KINDS if class_name.endswith(ending)), "towers and others")


def _ours(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["arm"] == "ours"]


def _examined(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["verdict"] not in _NOT_EXAMINED]


def _words(targets: str) -> str:
    return ", ".join(f"`{word}`" for word in targets.split())


def _reason(text: str) -> str:
    text = " ".join(text.removeprefix("ValueError: ").replace("|", "/").split()).rstrip("; ")
    return f"{text[:220]} …" if len(text) > 220 else text
