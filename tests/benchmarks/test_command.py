"""The whole command on a model of a few thousand numbers, and its lines about what it does not run."""

import dataclasses
import importlib.util

import pytest
import torch

from benchmarks import arms as arms_module
from benchmarks.__main__ import main
from benchmarks.arms import ARMS, select_arms
from benchmarks.cells import cells_of
from benchmarks.measure import Settings, measure_cell
from benchmarks.memory import parameter_bytes
from benchmarks.results import read_csv

SIZE = ["--model", "vit-s", "--width", "64", "--depth", "1", "--batch", "2", "--length", "4"]
SHORT = ["--threads", "1", "--rounds", "2", "--warmup", "1"]


def tiny_cell(**overrides):
    sizes = {"model": "vit-s", "depth": 1, "width": 64, "batch": 2, "length": 4, "targets": "all-linear", "rank": 2}
    (cell,) = cells_of("quick", {name: [value] for name, value in {**sizes, **overrides}.items()})
    return cell


def measure(arms, *, cell=None, **settings):
    lines = []
    rows = measure_cell(
        cell or tiny_cell(), select_arms(arms), Settings(threads=1, rounds=1, warmup=1, **settings), lines.append
    )
    return {row.arm: row for row in rows}, lines


def test_run_report_and_check_write_and_read_one_csv(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    ranks = ["--targets", "all-linear", "--rank", "2", "8"]
    assert main(["run", *SIZE, *SHORT, *ranks, "--arms", "short", "--out", str(tmp_path), "--name", "tiny"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.csv", "tiny.md", "tiny-rank.png"}
    rows = read_csv(tmp_path / "tiny.csv")
    assert [row.arm for row in rows if row.rank == 8] == [arm.name for arm in select_arms(["short"])]
    assert all(len(row.step_seconds) == 2 and not row.skipped for row in rows)

    table = (tmp_path / "tiny.md").read_text()
    assert main(["report", str(tmp_path / "tiny.csv")]) == 0
    assert (tmp_path / "tiny.md").read_text() == table

    capsys.readouterr()
    main(["check", str(tmp_path / "tiny.csv")])
    lines = capsys.readouterr().out.splitlines()
    assert any("time over that at rank 2" in line for line in lines)
    assert lines[-1].endswith("targets met")


@pytest.mark.parametrize("model", ["roberta-base", "llama-s"])
def test_profile_names_the_groups_and_the_operators(model, capsys):
    size = ["--model", model, "--width", "64", "--depth", "1", "--batch", "2", "--length", "4"]
    assert main(["profile", *size, *SHORT, "--targets", "qkv", "--arm", "ours-b-only-dropout"]) == 0
    text = capsys.readouterr().out
    assert "matrix products" in text and "aten::" in text and "without a profiler" in text


def test_arms_count_what_they_train_save_and_keep():
    rows, _ = measure(["all"])
    lora, b_only, shared = rows["ours-lora"], rows["ours-b-only"], rows["ours-b-only-share-a"]
    # qkv, proj and two MLP layers of width 64, rank 2: B alone has as many rows as the layers have outputs.
    assert b_only.trainable == rows["peft-b-only"].trainable == 2 * (3 * 64 + 64 + 256 + 64)
    assert lora.trainable == b_only.trainable + 2 * (3 * 64 + 64 + 64 + 256)
    assert b_only.optimizer_bytes == pytest.approx(2 * 4 * b_only.trainable, abs=200)
    assert shared.file_bytes < b_only.file_bytes and b_only.compact_bytes < b_only.file_bytes
    assert rows["full"].trainable * 4 == rows["full"].file_bytes
    assert rows["floor"].trainable == rows["floor"].optimizer_bytes == rows["floor"].file_bytes == 0
    assert rows["peft-lora-dropout"].saved_bytes > rows["peft-lora"].saved_bytes > rows["floor"].saved_bytes


def test_frozen_weights_are_shared_and_full_fine_tuning_has_its_own():
    cell = tiny_cell()
    base = arms_module_base(cell)
    before = {name: p.clone() for name, p in base.named_parameters()}
    for name in ("ours-b-only", "peft-lora", "full"):
        contender = arms_module.prepare(ARMS[name], base, cell, 0.0)
        weights = {p.untyped_storage().data_ptr() for p in contender.model.parameters()}
        shared = [p.untyped_storage().data_ptr() in weights for p in base.parameters()]
        assert all(shared) if name != "full" else not any(shared)
    measure(["all"], cell=cell)
    assert all(torch.equal(p, before[name]) and not p.requires_grad for name, p in base.named_parameters())


def arms_module_base(cell):
    from benchmarks.measure import build_base

    return build_base(cell, Settings())


def test_a_forced_path_that_the_dtype_does_not_take_is_skipped_with_its_reason():
    rows, lines = measure(["ours-b-only-packed", "ours-b-only-formed"], precision="bf16-true")
    assert rows["floor"].step_seconds and rows["ours-b-only-packed"].step_seconds
    assert not rows["ours-b-only-formed"].step_seconds
    (line,) = lines
    assert "skipped ours-b-only-formed" in line and "Path 'formed'" in line


def test_a_rank_that_a_layer_does_not_allow_is_skipped_with_its_reason():
    rows, lines = measure(["ours-b-only"], cell=tiny_cell(rank=128))
    assert "allows at most 64" in rows["ours-b-only"].skipped
    assert len(lines) == 1


def test_a_peer_that_is_not_installed_is_named_and_skipped(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    rows, lines = measure(["peft-lora", "ours-b-only"])
    assert rows["ours-b-only"].step_seconds
    assert lines == ["skipped peft-lora in [vit-s depth 1 width 64, 2 x 4, all-linear, rank 2, eager]: "
                     "peft is not installed (`pip install peft`)"]  # fmt: skip


def test_what_would_not_fit_is_predicted_and_skipped_with_a_line():
    weights = parameter_bytes(arms_module_base(tiny_cell()))
    rows, lines = measure(["full", "ours-b-only"], memory_limit=weights // 2)
    assert all(row.skipped.startswith("would need") for row in rows.values())
    assert len(lines) == len(rows)

    # Room for the frozen backbone with adapters, but not for a second copy with gradients and moments.
    rows, (line,) = measure(["full", "ours-b-only"], memory_limit=4 * weights)
    assert rows["ours-b-only"].step_seconds and "skipped full" in line and "of memory" in line

    # Room for the weights, not for what a batch keeps.
    rows, lines = measure(["ours-b-only"], cell=tiny_cell(batch=4096), memory_limit=4 * weights)
    assert rows["ours-b-only"].skipped and rows["floor"].skipped


def test_unknown_arms_and_impossible_sizes_say_what_is_valid(tmp_path):
    with pytest.raises(SystemExit, match="Arm 'peft-qlora' is unknown; valid are the groups short"):
        main(["run", *SIZE, *SHORT, "--arms", "peft-qlora", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="`length` of a ViT is its number of patches, a square such as 196, got 5"):
        main(["run", *SIZE[:-1], "5", *SHORT, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="`width` must be a multiple of 64 for vit-s, got 100"):
        main(["run", *SIZE, *SHORT, "--width", "100", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="needs `--threads 1 --device cpu`"):
        main(["run", *SIZE, "--cpu-time", "--threads", "2", "--out", str(tmp_path)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="says so only where there is no GPU")
def test_a_missing_gpu_is_an_error_that_says_so(tmp_path):
    for asked in (["--device", "cuda"], ["--suite", "cuda"]):
        with pytest.raises(SystemExit, match=f"^`{' '.join(asked)}` needs a GPU, and torch sees none here: use"):
            main(["run", *SIZE, *asked, "--out", str(tmp_path)])


@pytest.mark.slow
def test_the_suite_of_a_gpu_runs_small_on_a_cpu_and_goes_on_where_it_was_stopped(tmp_path, capsys):
    sizes = ["--width", "64", "--depth", "1", "--batch", "1", "--length", "4", "--rank", "2", "--mode", "eager"]
    command = ["run", "--suite", "cuda", "--device", "cpu", *SHORT, *sizes, "--out", str(tmp_path)]
    assert main([*command, "--model", "vit-l"]) == 0
    assert main([*command, "--model", "vit-l", "roberta-large", "--resume"]) == 0
    assert "vit-l depth 1 width 64, 1 x 4, all-linear, rank 2, eager: is in " in capsys.readouterr().out
    rows = read_csv(tmp_path / "cuda.csv")
    assert [row.arm for row in rows] == 2 * [arm.name for arm in select_arms(["cuda"])]
    floor, ours = (next(row for row in rows if row.arm == arm) for arm in ("floor", "ours-b-only"))
    assert ours.layers == 4 and ours.kernels > floor.kernels > 10  # qkv, proj and two of the MLP
    assert all(row.step_seconds for row in rows)


def test_the_suite_of_a_gpu_has_whole_models_and_compiled_blocks():
    cells = cells_of("cuda", {})
    assert {(cell.model, cell.depth) for cell in cells if cell.mode == "eager"} == {
        ("llama-7b", 32), ("vit-l", 24), ("roberta-large", 24),
    }  # fmt: skip
    assert {cell.mode for cell in cells if cell.depth == 2} == {"compiled", "graph"} and len(cells) == 9


@pytest.mark.slow
def test_compiled_arms_run(tmp_path):
    rows, lines = measure(["floor", "peft-lora", "ours-b-only", "ours-b-only-dropout"], cell=tiny_cell(mode="compiled"))
    assert not lines and all(row.step_seconds for row in rows.values())


@pytest.mark.parametrize("cell", cells_of("kinds", {"depth": [1], "batch": [2], "rank": [2]}), ids=lambda c: c.model)
def test_every_kind_of_layer_is_run_beside_peft(cell):
    # A batch normalisation needs several numbers, hence images of more than one patch at the end of a ResNet; peft
    # takes ranks that are multiples of the number of groups.
    of_convolutions = {
        "resnet": {"length": 16}, "resnext": {"length": 16, "rank": 32},
        "conv1d": {"length": 8}, "conv3d": {"length": 8},
    }  # fmt: skip
    cell = dataclasses.replace(cell, **of_convolutions.get(cell.model, {"length": 4, "width": 64}))
    rows, lines = measure(["peft-lora", "peft-b-only", "ours-lora", "ours-b-only"], cell=cell)
    assert len(rows) == 5 and not any(row.skipped for row in rows.values()), lines
    assert rows["ours-b-only"].trainable < rows["ours-lora"].trainable
