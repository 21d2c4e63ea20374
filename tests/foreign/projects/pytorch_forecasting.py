"""pytorch-forecasting: the Temporal Fusion Transformer; its hyperparameters hold losses and encoders."""

from __future__ import annotations

import numpy as np
import pandas as pd
from life import Project
from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet


def rows():
    steps = np.arange(24)
    parts = [
        {"step": steps, "series": str(i), "value": np.sin(steps / 3 + i) + 2.0, "known": steps % 4.0} for i in (0, 1)
    ]
    return TimeSeriesDataSet(
        pd.concat(map(pd.DataFrame, parts), ignore_index=True),
        time_idx="step",
        target="value",
        group_ids=["series"],
        max_encoder_length=8,
        max_prediction_length=4,
        static_categoricals=["series"],
        time_varying_known_reals=["known"],
        time_varying_unknown_reals=["value"],
    )


class Client(Project):
    heads = ("output_layer",)
    adapter = {"targets": ["v_layer", "w_h", "pos_wise_ff.fc1", "pos_wise_ff.fc2"]}
    holds_objects = True

    def module(self):
        return TemporalFusionTransformer.from_dataset(
            rows(), hidden_size=8, attention_head_size=2, hidden_continuous_size=4, dropout=0.1, learning_rate=0.02
        )

    def train_data(self):
        return rows().to_dataloader(train=True, batch_size=8, num_workers=0)

    def other_data(self):
        return rows().to_dataloader(train=False, batch_size=8, num_workers=0)

    def predict(self, trainer, module):
        return module.predict(self.other_data(), trainer_kwargs={"accelerator": "cpu", "logger": False})
