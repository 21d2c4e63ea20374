"""What a command may not import: torch and Lightning take seconds, and each of the others a good part of one."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from asym_lightning.cli.commands import TOOLS

ROOT = Path(__file__).parents[2]
QUICKSTART = f"--config {ROOT / 'configs' / 'quickstart.yaml'}"
# Lightning imports torchmetrics, which imports most of these; a help text does without all of them.
HEAVY = {
    "torch", "lightning", "torchmetrics", "torchvision", "timm", "transformers", "datasets", "matplotlib", "scipy",
    "sklearn", "pandas", "numpy",
}  # fmt: skip
PROGRAM = """
import json, sys
from asym_lightning.cli import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
with open(sys.argv[1], "w") as file:
    json.dump(sorted(sys.modules), file)
"""


def modules_after(command, folder):
    """All modules that the program has imported when a command is over."""
    out = folder / "modules.json"
    arguments = [sys.executable, "-c", PROGRAM, str(out), *command.split()]
    subprocess.run(arguments, check=True, cwd=folder, capture_output=True)
    return set(json.loads(out.read_text()))


@pytest.mark.parametrize(
    "command",
    [
        "",
        "--help",
        "--version",
        "fitt",
        "fit",
        "fit --help",
        "predict --help",
        "fit --model.help",
        "fit --model.help ImageClassifier",
        "fit --data.help TextFilesDataModule",
        "fit --trainer.callbacks.help",
        "fit --model.adapter.help",
        "fit quickstart.yaml",
        "fit --config no.yaml",
        "configs",
        "configs show quickstart",
        "fit --lr 3",
        f"fit {QUICKSTART} --trainer.max_epocs 3",
        f"fit {QUICKSTART} --model.adapter.rnak 3",
        *(f"{tool} --help" for tool in TOOLS if tool != "lm_eval"),  # whose help is the harness's
        "generate base",
    ],
)
def test_help_and_wrong_usage_import_nothing_heavy(command, tmp_path):
    assert modules_after(command, tmp_path) & HEAVY == set()


def test_program_imports_no_parser_before_it_knows_the_command(tmp_path):
    assert (
        modules_after("report --help", tmp_path) & {"yaml", "jsonargparse", "asym_lightning.cli.first_answer"} == set()
    )


@pytest.fixture(scope="module")
def modules_of_fit(tmp_path_factory):
    """Modules after one step of the quickstart."""
    steps = "--trainer.max_steps 1 --trainer.limit_val_batches 0 --test_after_fit false"
    return modules_after(f"fit {QUICKSTART} {steps}", tmp_path_factory.mktemp("fit"))


@pytest.mark.parametrize(
    "module",
    [
        # of the package: other tasks and data than the config names
        "asym_lightning.modules.texts.text_classifier",
        "asym_lightning.modules.language.generative_module",
        "asym_lightning.data.tokens.tokenized_text",
        "asym_lightning.callbacks.injection",
        "asym_lightning.report.page",
        "asym_lightning.strategies.fsdp2",
        # beyond what Lightning imports itself
        "torch.distributed.checkpoint",
        "datasets",
        "pandas",
        "pyarrow",
        pytest.param("sklearn", marks=pytest.mark.skipif(version("transformers") < "5", reason="Lightning imports it")),
        "transformers.modeling_utils",
        "rouge_score",
        "bitsandbytes",
    ],
)
def test_fit_imports_only_what_its_config_names(module, modules_of_fit):
    assert "asym_lightning.modules.images.image_classifier" in modules_of_fit
    assert module not in modules_of_fit
