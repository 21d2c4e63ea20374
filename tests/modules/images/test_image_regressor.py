"""ImageRegressor: its loss and its predictions."""

import torch

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules import ImageRegressor


def test_loss_is_the_mean_squared_error_and_predictions_are_the_outputs():
    torch.manual_seed(0)
    module = ImageRegressor("vit_digits", AdapterConfig(rank=2))
    module.configure_model()
    module.eval()
    images, values = torch.randn(3, 1, 8, 8), torch.tensor([0.5, 1.0, 2.0])
    output = module.step((images, values))
    found = module(images)[:, 0]
    torch.testing.assert_close(output.loss, ((found - values) ** 2).mean())
    torch.testing.assert_close(module.predict_step(images, 0), found)
    rows = module.prediction_rows(found, (images, values), ["a", "b", "c"])
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert [row["target"] for row in rows] == [0.5, 1.0, 2.0]
    assert set(module.prediction_rows(found, images, ["a", "b", "c"])[0]) == {"id", "label"}
