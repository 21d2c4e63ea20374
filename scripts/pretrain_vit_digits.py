"""Pretrain the tiny ViT that ships with the package as the backbone `vit_digits`.

    python scripts/pretrain_vit_digits.py

Trains on the upright images of the training split alone (`load_digits_splits`), so that the validation and
test images of `DigitsDataModule`, at its default seed, stay unseen at every angle. Plain supervised training with no
augmentation: rotated digits are the target domain. Takes about 90 seconds on one CPU core, prints the accuracy on
upright and rotated test images (0.940 at 0, 0.147 at 90 and 0.423 at 180 degrees) and writes a folder that timm reads
by itself:

    timm.create_model("local-dir:asym_lightning/pretrained/vit_digits", pretrained=True)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from asym_lightning.data.images.digits import load_digits_splits, rotate

ARCHITECTURE = "vit_tiny_patch16_224"
MODEL_ARGS = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 96, "depth": 6, "num_heads": 4}
BATCH_SIZE = 64


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images in [0, 1] that the model classifies as labelled."""
    model.eval()
    return (model(images * 2 - 1).argmax(-1) == labels).float().mean().item()


def pretrain(num_epochs: int, seed: int) -> nn.Module:
    """Train the ViT from random weights on the upright training split."""
    torch.manual_seed(seed)
    splits = load_digits_splits()
    images, labels = splits["train"]
    model = timm.create_model(ARCHITECTURE, num_classes=10, **MODEL_ARGS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    steps_per_epoch = len(labels) // BATCH_SIZE
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=num_epochs * steps_per_epoch, pct_start=0.1
    )
    for epoch in range(num_epochs):
        model.train()
        for batch in torch.randperm(len(labels)).split(BATCH_SIZE)[:steps_per_epoch]:
            loss = F.cross_entropy(model(images[batch] * 2 - 1), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            scheduler.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  upright val accuracy {accuracy(model, *splits['val']):.3f}")
    return model


def save(model: nn.Module, directory: Path) -> None:
    """Write `model.safetensors` and the `config.json` from which timm rebuilds the model."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), directory / "model.safetensors")
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": 10,
        "num_features": model.num_features,
        "model_args": MODEL_ARGS,
        "pretrained_cfg": {
            "input_size": [1, 8, 8],
            "mean": [0.5],
            "std": [0.5],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "num_classes": 10,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Pretrain, report and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    default = Path(__file__).parents[1] / "asym_lightning" / "pretrained" / "vit_digits"
    parser.add_argument("--output", type=Path, default=default, help="folder to write (default: %(default)s)")
    args = parser.parse_args()

    model = pretrain(args.epochs, args.seed)
    test = load_digits_splits()["test"]
    for degrees in (0, 90, 180):
        print(f"test accuracy at {degrees:3d} degrees {accuracy(model, rotate(test.images, degrees), test.labels):.3f}")
    save(model, args.output)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters saved to {args.output}")


if __name__ == "__main__":
    main()
