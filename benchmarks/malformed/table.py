"""How the calls ended, by area, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from asym_lightning.core.messages import printable
from benchmarks.malformed.case import GOOD, KINDS, Verdict


def table(verdicts: Sequence[Verdict]) -> str:
    """A row an area, a column for each way to end that was seen, and the bad ones by name."""
    seen = [kind for kind in KINDS if kind == GOOD or any(verdict.kind == kind for verdict in verdicts)]
    lines = [
        "# Malformed calls",
        "",
        "Written by `python -m benchmarks.malformed`. Good is: refused in one sentence of at most 300 letters that",
        "names the offender, within 10 s of work and 1.5 GB, with nothing changed or left behind.",
        "",
        f"| area | cases | bad | slowest, s of CPU | {' | '.join(seen)} |",
        f"| --- | ---: | ---: | ---: | {' | '.join(['---:'] * len(seen))} |",
    ]
    areas = list(dict.fromkeys(verdict.area for verdict in verdicts))
    for area in [*areas, "all"]:
        of_area = [verdict for verdict in verdicts if area in (verdict.area, "all")]
        counts = Counter(verdict.kind for verdict in of_area)
        bad = len(of_area) - counts[GOOD]
        slowest = max((verdict.seconds for verdict in of_area), default=0)
        lines.append(
            f"| {area} | {len(of_area)} | {bad} ({bad / max(len(of_area), 1):.1%}) | {slowest:.1f} | "
            f"{' | '.join(str(counts[kind]) for kind in seen)} |"
        )
    bad_ones = [verdict for verdict in verdicts if not verdict.is_good]
    lines += ["", *(f"- {v.area}: {printable(v.case)}: {v.kind}. {printable(v.message)}" for v in bad_ones)]
    return "\n".join(lines).rstrip() + "\n"
