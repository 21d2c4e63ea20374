"""The program as a user runs it, in this process."""

import csv
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from asym_lightning.adapters import AdapterConfig, adapter_layers, load_adapters
from asym_lightning.cli import main
from asym_lightning.modules import ImageClassifier
from tests.image_stand_ins import write_images

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = ["--config", str(CONFIGS / "quickstart.yaml")]
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.enable_progress_bar", "false"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """Run the program and return its exit code, stdout and stderr's last line."""

    def _run(*args):
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.strip().splitlines() or [""])[-1]

    return _run


def files():
    return [path for path in Path().rglob("*") if path.is_file()]


def predicted(out):
    """Rows of the file that the last line names."""
    with Path(out.split()[-1]).open(newline="") as file:
        return list(csv.DictReader(file))


def test_fit_leaves_config_checkpoint_and_adapter_and_reports_them(run):
    code, out, _ = run("fit", *QUICKSTART, *SHORT)
    assert code == 0
    directory = Path("runs/quickstart/version_0")
    config = yaml.safe_load((directory / "config.yaml").read_text())
    assert config["model"]["init_args"]["adapter"]["rank"] == 8
    assert config["trainer"]["max_epochs"] == 1

    summary = dict(line.split(maxsplit=1) for line in out.strip().splitlines()[-8:])
    scores = ["test/accuracy", "test/calibration_error", "test/loss", "test/macro_f1"]
    assert list(summary) == [*scores, "time", "trained", "checkpoint", "adapter"]
    assert 0 < float(summary["test/accuracy"]) < 1
    assert summary["trained"].startswith("14,794 of 692,842 parameters")
    assert torch.load(summary["checkpoint"], weights_only=True)["global_step"] == 2
    assert Path(summary["adapter"]) == directory / "adapter"
    for name in ("scores.csv", "confusion.csv", "confusion.png", "reliability.csv", "reliability.png"):
        assert (directory / name).is_file(), name


def test_report_reads_runs_that_no_sweep_made(run):
    for seed in ("0", "1"):
        assert run("fit", *QUICKSTART, *SHORT, "--seed_everything", seed)[0] == 0
    code, out, _ = run("report", "runs")
    assert code == 0
    assert "| hB_zero_A_rand_r8 | **0." in out and "| 14,794 | 0.01 | 2 |" in out
    assert Path("runs/report.html").is_file()


def test_report_takes_tests_of_checkpoints_and_leaves_predictions_alone(run):
    assert run("fit", *QUICKSTART, *SHORT, "--test_after_fit=false")[0] == 0
    for command in ("test", "predict"):
        assert run(command, *QUICKSTART, *SHORT, "--ckpt_path", "best")[0] == 0
    code, out, _ = run("report", "runs")
    assert code == 0
    assert "| hB_zero_A_rand_r8 | **0." in out and "is left out" not in out


def test_saved_adapter_is_that_of_the_best_checkpoint(run):
    run("fit", *QUICKSTART, *SHORT, "--trainer.max_epochs", "2")
    directory = Path("runs/quickstart/version_0")
    best = ImageClassifier.load_from_checkpoint(directory / "checkpoints/best.ckpt", weights_only=True)
    module = ImageClassifier("vit_digits", 10, AdapterConfig(rank=8, share_a=True))
    module.configure_model()
    load_adapters(module.backbone, directory / "adapter")
    for name, layer in adapter_layers(best.backbone).items():
        for slice_name, adapter in layer.adapters.items():
            loaded = adapter_layers(module.backbone)[name].adapters[slice_name]
            assert torch.equal(loaded.B, adapter.B)
            assert torch.equal(loaded.A, adapter.A)


def test_several_configs_and_options_are_merged_in_order(run):
    Path("a.yaml").write_text("model: {adapter: {rank: 2, alpha: 4}}")
    Path("b.yaml").write_text("model: {adapter: {rank: 3}}")
    code, _, _ = run(
        "fit", *QUICKSTART, "--config", "a.yaml", "--config", "b.yaml", "--model.adapter.dropout", "0.5", *SHORT
    )
    assert code == 0
    config = yaml.safe_load(Path("runs/quickstart/version_0/config.yaml").read_text())
    adapter = config["model"]["init_args"]["adapter"]
    assert (adapter["rank"], adapter["alpha"], adapter["dropout"]) == (3, 4, 0.5)
    assert adapter["scheme"] == "hB_zero_A_rand"


