"""Pictures reach the loggers that show them."""

from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from asym_lightning.core.loggers import LoggerFanout


@pytest.fixture
def figure():
    Figure = pytest.importorskip("matplotlib.figure").Figure
    made = Figure()
    made.subplots().plot([0, 1])
    return made


def trainer(*loggers):
    return SimpleNamespace(is_global_zero=True, global_step=7, loggers=list(loggers))


def test_tensorboard_has_the_picture(tmp_path, figure):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="")
    LoggerFanout().log(trainer(logger), {}, figures={"test/confusion": figure})
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("test/confusion")
    assert image.step == 7 and image.encoded_image_string.startswith(b"\x89PNG")


def test_wandb_and_mlflow_are_given_the_picture(figure):
    sent = []

    class Wandb(WandbLogger):
        def __init__(self) -> None:
            Logger.__init__(self)

        def log_image(self, key, images, step=None, **kwargs) -> None:
            sent.append(("wandb", key, images, step))

    class Mlflow(MLFlowLogger):
        def __init__(self) -> None:
            Logger.__init__(self)

        run_id = property(lambda self: "run")
        experiment = property(lambda self: SimpleNamespace(log_figure=lambda *args: sent.append(("mlflow", *args))))

    LoggerFanout().log(trainer(Wandb(), Mlflow()), {}, figures={"test/confusion": figure})
    assert sent == [
        ("wandb", "test/confusion", [figure], 7),
        ("mlflow", "run", figure, "test/confusion.png"),
    ]


def test_a_logger_without_pictures_is_left_alone(tmp_path, figure, recwarn):
    LoggerFanout().log(trainer(CSVLogger(tmp_path)), {}, figures={"test/confusion": figure})
    assert not recwarn.list and not list(tmp_path.rglob("*.csv"))


def test_pixels_reach_the_loggers_that_show_them(tmp_path):
    sent, pixels = [], np.zeros((2, 4, 3), dtype=np.uint8)

    class Wandb(WandbLogger):
        def __init__(self) -> None:
            Logger.__init__(self)

        def log_image(self, key, images, step=None, **kwargs) -> None:
            sent.append(("wandb", key, images, step))

    class Mlflow(MLFlowLogger):
        def __init__(self) -> None:
            Logger.__init__(self)

        run_id = property(lambda self: "run")
        experiment = property(lambda self: SimpleNamespace(log_image=lambda *args: sent.append(("mlflow", *args))))

    loggers = trainer(Wandb(), Mlflow(), CSVLogger(tmp_path))
    LoggerFanout().log(loggers, {}, pictures={"val/masks": pixels})
    assert sent == [("wandb", "val/masks", [pixels], 7), ("mlflow", "run", pixels, "val/masks_7.png")]
