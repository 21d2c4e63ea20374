"""What the adapters are meant to reach, and whether a file of results shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.results import Ratio, Row, group_rows, ratio_to
from benchmarks.table import peer_of

SAVED_OVER_FLOOR = 1.02
SAVED_OVER_NEEDED = 1.02
GROWTH_WITH_RANK = 1.10
LARGEST_FLAT_RANK = 64
# (targets, has dropout) -> at most this much of the floor, on two CPU cores at rank 8.
CPU_TIME_OVER_FLOOR = {
    ("qkv", False): 1.02,
    ("all-linear", False): 1.10,
    ("qkv", True): 1.05,
    ("all-linear", True): 1.20,
    ("experts", False): 1.10,
    ("experts", True): 1.10,  # it is not drawn there
}
CPU_SPARSE_TIME_OVER_FLOOR = 1.03  # all-linear, where A needs no product
CPU_TIME_OVER_PEFT = 0.70
# Of so few tokens that calling functions is most of the work; nothing is asked over the floor there.
FEW_TOKENS = 128
CPU_TIME_OVER_PEFT_FEW_TOKENS = 0.95
CPU_RANK = 8
CUDA_TIME_OVER_FLOOR = 1.05
CUDA_NARROW_TIME_OVER_FLOOR = 1.10  # where launching kernels takes longer than they do
CUDA_NARROW = ("roberta-large",)
CUDA_TIME_OVER_PEFT = 0.75
CUDA_PEAK_OVER_FLOOR = 1.05
OURS = ("ours-b-only", "ours-b-only-dropout")
SPARSE = ("ours-b-only-coordinate", "ours-b-only-block")
NEVER_SLOWER = (*OURS, "ours-lora", "ours-lora-dropout")


@dataclass(frozen=True)
class Verdict:
    """One target in one cell.

    Attributes:
        what: Cell, arm and measure.
        value: What was measured, as a ratio.
        limit: What it may be at most.
        spread: Quartiles of a ratio of times.
        reason: Why it is missed where it is.
    """

    what: str
    value: float
    limit: float
    spread: tuple[float, float] | None = None
    reason: str = ""

    @property
    def is_met(self) -> bool:
        """The value is within the limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        word = "pass" if self.is_met else "MISS"
        spread = f" (quartiles {self.spread[0]:.3f}-{self.spread[1]:.3f})" if self.spread else ""
        reason = f": {self.reason}" if self.reason and not self.is_met else ""
        return f"{word}  {self.value:.3f} <= {self.limit:.2f}{spread}  {self.what}{reason}"


def check(rows: Sequence[Row]) -> list[Verdict]:
    """Every target that the rows have something to say about, in their order."""
    groups = group_rows(rows)
    verdicts = [verdict for arms in groups for verdict in _check_cell(arms)]
    return verdicts + list(_check_growth(groups))


def _check_cell(arms: dict[str, Row]) -> Iterator[Verdict]:
    for name in OURS:
        row = arms.get(name)
        if row is not None and row.step_seconds:
            yield from _check_against_floor(row, arms)
            if row.saved_bytes and row.needed_bytes:
                ratio = row.saved_bytes / row.needed_bytes
                yield Verdict(_what(row, "saved bytes over those needed"), ratio, SAVED_OVER_NEEDED)
    yield from _check_sparse(arms)
    for name in NEVER_SLOWER:
        row = arms.get(name)
        if row is None or not row.step_seconds:
            continue
        for peer in (peer_of(row), *([peer_of(row).replace("lora", "b-only")] if "b-only" in name else [])):
            ratio = ratio_to(row, arms, peer)
            if ratio:
                reason = _why_not_below(peer, row, arms)
                yield _timed(row, f"time over {peer}", ratio, _limit_over_peft(row, peer), reason)


def _check_against_floor(row: Row, arms: dict[str, Row]) -> Iterator[Verdict]:
    """Memory in every mode; time in eager cells only, since compiled ones have no more than to beat peft."""
    floor, ratio = arms.get("floor"), ratio_to(row, arms)
    if floor is None or ratio is None:
        return
    is_eager = row.mode == "eager"
    if row.device == "cuda":
        is_narrow = row.model in CUDA_NARROW
        if is_eager or is_narrow:
            limit = CUDA_NARROW_TIME_OVER_FLOOR if is_narrow else CUDA_TIME_OVER_FLOOR
            yield _timed(row, "time over floor", ratio, limit)
        if row.peak_bytes and floor.peak_bytes:
            yield Verdict(_what(row, "peak over floor"), row.peak_bytes / floor.peak_bytes, CUDA_PEAK_OVER_FLOOR)
    elif row.rank == CPU_RANK and row.precision == "32":
        limit = CPU_TIME_OVER_FLOOR.get((row.targets, bool(row.dropout)))
        if is_eager and limit and not _has_few_tokens(row):
            yield _timed(row, "time over floor", ratio, limit, _why_above_floor(row, floor))
        if row.saved_bytes and floor.saved_bytes and not _has_few_tokens(row):
            saved = row.saved_bytes / floor.saved_bytes
            reason = _why_kept(row, floor.saved_bytes)
            yield Verdict(_what(row, "saved bytes over floor"), saved, SAVED_OVER_FLOOR, reason=reason)


