"""neuralforecast: NHITS on `pytorch_lightning`; its own `fit` resumes nothing, so its module goes to a Trainer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytorch_lightning
from life import Project
from neuralforecast.models import NHITS
from neuralforecast.tsdataset import TimeSeriesDataModule, TimeSeriesDataset


def series():
    days = pd.date_range("2020-01-01", periods=40)
    rows = [pd.DataFrame({"unique_id": str(i), "ds": days, "y": np.sin(np.arange(40) / 3 + i)}) for i in range(3)]
    return TimeSeriesDataset.from_df(pd.concat(rows, ignore_index=True))[0]


class Client(Project):
    lightning = pytorch_lightning
    backbone = "blocks"
    adapter = {"targets": ["all-linear"], "heads": []}
    holds_objects = True
    trainer_options = {"max_epochs": None, "max_steps": 6}

    def module(self):
        return NHITS(h=4, input_size=8, max_steps=6, mlp_units=3 * [[16, 16]], learning_rate=0.01, accelerator="cpu")

    def fit(self, trainer, module, checkpoint):
        data = TimeSeriesDataModule(series(), batch_size=2)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=False)
        return module

    def predict(self, trainer, module):
        module.trainer_kwargs.update(accelerator="cpu", logger=False, enable_progress_bar=False)
        return module.predict(series())

    test = predict