def test_resolved_config_repeats_the_run(run):
    _, first, _ = run("fit", *QUICKSTART, *SHORT)
    _, second, _ = run("fit", "--config", "runs/quickstart/version_0/config.yaml")
    accuracy = [line for line in first.splitlines() if line.startswith("test/")]
    assert [line for line in second.splitlines() if line.startswith("test/")] == accuracy


def test_test_validate_and_predict_take_the_same_config_and_a_checkpoint(run):
    _, fit_out, _ = run("fit", *QUICKSTART, *SHORT)
    checkpoint = ["--ckpt_path", "runs/quickstart/version_0/checkpoints/best.ckpt"]
    quiet = ["--trainer.enable_progress_bar", "false"]
    code, out, _ = run("test", *QUICKSTART, *checkpoint, *quiet)
    assert code == 0
    accuracy = next(line.split()[1] for line in fit_out.splitlines() if line.startswith("test/accuracy"))
    assert accuracy[:5] in out
    assert run("validate", *QUICKSTART, *checkpoint, *quiet)[0] == 0
    code, out, _ = run("predict", *QUICKSTART, *checkpoint, *quiet)
    assert code == 0
    rows = predicted(out)
    assert [row["id"] for row in rows] == [str(number) for number in range(400)]
    names = [str(digit) for digit in range(10)]
    for row in rows[:20]:
        probabilities = [float(row[f"probability_{name}"]) for name in names]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["label"] == names[probabilities.index(max(probabilities))]


def test_predict_takes_adapters_by_name(run):
    run("fit", *QUICKSTART, *SHORT)
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.limit_predict_batches", "1"]
    checkpoint = ["--ckpt_path", "runs/quickstart/version_0/checkpoints/best.ckpt"]
    expected = predicted(run("predict", *QUICKSTART, *checkpoint, *quiet)[1])
    adapters = ["--adapters", "{digits: runs/quickstart/version_0}"]
    code, out, error = run("predict", *QUICKSTART, *adapters, *quiet)
    assert code == 0, error
    for row, other in zip(predicted(out), expected, strict=True):
        assert float(row["probability_3"]) == pytest.approx(float(other["probability_3"]), abs=1e-5)
    code, _, error = run("predict", *QUICKSTART, "--adapters", "{digits: runs/nowhere}", *quiet)
    assert (code, "holds no adapter" in error) == (1, True)


def test_resume_goes_on_where_the_checkpoint_stopped(run):
    run("fit", *QUICKSTART, *SHORT)
    checkpoint = "runs/quickstart/version_0/checkpoints/best.ckpt"
    code, _, _ = run("fit", *QUICKSTART, *SHORT, "--trainer.max_epochs", "2", "--ckpt_path", checkpoint)
    assert code == 0
    written = Path("runs/quickstart/version_0/checkpoints").glob("*.ckpt")
    assert max(torch.load(path, weights_only=True)["global_step"] for path in written) == 4


