"""Half of the library works without the packages of the other half, and names the extra of what is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from asym_lightning.core.extras import EXTRAS

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
TEXT = ("transformers", "datasets", "pyarrow", "rouge_score")
VISION = ("timm", "torchvision")
TEXT_MODULES = (
    "AudioClassifier",
    "SpeechRecognizer",
    "VisionLanguageTuner",
    "TextClassifier",
    "MultiLabelTextClassifier",
    "TokenClassifier",
    "QuestionAnswerer",
    "SentenceEncoder",
    "Summarizer",
    "InstructionTuner",
    "PreferenceTuner",
    "MMLUEvaluator",
)

# As if they were not installed: other libraries ask for specs and for distributions, and expect no error of either.
PRELUDE = """
import importlib.metadata, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        find = getattr(self.finder, "find_distributions", lambda context: [])
        return [found for found in find(context) if found.name.replace("-", "_") not in BLOCKED]

sys.meta_path[:] = map(Without, sys.meta_path)
import asym_lightning.adapters, asym_lightning.analysis, asym_lightning.callbacks, asym_lightning.cli
import asym_lightning.data, asym_lightning.modules, asym_lightning.sharding, asym_lightning.strategies

def missing(package, name):
    try:
        getattr(package, name)
    except ModuleNotFoundError as error:
        print(error)
"""


def run_without(packages, program, errors=False):
    code = f"BLOCKED = {packages!r}\n{PRELUDE}\n{program}"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return (result.stderr if errors else result.stdout).splitlines()


def test_images_need_no_packages_for_text():
    program = f"""
import torch
TEXT_MODULES = {TEXT_MODULES}
from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import DigitsDataModule, DomainBedDataModule, ImageFolderDataModule
from asym_lightning.modules import AdapterModule, ImageClassifier
module = ImageClassifier("vit_digits", num_classes=10, adapter=AdapterConfig(rank=2, targets=["q", "v"]))
module.configure_model()
module(torch.zeros(2, 1, 8, 8)).sum().backward()
for name in TEXT_MODULES:
    missing(asym_lightning.modules, name)
missing(asym_lightning.data, "GLUEDataModule")
"""
    assert run_without(TEXT, program) == [
        f"`{name}` needs transformers: pip install 'asym-lightning[text]'."
        for name in (*TEXT_MODULES, "GLUEDataModule")
    ]


def test_text_needs_no_packages_for_images():
    program = """
import torch, transformers
from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import AlpacaDataModule, GLUEDataModule, MMLUDataModule, SummarizationDataModule
from asym_lightning.modules import InstructionTuner, MMLUEvaluator, Summarizer, TextClassifier
config = transformers.BertConfig(
    vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
)
backbone = transformers.BertForSequenceClassification(config)
module = TextClassifier(backbone, adapter=AdapterConfig(rank=2, targets=["q", "v"]))
module.configure_model()
module.logits({"input_ids": torch.ones(2, 3, dtype=torch.int64)}).sum().backward()
missing(asym_lightning.modules, "ImageClassifier")
missing(asym_lightning.data, "ImageFolderDataModule")
"""
    assert run_without(VISION, program) == [
        "`ImageClassifier` needs timm: pip install 'asym-lightning[vision]'.",
        "`ImageFolderDataModule` needs torchvision: pip install 'asym-lightning[vision]'.",
    ]


def test_the_command_line_needs_the_packages_of_what_a_config_names(tmp_path):
    program = f"""
from asym_lightning.cli import main
options = ["--trainer.fast_dev_run=true", "--trainer.default_root_dir={tmp_path}"]
assert main(["fit", "--config=configs/quickstart.yaml", *options]) == 0
assert main(["fit", "--config=configs/glue/rte.yaml", *options]) != 0
"""
    assert "`TextClassifier` needs transformers: pip install 'asym-lightning[text]'." in "\n".join(
        run_without(TEXT, program, errors=True)
    )
    assert "ImageClassifier" in "\n".join(
        run_without(TEXT, 'from asym_lightning.cli import main\nmain(["fit", "--help"])')
    )


def test_a_data_set_of_the_hub_and_parquet_name_the_extra(tmp_path):
    program = f"""
from pathlib import Path
from asym_lightning.data.tables.text_source import HubSplit, LocalFile
for source in (HubSplit("nyu-mll/glue", "rte", "train"), LocalFile(Path({str(tmp_path)!r}, "x.parquet"))):
    try:
        source.read()
    except ModuleNotFoundError as error:
        print(error)
"""
    (tmp_path / "x.parquet").touch()
    assert run_without(("datasets", "pyarrow"), program) == [
        "`nyu-mll/glue` needs datasets: pip install 'asym-lightning[text]'.",
        f"`{tmp_path / 'x.parquet'}` needs pyarrow: pip install 'asym-lightning[text]'.",
    ]


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_each_extra_brings_what_it_is_named_for(package, extra):
    project = {"PIL": "torchvision", "pyarrow": "datasets", "rouge_score": "rouge-score", "sklearn": "scikit-learn"}
    (line,) = re.findall(rf"^{extra} = \[(.*)\]$", PYPROJECT, flags=re.MULTILINE)
    assert f'"{project.get(package, package)}>=' in line  # pillow and pyarrow are required by what is named


@pytest.mark.parametrize(
    ("whole", "parts"), [("demo", "audio,detection,figures,text,vision"), ("bench", "figures,text,vision")]
)
def test_set_ups_bring_all_parts(whole, parts):
    assert f'{whole} = ["asym-lightning[{parts}]"' in PYPROJECT
    assert '"asym-lightning[bench,demo,private,quantized]"' in PYPROJECT  # in dev
