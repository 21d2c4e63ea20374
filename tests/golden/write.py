"""Write the golden files of the present version, once, when the format changes: python -m tests.golden.write"""

import json
import tempfile
from pathlib import Path

import torch

import asym_lightning
from asym_lightning.adapters import save_adapters
from tests.golden.model import adapted, fit, inputs


def write(folder: Path) -> None:
    model = adapted()
    save_adapters(model, folder / "full")
    save_adapters(model, folder / "compact", include_frozen=False)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        _, trainer = fit(scratch, 1)
        trainer.save_checkpoint(folder / "after_one_epoch.ckpt")
        module, _ = fit(scratch, 2, folder / "after_one_epoch.ckpt")
        outputs = {"adapter": model(inputs()), "after_two_epochs": module.net(inputs())}
    (folder / "outputs.json").write_text(json.dumps({name: output.tolist() for name, output in outputs.items()}))


if __name__ == "__main__":
    target = Path(__file__).parent / asym_lightning.__version__
    target.mkdir()
    write(target)
