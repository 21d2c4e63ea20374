"""scvi-tools: SCVI, trained by its own `train`; the module that trains is the training plan around it."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import scvi
from life import Project
from scvi.model import SCVI

scvi.settings.seed = 0  # or a run that is gone on with draws other cells to train on
COUNTS = np.random.default_rng(0).poisson(2.0, (24, 20)).astype(np.float32)


class Client(Project):
    backbone = "module"
    adapter = {"targets": ["all-linear"], "exclude": ["l_encoder.*", "px_r_decoder"]}  # which this model has no use for
    holds_objects = True

    def __init__(self):
        self.models: dict[int, Any] = {}

    def module(self):
        cells = anndata.AnnData(COUNTS)
        SCVI.setup_anndata(cells)
        model = SCVI(cells, n_hidden=16, n_latent=4)
        plan = model._training_plan_cls(model.module)
        self.models[id(plan)] = model
        return plan

    def trainer(self, folder, *callbacks, **options):
        return {"callbacks": [*callbacks], "default_root_dir": str(folder), "logger": False}  # for its `train`

    def fit(self, trainer, module, checkpoint):
        model = self.models[id(module)]
        model.train(
            2, "cpu", 1, train_size=0.7, batch_size=6, enable_checkpointing=True, check_val_every_n_epoch=1,
            enable_progress_bar=False, ckpt_path=checkpoint, **trainer,
        )  # fmt: skip
        plan = model.trainer.lightning_module
        self.models[id(plan)] = model
        return plan

    def predict(self, trainer, module):
        return self.trained(module).get_latent_representation()

    def test(self, trainer, module):
        return float(self.trained(module).get_elbo())

    def trained(self, module):
        """The model around a module, told what its `train` and its `load` tell it."""
        model = self.models[id(module)]
        model.module.eval()
        model.is_trained_ = True
        return model
