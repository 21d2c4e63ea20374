"""What the kernel has to know about a layer is made once for each mode."""

import copy

import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters


def adapters(scheme="hB_zero_A_rand", **options):
    model = nn.Sequential(nn.Linear(8, 8))
    inject_adapters(model, AdapterConfig(scheme, rank=2, targets=["0"], **options))
    return model[0].adapters


def test_a_plan_is_kept_for_training_and_for_evaluation():
    layer = adapters(dropout=0.1)
    training, evaluation = layer.train().plan(), layer.eval().plan()
    assert (training.dropout, evaluation.dropout) == (0.1, 0.0)
    assert layer.plan() is evaluation and layer.train().plan() is training


def test_a_plan_is_made_anew_where_A_is_another():
    layer = adapters("hB_zero_A_coordinate")
    plan = layer.plan()
    assert plan.sparse is not None and layer.plan() is plan
    with torch.no_grad():
        layer["all"].factor_A.add_(1)
    assert layer.plan().sparse is None
    copied = copy.deepcopy(adapters("hB_zero_A_coordinate"))
    assert copied.plan().sparse is not None