def _check_sparse(arms: dict[str, Row]) -> Iterator[Verdict]:
    """Time of A's that need no product, over the floor and beside peft's MiSS."""
    for name in SPARSE:
        row = arms.get(name)
        if row is None or not row.step_seconds or row.device != "cpu" or row.mode != "eager":
            continue
        floor, miss = ratio_to(row, arms), ratio_to(row, arms, "peft-miss")
        if floor and row.targets == "all-linear" and row.rank == CPU_RANK:
            reason = _why_above_floor(row, arms["floor"])
            yield _timed(row, "time over floor", floor, CPU_SPARSE_TIME_OVER_FLOOR, reason)
        if miss:
            yield _timed(row, "time over peft-miss", miss, 1.0)


def _limit_over_peft(row: Row, peer: str) -> float:
    """Never slower in any cell; less where more is asked for."""
    if _has_few_tokens(row) and (row.arm, peer) == ("ours-b-only", "peft-lora"):
        return CPU_TIME_OVER_PEFT_FEW_TOKENS
    is_main_arm = row.arm in OURS and peer == "peft-lora-dropout" and row.targets == "all-linear"
    if not is_main_arm or row.mode != "eager":
        return 1.0
    if row.device == "cuda":
        return CUDA_TIME_OVER_PEFT
    return CPU_TIME_OVER_PEFT if row.rank == CPU_RANK and row.precision == "32" else 1.0


def _has_few_tokens(row: Row) -> bool:
    return row.device == "cpu" and row.mode == "eager" and row.batch * row.length <= FEW_TOKENS


def _check_growth(groups: Sequence[dict[str, Row]]) -> Iterator[Verdict]:
    """Time over the floor at each rank up to 64, beside the smallest rank of the same cell."""
    smallest: dict[tuple[object, ...], tuple[Row, float]] = {}
    for arms in sorted(groups, key=lambda arms: next(iter(arms.values())).rank):
        for name in OURS:
            row = arms.get(name)
            ratio = ratio_to(row, arms) if row is not None else None
            if row is None or ratio is None or row.rank > LARGEST_FLAT_RANK:
                continue
            key = (dataclasses.replace(row.cell, rank=0), *row.group[1:], name)
            before, first = smallest.setdefault(key, (row, ratio.median))
            if before.rank != row.rank:
                what = _what(row, f"time over that at rank {before.rank}")
                reason = "by the arithmetic under `What rank costs` in benchmarks/README.md"
                if row.flops and before.flops:
                    reason = f"its arithmetic grows by {row.flops / before.flops:.2f}"
                yield Verdict(what, ratio.median / first, GROWTH_WITH_RANK, reason=reason)


def _why_above_floor(row: Row, floor: Row) -> str:
    traffic = "reading and writing what passes through narrow layers, and calls"
    if not row.flops or not floor.flops:
        return traffic
    return f"arithmetic is {row.flops / floor.flops:.2f} of the floor's, the rest is {traffic}"


def _why_kept(row: Row, floor: int) -> str:
    if row.needed_bytes:
        return f"what has to be kept is {row.needed_bytes / floor:.3f} of it, for layers are narrow"
    if row.model == "torch-encoder":
        return "attention of torch is handed W + s B A, a weight of its own in every layer"
    if row.targets == "embedding":
        return "its output has a gradient, so that the first normalisation keeps its input"
    return "a convolution keeps rank numbers a place, and with dropout what it drops" if "conv" in row.targets else ""


def _why_not_below(peer: str, row: Row, arms: dict[str, Row]) -> str:
    if _has_few_tokens(row) and row.dropout:
        return "with dropout a layer is a function of Python's autograd, a cost of its own where tokens are few"
    if row.model == "resnext":
        return "each of 32 groups has the rank that peft shares out among them"
    floor = ratio_to(arms["floor"], arms, peer) if "floor" in arms else None
    return f"the floor itself takes {floor.median:.2f} of {peer}" if floor else ""


def _timed(row: Row, measure: str, ratio: Ratio, limit: float, reason: str = "") -> Verdict:
    if ratio.low <= limit:
        reason = "; ".join(filter(None, ["its quartiles lie on both sides", reason]))
    return Verdict(_what(row, measure), ratio.median, limit, (ratio.low, ratio.high), reason)


def _what(row: Row, measure: str) -> str:
    return f"{row.arm}: {measure} [{row.cell}, {row.device}, {row.precision}]"
