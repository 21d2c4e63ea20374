"""What surrounds a training step: images, rows of tokens in any number, the optimizer, logging and checkpoints.

    python -m benchmarks.around_the_step [--only images rows optimizer run]

Times are of one core, in processor time, which other programs disturb least; a round has each of the things that are
compared once, and the median is taken. Images are JPEG files of 400 x 300; torchvision's own is `ImageFolder`, with the
same transforms. Rows are made on the fly, 20 tokens each, written in parts, and 1,000 batches are read in training's
order, in a process of its own: its memory is what is not of a file. The optimizer has 2,000 B's of 768 x 8. The run is
a ViT of 12 blocks of width 192, B-only, 8 images of 32 x 32, for 40 steps, which share the time of its start.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.data.images.image_folder import ImageFolderDataModule
from asym_lightning.data.images.image_transforms import ImageInput, eval_transform, train_transform
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tokens.length_bucketing import LengthBucketSampler
from asym_lightning.data.tokens.padding import PadBatch
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from benchmarks.figures import figures_table, write_figures
from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results" / "around_the_step.csv"
NUM_IMAGES, IMAGE_SIZE = 128, (400, 300)
NUM_TOKENS, PART = 20, 100_000
NUM_ROWS = (10_000, 1_000_000, 10_000_000)
NUM_BATCHES = 1000
BS = (2000, (768, 8))
ROUNDS = 5
Figures = dict[str, float]


def medians(runs: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median processor seconds of each, after one run that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def images() -> Figures:
    """From files to batches, beside torchvision's own: seconds, and images a second."""
    from torchvision.datasets import ImageFolder

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(NUM_IMAGES):
            path = Path(folder, "train", str(number % 4), f"{number}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
            coarse.resize(IMAGE_SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        data = ImageFolderDataModule(folder, val=None, loader=LoaderOptions(batch_size=32))
        data.setup("fit")
        transform = train_transform(ImageInput(), "crop_flip")
        theirs = DataLoader(ImageFolder(Path(folder, "train"), transform), batch_size=32, shuffle=True)
        plain = DataLoader(ImageFolder(Path(folder, "train"), eval_transform(ImageInput())), batch_size=32)
        data.split_folders["val"] = "train"
        data.setup("validate")
        runs = {
            "training images": lambda: [*data.train_dataloader()],
            "training images by torchvision": lambda: [*theirs],
            "validation images": lambda: [*data.val_dataloader()],
            "validation images by torchvision": lambda: [*plain],
        }
        figures = {}
        for name, seconds in medians(runs).items():
            figures |= {f"{name}, s": seconds, f"{name}, a second": NUM_IMAGES / seconds}
        return figures


def made_rows(count: int) -> Iterator[TokenizedRows]:
    """Rows of random tokens, in parts."""
    random = np.random.default_rng(0)
    for start in range(0, count, PART):
        size = min(PART, count - start)
        tokens = random.integers(0, 30_000, size * NUM_TOKENS, np.int32)
        ends = np.arange(1, size + 1) * NUM_TOKENS
        yield TokenizedRows({"input_ids": Ragged(tokens, ends)}, {"labels": random.integers(0, 2, size)})


def rows() -> Figures:
    """Memory of writing and of reading, by number of rows."""
    figures = {}
    for count in NUM_ROWS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "rows.safetensors")
            for what in ("write", "read"):
                command = [sys.executable, "-m", "benchmarks.around_the_step", f"--{what}", str(path), str(count)]
                found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                name = f"{count:,} rows: {'written' if what == 'write' else 'read'}"
                megabytes, seconds = map(float, found[-2:])
                figures |= {f"{name}, MB of memory": megabytes, f"{name}, s": seconds}
            figures[f"{count:,} rows: the file, MB"] = path.stat().st_size / 1e6
    return figures


def write_rows(path: Path, count: int) -> None:
    """Print the most memory that writing took over what there was before, and seconds of the processor."""
    before, start = held_bytes(), time.process_time()
    most = 0

    def watched() -> Iterator[TokenizedRows]:
        nonlocal most
        for part in made_rows(count):
            yield part
            most = max(most, held_bytes() - before)

    TokenizedRows.write(path, watched())
    print(f"{most / 1e6:.0f} {time.process_time() - start:.1f}")


def read_rows(path: Path, count: int) -> None:
    """Print memory that a thousand batches in training's order took, and seconds of the processor."""
    before, start, most = held_bytes(), time.process_time(), 0
    found = TokenizedRows.load(path)
    assert found is not None and len(found) == count
    sampler = LengthBucketSampler(found.lengths(), 32)
    for number, _ in enumerate(DataLoader(found, batch_size=32, sampler=sampler, collate_fn=PadBatch({}))):
        most = max(most, held_bytes() - before)
        if number == NUM_BATCHES:
            break
    print(f"{most / 1e6:.0f} {time.process_time() - start:.1f}")


def held_bytes() -> int:
    """Memory of this process that is not of a file, which could be given back and read again."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def optimizer() -> Figures:
    """A step of AdamW on thousands of small matrices, by its implementation."""
    count, shape = BS
    runs = {}
    for name, options in {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items():
        parameters = [nn.Parameter(torch.zeros(shape)) for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.ones(shape)
        runs[name] = torch.optim.AdamW(parameters, **options).step
    return {f"AdamW, {name}, ms a step": 1000 * seconds for name, seconds in medians(runs).items()}


def run() -> Figures:
    """What a Trainer, its log and its checkpoints take of a step."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import CSVLogger
    from timm.models.vision_transformer import VisionTransformer

    from asym_lightning.adapters import AdapterConfig
    from asym_lightning.callbacks import BNormMonitor
    from asym_lightning.modules import ImageClassifier

    steps = 40
    batches = DataLoader(TensorDataset(torch.randn(8 * steps, 3, 32, 32), torch.randint(10, (8 * steps,))), 8)

    def fit(folder: str, logs: bool, monitors: bool = False) -> Trainer:
        backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=192, num_heads=3, num_classes=10)
        module = ImageClassifier(backbone, num_classes=10, adapter=AdapterConfig())
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, logger=CSVLogger(folder) if logs else False, log_every_n_steps=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[BNormMonitor(every_n_steps=1)] if monitors else [],
        )  # fmt: skip
        trainer.fit(module, batches)
        return trainer

    with tempfile.TemporaryDirectory() as folder:
        trainer = fit(folder, False)
        path = Path(folder, "one.ckpt")
        runs = {
            "without a log": lambda: fit(folder, False),
            "a log every step": lambda: fit(folder, True),
            "a log and norms every step": lambda: fit(folder, True, True),
        }
        found = medians(runs)
        saved = medians({"checkpoint": lambda: trainer.save_checkpoint(path)})["checkpoint"]
        return {
            **{f"a run, {name}, ms a step": 1000 * seconds / steps for name, seconds in found.items()},
            "a checkpoint, ms": 1000 * saved,
            "its file, kB": path.stat().st_size / 1e3,
        }


PARTS = {"images": images, "rows": rows, "optimizer": optimizer, "run": run}


def main() -> None:
    """Measure, print and write what was measured, beside the other parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", nargs=2, metavar=("FILE", "ROWS"), help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs=2, metavar=("FILE", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    for given, work in ((options.write, write_rows), (options.read, read_rows)):
        if given:
            work(Path(given[0]), int(given[1]))
            return
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    for name in options.only:
        figures = PARTS[name]()
        write_figures(figures, options.results, describe(torch.device("cpu"), 1))
        print("\n".join(f"{what:60s} {value:,.4g}" for what, value in figures.items()), flush=True)
    parts = ["# Around the step", (__doc__ or "").strip(), figures_table(options.results)]
    options.results.with_suffix(".md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
