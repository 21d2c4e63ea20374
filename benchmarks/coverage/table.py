"""The results as tables: how many models are right, and every one that is not, with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

VERDICTS = ("right", "absent", "in part", "partial", "refused", "wrong", "not run", "not built")
Row = dict[str, Any]


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write all tables as markdown."""
    path.write_text("\n".join(_lines(rows)) + "\n")


def _lines(rows: Sequence[Row]) -> Iterable[str]:
    yield from ("# Coverage", "", "Written by `python -m benchmarks.coverage`; [README](../README.md) says how.", "")
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"].split(":")[0], row["targets"], row["arm"]), []).append(row)
    yield "| library | targets | by | " + " | ".join(VERDICTS) + " | mean reach |"
    yield "|---" * (len(VERDICTS) + 4) + "|"
    for (library, targets, arm), found in sorted(groups.items()):
        counts = Counter(row["verdict"] for row in found)
        reach = [row["reach"] for row in found if row["verdict"] in ("right", "partial")]
        mean = f"{sum(reach) / len(reach):.0%}" if reach and any(reach) else ""
        cells = [library, targets, arm, *(str(counts[v] or "") for v in VERDICTS), mean]
        yield "| " + " | ".join(cells) + " |"
    for (library, targets, arm), found in sorted(groups.items()):
        others = [row for row in found if row["verdict"] not in ("right", "absent", "not built")]
        if others and arm != "peft":
            yield from (
                "",
                f"## {library}, {targets}, {arm}: not right",
                "",
                "| model | verdict | reason |",
                "|---|---|---|",
            )
            yield from (f"| {r['model'].split(':')[1]} | {r['verdict']} | {_cell(r['reason'])} |" for r in others)
    missing = {row["model"]: row["reason"] for row in rows if row["verdict"] == "not built"}
    if missing:
        yield from ("", "## Not built small", "", "| model | reason |", "|---|---|")
        yield from (f"| {name} | {_cell(reason)} |" for name, reason in missing.items())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:240]
