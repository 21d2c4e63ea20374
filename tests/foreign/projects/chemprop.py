"""chemprop: message passing over molecules; its hyperparameters hold classes, so its files have to be trusted."""

from __future__ import annotations

import numpy as np
from chemprop import data, featurizers, models, nn
from life import Project

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "CCCl", "C1CCCCC1", "CC#N", "OCCO", "CNC", "CCCC", "CC=O", "c1ccncc1"]


class Client(Project):
    backbone = "message_passing"
    heads = ("predictor",)
    holds_objects = True
    trainer_options = {"max_epochs": 4}

    def module(self):
        passing = nn.BondMessagePassing(d_h=16, depth=2)
        return models.MPNN(passing, nn.MeanAggregation(), nn.RegressionFFN(input_dim=16, hidden_dim=8))

    def _data(self, *, shuffle):
        targets = np.arange(len(MOLECULES), dtype=float).reshape(-1, 1) / 6
        points = [data.MoleculeDatapoint.from_smi(m, y) for m, y in zip(MOLECULES, targets, strict=True)]
        rows = data.MoleculeDataset(points, featurizers.SimpleMoleculeMolGraphFeaturizer())
        return data.build_dataloader(rows, batch_size=4, shuffle=shuffle, num_workers=0)

    def train_data(self):
        return self._data(shuffle=True)

    def other_data(self):
        return self._data(shuffle=False)
