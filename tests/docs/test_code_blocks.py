"""Every code block of the documentation runs: Python page by page, configs as files, commands as a reader types them.

What needs a GPU is only parsed, and what takes longer than a test may is cut short, as `run` says. Sweeps make their
runs in this process: that they make them in others is tested with the sweep.
"""

import io
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from asym_lightning.cli import main
from asym_lightning.cli.sweep.outcome import write_outcome
from tests.image_stand_ins import write_images, write_masked_images
from tests.language_models import byte_tokenizer, saved, tiny_llama
from tests.picture_stand_ins import write_pictures, write_tiny_llava
from tests.text_stand_ins import write_tiny_bert

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
OF_EXTRAS = {"quantized_backbones": "bitsandbytes", "private_training": "opacus", "federated": "flwr"}
FIT_SHORTER = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    code: str


def blocks(page):
    text = page.read_text()
    found = [Block(**match.groupdict()) for match in FENCE.finditer(text)]
    assert len(found) == len(re.findall(r"^```\w", text, re.MULTILINE)), "a fence that the test cannot read"
    return found


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the configs of the repository and data that the pages speak of."""
    for name in ("configs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    for split in ("train", "val", "test"):
        write_images(tmp_path / "images" / split, ["cat", "dog"], per_class=4)
    for seed, split in enumerate(("train", "val")):
        write_masked_images(tmp_path / "scenes" / split, count=4, seed=seed)
    write_tiny_bert(tmp_path / "encoder")
    tokenizer = byte_tokenizer()
    saved(tmp_path / "decoder", tiny_llama(len(tokenizer)), tokenizer)
    (tmp_path / "new.csv").write_text("sentence\nthe cat sat .\n")
    (tmp_path / "train.csv").write_text("sentence,label\n" + "the cat sat .,0\na dog ran far .,1\n" * 4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def make_runs_here(runs, *_, **options):
    for run in runs:
        assert main(run.arguments) == 0
        write_outcome(run, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_code_block_runs(page, workplace, monkeypatch):
    if page.stem in OF_EXTRAS:
        pytest.importorskip(OF_EXTRAS[page.stem])
    monkeypatch.setattr("asym_lightning.cli.sweep.execute_runs", make_runs_here)
    monkeypatch.setattr("sys.stdin", io.StringIO("Name a fruit.\n/reset\nName a colour.\n"))
    if page.stem == "audio":
        write_audio(workplace)
    if page.stem == "vision_language":
        write_tiny_llava(workplace / "seeing")
        write_pictures(workplace / "pictures", 4)
    torch.manual_seed(0)
    namespace = {"__name__": page.stem}
    for block in blocks(page):
        if block.title:
            (workplace / block.title).write_text(block.code)
        if block.language == "python":
            exec(compile(block.code, str(page), "exec"), namespace)
        elif block.language == "json":
            assert all(json.loads(line) for line in block.code.splitlines())
        elif block.language == "yaml":
            assert yaml.safe_load(block.code)
        elif block.language == "text":
            assert block.title  # a file that later blocks read
        else:
            assert block.language == "bash"
            for line in block.code.replace("\\\n", " ").splitlines():
                run(shlex.split(line, comments=True))


def write_audio(folder):
    pytest.importorskip("soundfile")
    from tests.audio_stand_ins import write_speech, write_tiny_ctc, write_tones

    write_tiny_ctc(folder / "listener")
    write_tones(folder / "sounds", 3)
    write_speech(folder / "speech.csv", 2)


def run(command):
    program, *arguments = command
    if program == "pip":
        assert arguments[:2] == ["install", "-e"]
        return
    assert program in ("lightning", "asym-lightning")
    name, *options = arguments
    if name == "fit" and "--trainer.accelerator=gpu" in options:
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--print_config"])
        assert stop.value.code == 0
    elif name == "fit":
        assert main([*arguments, *FIT_SHORTER]) == 0
    elif name == "lm_eval":
        return  # its tasks are on the hub
    elif name == "sweep" and "runs/comparison" in options:  # which later commands on its page read
        rate = options.index("--learning-rates")
        shorter = [*options[:rate], "--learning-rates", "1e-2", "--seeds", "0", "1", *options[options.index("--out") :]]
        assert main([name, *shorter, "--", *FIT_SHORTER]) == 0
    elif name == "sweep" and "runs/seeds" in options:
        assert main([*arguments, "--", *FIT_SHORTER]) == 0
    elif name == "sweep" and "benchmarks/sweeps/figure1_digits.yaml" in options:
        shorter = ["--arm", "configs/adapters/lora_r8.yaml", "--seeds", "0", "1"]
        assert main([name, *options, *shorter, "--", *FIT_SHORTER]) == 0
    elif name == "sweep":
        assert main([*arguments, *([] if "--slurm" in options else ["--dry-run"])]) == 0
    else:
        assert main(arguments) == 0


def test_pages_of_the_site_are_those_of_the_folder():
    listed = re.findall(r"(\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES]


def test_links_and_images_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for path in re.findall(r"`((?:configs|benchmarks)/[\w./-]+)`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    pytest.importorskip("mkdocs")
    import subprocess
    import sys

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert "cca_similarity" in (tmp_path / "site/api_analysis/index.html").read_text()
