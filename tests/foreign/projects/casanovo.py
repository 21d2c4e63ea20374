"""casanovo: Spec2Pep, which reads peptides from spectra, with its own data module over an MGF file."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
from casanovo.denovo.dataloaders import DeNovoDataModule
from casanovo.denovo.model import Spec2Pep
from life import Project


@functools.cache
def spectra() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    draw = np.random.default_rng(0)
    blocks = []
    for peptide in ("LESLIEK", "EDITHYK", "WILMAK", "GERALDK", "ADAMK", "CALVINK", "PETERK", "SALLYR"):
        peaks = "\n".join(f"{mz:.4f} {draw.uniform(1, 9):.3f}" for mz in np.sort(draw.uniform(60, 900, 20)))
        blocks.append(f"BEGIN IONS\nTITLE={peptide}\nPEPMASS=450.5\nCHARGE=2+\nSEQ={peptide}\n{peaks}\nEND IONS\n")
    Path(folder.name, "spectra.mgf").write_text("\n".join(blocks))
    return folder


class Client(Project):
    heads = ("decoder.final",)
    adapter = {"targets": ["all-linear"]}

    def module(self):
        return Spec2Pep(
            dim_model=16, n_head=2, dim_feedforward=16, n_layers=1, min_peptide_len=1, max_peptide_len=12, n_beams=2,
            warmup_iters=2, lr=0.01,
        )  # fmt: skip

    def data(self):
        paths = [str(Path(spectra().name, "spectra.mgf"))]
        data = DeNovoDataModule(
            tempfile.mkdtemp(dir=spectra().name), paths, paths, paths, train_batch_size=3, eval_batch_size=4,
            min_peaks=5, n_workers=0,
        )  # fmt: skip
        data.setup()
        return data

    def fit(self, trainer, module, checkpoint):
        data = self.data()
        trainer.fit(module, data.train_dataloader(), data.val_dataloader(), ckpt_path=checkpoint)
        return module

    def test(self, trainer, module):
        return trainer.validate(module, self.data().val_dataloader(), verbose=False)

    def predict(self, trainer, module):
        found = trainer.predict(module, self.data().predict_dataloader())
        return [(float(match.peptide_score), match.aa_scores) for batch in found for match in batch]
