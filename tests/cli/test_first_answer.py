"""What the program answers before torch is imported."""

from pathlib import Path

import pytest

from asym_lightning.cli import main
from asym_lightning.cli.commands import TRAINING
from asym_lightning.cli.first_answer import first_answer
from asym_lightning.cli.help import OPTIONS
from asym_lightning.cli.option_names import top_level_options
from asym_lightning.cli.signatures import signature
from asym_lightning.cli.training import TrainingCLI
from asym_lightning.cli.usage import UsageError

ROOT = Path(__file__).parents[2]
TASK = ["--config", "configs/quickstart.yaml"]


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


WRONG_USAGE = {
    "nothing": ([], "to begin, `lightning fit --config quickstart`"),
    "command": (["fitt"], "there is no command 'fitt': did you mean fit"),
    "tool": (["swep"], "there is no command 'swep': did you mean sweep"),
    "option in place of a command": (["--hlep"], "there is no option '--hlep': did you mean --help?"),
    "command alone": (["validate"], "`validate` needs a task: `lightning validate --config quickstart`"),
    "config without its option": (["fit", "x.yaml"], "'x.yaml' belongs to no option: did you mean --config x.yaml?"),
    "recipe without its option": (
        ["fit", "glue/rte"],
        "'glue/rte' belongs to no option: did you mean --config glue/rte?",
    ),
    "stray word": (["fit", *TASK, "extra"], "'extra' belongs to no option."),
    "short form of a rate": (["fit", *TASK, "--lr", "1"], "no option 'lr': it is `model.optimizer.lr`."),
    "short form, no config": (["fit", "--lr=1"], "no option 'lr': it is `model.optimizer.lr`."),
    "short form of a rank": (["fit", *TASK, "--rank", "3"], "no option 'rank': it is `model.adapter.rank`."),
    "misspelt short form": (["fit", *TASK, "--max_epoch=3"], "no option 'max_epoch': did you mean trainer.max_epochs?"),
    "trainer": (
        ["fit", *TASK, "--trainer.max_epocs", "3"],
        "no option 'trainer.max_epocs': did you mean trainer.max_ep",
    ),
    "section": (["fit", *TASK, "--trianer.max_epochs", "3"], "no option 'trianer.max_epochs': did you mean trainer"),
    "model": (
        ["fit", *TASK, "--model.num_clases", "3"],
        "`model` has no option 'num_clases': did you mean num_classes",
    ),
    "long form": (
        ["fit", *TASK, "--model.init_args.num_clases", "3"],
        "`model` has no option 'num_clases': did you mean num_classes",
    ),
    "adapter": (["fit", *TASK, "--model.adapter.rnak=3"], "`model.adapter` has no option 'rnak': did you mean rank"),
    "optimizer": (["fit", *TASK, "--model.optimizer.lrr=3"], "`model.optimizer` has no option 'lrr': did you mean lr"),
    "scheduler": (
        ["fit", *TASK, "--model.scheduler=StepLR", "--model.scheduler.stepsize=3"],
        "`model.scheduler` has no option 'stepsize': did you mean step_size",
    ),
    "data": (["fit", *TASK, "--data.num_trian", "3"], "`data` has no option 'num_trian': did you mean num_train"),
    "class on the command line": (
        ["fit", "--model", "ImageClassifier", "--model.bakbone", "x"],
        "`model` has no option 'bakbone': did you mean backbone",
    ),
    "overlay alone": (["fit", "-c", "configs/adapters/lora_r8.yaml"], "lora_r8.yaml names no task"),
    "options alone": (["fit", "--trainer.max_epochs", "3"], "no task is named"),
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage_is_one_sentence_with_the_nearest_choice(arguments, sentence):
    with pytest.raises(UsageError) as error:
        first_answer(arguments)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_config_is_named_with_its_overlay():
    with pytest.raises(FileNotFoundError, match=r"did you mean adapters/b_only_r8"):
        first_answer(["fit", *TASK, "--config", "b_only_r8"])


RIGHT_USAGE = {
    "overlay": [*TASK, "--config", "configs/adapters/lora_r8.yaml"],
    "flags": [*TASK, "--debug", "--quiet", "--seed_everything", "-1"],
    "long form": [*TASK, "--model.init_args.adapter.init_args.rank=3"],
    "another class": [*TASK, "--model.optimizer", "SGD", "--model.optimizer.momentum=.9"],
    "unknown class": [*TASK, "--model", "my_package.Regressor", "--model.width=3"],
    "callback": [*TASK, "--trainer.callbacks+=FreezeA", "--trainer.callbacks.after_steps=3"],
    "logger": [*TASK, "--trainer.logger.save_dir=x"],
    "arguments of a dictionary": [*TASK, "--model.backbone_options.model_args.img_size=8"],
    "no config": ["--model", "ImageClassifier", "--data", "DigitsDataModule"],
    "text in place of a file": ["--config", "model: {class_path: ImageClassifier}"],
    "print": ["--print_config", "--trainer.max_epochs", "3"],
    "all options": ["--help", "all"],
}


@pytest.mark.parametrize("arguments", RIGHT_USAGE.values(), ids=RIGHT_USAGE.keys())
def test_what_may_be_right_is_left_to_the_program(arguments):
    assert first_answer(["fit", *arguments]) is None


@pytest.mark.parametrize("config", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_passes_over_a_task(config):
    assert first_answer(["fit", *TASK, "--config", str(config)]) is None


def test_config_that_is_no_yaml_is_refused_by_its_line(tmp_path):
    (tmp_path / "broken.yaml").write_text("model: [\n")
    with pytest.raises(ValueError, match=r"broken\.yaml`, line 2: expected the node content"):
        first_answer(["fit", "--config", str(tmp_path / "broken.yaml")])


@pytest.mark.parametrize("command", TRAINING)
def test_options_of_every_command_are_known(monkeypatch, command):
    class Stopped(Exception):
        pass

    def stop(cli, parser, arguments):
        raise Stopped(cli._subcommand_parsers[command]._option_string_actions)

    monkeypatch.setattr(TrainingCLI, "parse_arguments", stop)
    with pytest.raises(Stopped) as stopped:
        TrainingCLI([command])
    options = {option for option in stopped.value.args[0] if option.startswith("--")}
    names = {option.removeprefix("--").removesuffix("+") for option in options if not option.endswith(".help")}
    assert names == {"help", *top_level_options(command)}


def test_help_of_a_command_fits_a_screen(capsys):
    assert main(["fit", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert len(OPTIONS) == 20


def test_options_of_the_help_are_options():
    for option in OPTIONS:
        if option != "--config FILE":
            assert first_answer(["fit", *TASK, *option.split()]) is None


def test_help_of_a_class_fits_two_screens(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["fit", "--model.help", "ImageClassifier"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("--")] == [
        f"--model.{name}" for name in signature("asym_lightning.modules.ImageClassifier").arguments
    ]


@pytest.mark.parametrize(
    ("option", "lines"),
    [
        (["--model.help"], ["ImageClassifier", "Classify images with a timm backbone"]),
        (["--data.help"], ["DigitsDataModule"]),
        (["--trainer.callbacks.help"], ["FreezeA", "EarlyStopping"]),
        (["--model.optimizer.help"], ["AdamW"]),
        (["--model.optimizer.help", "SGD"], ["--model.optimizer.momentum  (float, default: 0)"]),
        (["--model.scheduler.help", "WarmupSchedule"], ["--model.scheduler.warmup  (float, default: 0.0)"]),
        ([*TASK, "--model.optimizer.help"], ["AdamW"]),
        (["--model.adapter.help"], ["--model.adapter.rank  (int, default: 8)", "Rank r of every adapter"]),
        (
            ["--model.help=ImageClassifier"],
            ["--model.num_classes  (int | None, default: None)", "--model.adapter.help shows"],
        ),
    ],
)
def test_help_of_a_class_names_what_there_is(capsys, option, lines):
    assert main(["fit", *option]) == 0
    out = capsys.readouterr().out
    assert all(line in out for line in lines)
    assert "model.optimizer.params" not in out


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "asym-lightning 0.1.0\n"


def test_help_of_the_program_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", "sweep", "report", "export", "merge", "estimate"):
        assert f"  {command} " in out
