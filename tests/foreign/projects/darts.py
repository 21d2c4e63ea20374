"""darts: a TransformerModel on `pytorch_lightning`, trained by its own `fit` with a Trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning
from darts import TimeSeries
from darts.models import TransformerModel
from darts.models.forecasting.torch_forecasting_model import _DartsCheckpointIO
from life import Project

SERIES = TimeSeries.from_values(np.sin(np.arange(30) / 3).astype(np.float32))


class Client(Project):
    lightning = pytorch_lightning
    adapter = {"targets": ["linear1", "linear2"], "heads": ["decoder"]}
    holds_objects = True

    def __init__(self):
        self.forecasters: dict[int, Any] = {}

    def module(self):
        options = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
        forecaster = TransformerModel(
            8, 4, d_model=8, nhead=2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=16, batch_size=8,
            n_epochs=0, random_state=3, pl_trainer_kwargs=options,
        )  # fmt: skip
        forecaster.fit(SERIES)
        module = forecaster.model
        self.forecasters[id(module)] = forecaster
        return module

    def trainer(self, folder, *callbacks, **options):
        return super().trainer(folder, *callbacks, plugins=[_DartsCheckpointIO()], **options)

    def fit(self, trainer, module, checkpoint):
        forecaster = self.forecasters[id(module)]
        forecaster.load_ckpt_path = None if checkpoint is None else str(checkpoint)
        forecaster.fit(SERIES, trainer=trainer, epochs=2)
        self.forecasters[id(forecaster.model)] = forecaster
        return forecaster.model

    def predict(self, trainer, module):
        return self.forecasters[id(module)].predict(4, trainer=trainer, verbose=False).values()

    test = predict