BAD_INPUT = {
    "unknown option of the adapter": (
        ["--model.adapter.rnak", "3"],
        "`model.adapter` has no option 'rnak': did you mean rank?",
    ),
    "rank 0": (["--model.adapter.rank", "0"], "`rank` must be at least 1, not 0."),
    "negative rank": (["--model.adapter.rank", "-1"], "`rank` must be at least 1, not -1."),
    "rank too large": (["--model.adapter.rank", "97"], "`rank` is 97, but `blocks.0.attn.qkv` (q) is 96 x 96"),
    "rank not a number": (["--model.adapter.rank", "x"], "`model.adapter.rank` must be an integer, not 'x'."),
    "dropout 1": (["--model.adapter.dropout", "1"], "`dropout` must be in [0, 1), not 1.0."),
    "unknown target": (["--model.adapter.targets", "[attn.qkw]"], "'attn.qkw'"),
    "unknown init": (
        ["--model.adapter.scheme", "hB_zero_A_rnd"],
        "not 'rnd': did you mean rand?",
    ),
    "unknown scheme token": (["--model.adapter.scheme", "hC_zero_A_rand"], "hC"),
    "unknown option of the model": (
        ["--model.num_clases", "3"],
        "`model` has no option 'num_clases': did you mean num_classes",
    ),
    "unknown option of the data": (
        ["--data.batchsize", "3"],
        "`data` has no option 'batchsize': did you mean loader.batch_size?",
    ),
    "unknown option of the trainer": (
        ["--trainer.max_epocs", "3"],
        "no option 'trainer.max_epocs': did you mean trainer.max_epochs",
    ),
    "unknown option": (["--bogus", "3"], "no option 'bogus'; there are config, seed_everything, "),
    "null for a number": (["--data.seed", "null"], "`data.seed` must be an integer, not null."),
    "null for a number of the loader": (
        ["--data.loader.batch_size", "null"],
        "`data.loader.batch_size` must be an integer, not null.",
    ),
    "batch size 0": (["--data.loader.batch_size", "0"], "`batch_size` must be at least 1, not 0."),
    "option of the loader outside it": (
        ["--data.batch_size", "4"],
        "`data` has no option 'batch_size': it is `data.loader.batch_size`.",
    ),
    "option of the loader outside it, in a config": (
        ["--config", "loader.yaml"],
        "`data` has no option 'num_workers': it is `data.loader.num_workers`.",
    ),
    "option of the backbone outside it": (
        ["--model.pretrained", "false"],
        "`model` has no option 'pretrained': it is `model.backbone_options.pretrained`.",
    ),
    "option of the backbone outside it, in a config": (
        ["--config", "backbone.yaml"],
        "`model` has no option 'quantization': it is `model.backbone_options.quantization`.",
    ),
    "unknown precision of the backbone": (
        ["--model.backbone_options.precision", "bf16"],
        "`model.backbone_options.precision` must be one of float32, bfloat16, float16, not 'bf16'",
    ),
    "no gradient checkpointing": (
        ["--config", "crossvit.yaml"],
        "`backbone_options.gradient_checkpointing` is not known to CrossVit",
    ),
    "unknown option of the loader": (
        ["--data.loader.num_wrokers", "4"],
        "`data.loader` has no option 'num_wrokers': did you mean num_workers?",
    ),
    "unknown option of the loader, in a config": (
        ["--config", "loaders.yaml"],
        "num_wrokers': did you mean ",
    ),
    "wrong type": (["--trainer.max_epochs", "many"], "`trainer.max_epochs` must be an integer or null, not 'many'."),
    "unknown backbone": (["--model.backbone", "vit_digit"], "no backbone named 'vit_digit': did you mean vit_digits"),
    "missing checkpoint": (["--ckpt_path", "no.ckpt"], "there is no checkpoint 'no.ckpt'"),
    "foreign checkpoint": (["--ckpt_path", "text.ckpt"], "'text.ckpt' is not a checkpoint"),
    "truncated checkpoint": (
        ["--ckpt_path", "truncated.ckpt"],
        "'truncated.ckpt' is not a checkpoint, or it is truncated",
    ),
    "missing config": (["--config", "no.yaml"], "no.yaml"),
    "broken config": (["--config", "broken.yaml"], "broken.yaml`, line "),
    "unknown section": (["--config", "section.yaml"], "no option 'modle.adapter.rank': did you mean model?"),
    "unknown model class": (
        ["--config", "class.yaml"],
        "`model` names no class 'ImageClasifier': did you mean ImageClassifier",
    ),
    "unknown optimizer": (
        ["--model.optimizer", "AdmaW"],
        "`model.optimizer` names no class 'AdmaW': did you mean AdamW",
    ),
    "unknown logger": (
        ["--trainer.logger", "CSVLoger"],
        "`trainer.logger` names no class 'CSVLoger': did you mean CSVLogger?",
    ),
    "unknown callback": (
        ["--trainer.callbacks+=FreezA"],
        "`trainer.callbacks` names no class 'FreezA': did you mean FreezeA?",
    ),
    "unknown option of the optimizer": (
        ["--model.optimizer.lrr", "1"],
        "`model.optimizer` has no option 'lrr': did you mean lr?",
    ),
    "schedule out of range": (["--model.scheduler.warmup", "2"], "`warmup` must be in [0, 1)"),
    "unknown decay": (
        ["--model.scheduler.decay", "cosin"],
        "`model.scheduler.decay` must be one of cosine, linear, constant, not 'cosin'",
    ),
    "two arms at once": (["--model.train_backbone", "true"], "cannot be combined with an `adapter`"),
    "too many images": (["--data.num_train", "5000"], "`num_train` must be at most 1197"),
}


