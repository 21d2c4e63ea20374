"""Cost along axes: the arithmetic beside it, processes that train together, and what is drawn."""

from importlib.metadata import version

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.arms import select_arms
from benchmarks.cells import cells_of
from benchmarks.measure import Settings, measure_cell
from benchmarks.plots import write_plots
from benchmarks.processes import measure
from benchmarks.results import Row, read_csv, write_csv
from benchmarks.targets import check

WIDTH, LENGTH, BATCH, RANK = 64, 16, 2, 4


def tiny_cell(model="roberta-base", targets="all-linear", **overrides):
    sizes = {"model": model, "depth": 1, "width": WIDTH, "batch": BATCH, "length": LENGTH, "targets": targets}
    (cell,) = cells_of("quick", {name: [value] for name, value in {**sizes, "rank": RANK, **overrides}.items()})
    return cell


def measured(cell, *arms):
    settings = Settings(threads=1, rounds=1, warmup=1)
    return {row.arm: row for row in measure_cell(cell, select_arms(arms), settings)}


def row(arm, **fields):
    cell = {"model": "roberta-base", "depth": 2, "width": 64, "batch": 2, "length": 16, "targets": "all-linear"}
    cell |= {"rank": 8, "mode": "eager", "device": "cpu", "precision": "32", "threads": 1}
    counted = {"saved_bytes": 100, "needed_bytes": 100, "flops": 10**6, "matmul_speed": 1e9, "layers": 12}
    return Row(**{**cell, **counted, **fields}, arm=arm, step_seconds=(0.002,))


def test_arithmetic_of_a_backbone_is_that_of_its_matrix_products():
    floor = measured(tiny_cell(), "floor")["floor"]
    tokens, weights = BATCH * LENGTH, (4 + 2 * 4) * WIDTH**2  # q, k, v, o and the two of the MLP
    attention = 2 * 2 * BATCH * LENGTH**2 * WIDTH  # scores, and sums of values
    head = BATCH * (WIDTH**2 + 2 * WIDTH)
    # Backward, scores are computed once more, and each of the two products has two gradients.
    assert floor.flops == 2 * 2 * (tokens * weights + head) + attention + 5 * attention // 2


def test_b_only_needs_rank_numbers_a_token_and_lora_its_inputs():
    rows = measured(tiny_cell(targets="qkv"), "peft-lora", "ours-b-only", "ours-b-only-dropout")
    floor, tokens = rows["floor"], BATCH * LENGTH
    assert rows["ours-b-only"].needed_bytes - floor.needed_bytes == 4 * tokens * 3 * RANK
    # One input for q, k and v.
    assert rows["peft-lora"].needed_bytes - rows["ours-b-only"].needed_bytes == 4 * tokens * WIDTH
    for arm in ("floor", "peft-lora", "ours-b-only"):  # a perfect program keeps what these keep
        assert rows[arm].saved_bytes == rows[arm].needed_bytes
    # Nothing before q, k and v trains: they pass no gradient on, and the block's other products do.
    added = 2 * tokens * 3 * RANK * (WIDTH + 2 * WIDTH)  # A x, B A x, and the gradient of B
    assert rows["ours-b-only-dropout"].flops == floor.flops + added - 2 * tokens * 3 * WIDTH**2


@pytest.mark.skipif(version("transformers") < "5", reason="experts are linear layers there")
def test_layers_that_are_not_linear_have_no_arithmetic_of_their_own():
    rows = measured(tiny_cell("mixtral-s", "experts", length=4), "peft-lora", "ours-b-only")
    assert rows["floor"].flops and rows["ours-b-only"].flops is None and rows["peft-lora"].needed_bytes is None


def test_a_step_is_counted_without_lines_of_torchs_profiler(capfd):
    assert measured(tiny_cell(), "floor")["floor"].kernels > 10
    assert "profiler" not in "".join(capfd.readouterr())


def test_the_suite_has_every_axis():
    cells = cells_of("growth", {})
    ranges = {name: {getattr(cell, name) for cell in cells} for name in ("rank", "length", "targets", "processes")}
    assert {1, 256} <= ranges["rank"] and max(ranges["length"]) == 8192
    assert len(ranges["targets"]) == 5 and ranges["processes"] == {1, 2, 4}


def test_each_axis_is_drawn_and_two_sets_of_targets_are_not(tmp_path):
    pytest.importorskip("matplotlib")
    arms = ("floor", "ours-b-only")
    targets = [("q", 2), ("qkv", 6), ("qkvo", 8)]
    changes = [*({"width": n} for n in (32, 128)), *({"processes": n} for n in (2, 4))]
    changes += [{"targets": name, "layers": n} for name, n in targets]
    rows = [row(arm, **change) for change in ({}, *changes) for arm in arms]
    names = {path.name for path in write_plots(rows, tmp_path / "growth")}
    assert names == {"growth-width.png", "growth-processes.png", "growth-layers.png"}
    two = [row(arm, **change) for change in ({}, {"targets": "qkv", "layers": 6}) for arm in arms]
    assert write_plots(two, tmp_path / "quick") == []


def test_bytes_that_are_not_needed_are_a_miss():
    verdicts = {v.what.split(" [")[0]: v for v in check([row("floor"), row("ours-b-only", saved_bytes=103)])}
    assert not verdicts["ours-b-only: saved bytes over those needed"].is_met


def test_results_from_before_there_were_processes_are_of_one(tmp_path):
    path = tmp_path / "old.csv"
    write_csv([row("floor")], path)
    header, line = path.read_text().splitlines()
    fields = header.split(",")
    first_new = fields.index("processes")
    path.write_text("\n".join(",".join(text.split(",")[:first_new]) for text in (header, line)) + "\n")
    (old,) = read_csv(path)
    assert old.processes == 1 and old.flops is None and old.cell == row("floor").cell


def test_processes_on_a_gpu_are_refused():
    with pytest.raises(ValueError, match="`--processes` is measured on a CPU only"):
        measure(tiny_cell(processes=2), [], Settings(device=torch.device("cuda")))


@pytest.mark.slow
def test_processes_train_together(tmp_path):
    size = ["--model", "roberta-base", "--width", "64", "--depth", "1", "--batch", "1", "--length", "4", "--rank", "2"]
    short = ["--threads", "1", "--rounds", "1", "--warmup", "1", "--targets", "q", "--arms", "ours-b-only", "peft-lora"]
    assert main(["run", *size, *short, "--processes", "2", "--out", str(tmp_path), "--name", "two"]) == 0
    rows = read_csv(tmp_path / "two.csv")
    assert [row.arm for row in rows] == ["floor", "peft-lora", "ours-b-only"]
    assert all(row.processes == 2 and row.step_seconds and row.flops for row in rows)