@pytest.fixture
def bad_files(tmp_path):
    (tmp_path / "broken.yaml").write_text("model: [\n")
    (tmp_path / "section.yaml").write_text("modle: {adapter: {rank: 3}}")
    (tmp_path / "class.yaml").write_text("model: {class_path: ImageClasifier}")
    (tmp_path / "crossvit.yaml").write_text(
        "model: {backbone: crossvit_tiny_240, backbone_options: {pretrained: false, gradient_checkpointing: true}}"
    )
    (tmp_path / "backbone.yaml").write_text("model: {quantization: nf4}")
    (tmp_path / "loader.yaml").write_text("data: {num_workers: 2}")
    (tmp_path / "loaders.yaml").write_text("data: {loader: {num_wrokers: 2}}")
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"state_dict": {"x": torch.zeros(1000)}}, tmp_path / "whole.ckpt")
    (tmp_path / "truncated.ckpt").write_bytes((tmp_path / "whole.ckpt").read_bytes()[:2000])


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize(("options", "sentence"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_sentence_that_leaves_nothing_behind(run, options, sentence):
    before = files()
    code, _, err = run("fit", *QUICKSTART, *options)
    assert code in (1, 2)
    assert err.startswith("error: ")
    assert sentence in err
    assert files() == before
    assert not Path("runs").exists()


def test_own_images_are_predicted(run, tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / split, ["ant", "bee"], per_class=3)
    data = ["--data", "ImageFolderDataModule", "--data.folder", str(tmp_path), "--data.image_size", "8"]
    data += ["--data.mean", "[0.5]", "--data.std", "[0.5]", "--data.loader.batch_size", "1"]
    options = ["--config", "images.yaml", *data, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar=false"]
    Path("images.yaml").write_text("model: {class_path: ImageClassifier, backbone: vit_digits, num_classes: 2}")
    code, out, _ = run("predict", *options)
    assert code == 0
    rows = predicted(out)
    assert [Path(row["id"]).parent.name for row in rows] == ["ant"] * 3 + ["bee"] * 3
    assert {row["label"] for row in rows} <= {"ant", "bee"}
    assert float(rows[0]["probability_ant"]) + float(rows[0]["probability_bee"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("args", "sentence"), [(["fitt"], "'fitt'"), ([], "fit, validate, test, predict")])
def test_unknown_or_missing_command_lists_those_there_are(run, args, sentence):
    code, _, err = run(*args)
    assert code == 2
    assert sentence in err


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="at least 1"):
        main(["fit", *QUICKSTART, "--debug", "--model.adapter.rank", "0"])


def test_failed_run_beside_others_removes_itself_only(run):
    run("fit", *QUICKSTART, *SHORT)
    kept = files()
    code, _, _ = run("fit", *QUICKSTART, *SHORT, "--model.adapter.rank", "97")
    assert code == 1
    assert files() == kept


@pytest.fixture
def default_interrupt():
    """Python's own handler: a shell without job control starts background jobs with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_is_quiet_and_exits_with_130(run, default_interrupt):
    def interrupt_when_training():
        checkpoints: list[Path] = []
        while not checkpoints:
            stop.wait(0.02)
            with suppress(FileNotFoundError):  # what is being written goes while it is looked for
                checkpoints = list(Path().rglob("*.ckpt"))
        os.kill(os.getpid(), signal.SIGINT)

    stop = threading.Event()
    threading.Thread(target=interrupt_when_training, daemon=True).start()
    code, _, err = run("fit", *QUICKSTART, "--trainer.max_epochs", "500", "--trainer.enable_progress_bar", "false")
    assert code == 130
    assert "interrupted at step" in err
    assert "best.ckpt" in err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_explains_the_options(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "--test_after_fit" in out
    assert "--trainer.max_epochs" in out


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_all_explains_all_options_of_the_trainer(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help", "all"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f" [options] {command} " in out
    assert "--test_after_fit" in out
    assert "--trainer.reload_dataloaders_every_n_epochs" in out


@pytest.mark.parametrize(
    ("class_help", "explanation"),
    [
        (["--model.help", "ImageClassifier"], "Number of classes, the outputs of the new head."),
        (["--model.adapter.help"], "Rank r of every adapter"),
        (["--model.backbone_options.help"], "Load pretrained weights; false starts from random ones"),
        (["--data.help", "DigitsDataModule"], "Number of labelled training images"),
        (["--trainer.strategy.help", "lightning.pytorch.strategies.FSDPStrategy"], "auto_wrap_policy"),
        (["--data.loader.help"], "Rows in a training batch."),
    ],
)
def test_help_of_a_class_explains_its_arguments(capsys, class_help, explanation):
    try:
        assert main(["fit", *class_help]) == 0
    except SystemExit as stop:  # of what jsonargparse explains
        assert stop.code == 0
    assert explanation in " ".join(capsys.readouterr().out.split())
