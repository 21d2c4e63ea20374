"""What pictures of scores show: names, numbers where there is room, and nothing that a name could break."""

import pytest
import torch

from asym_lightning.analysis.class_scores import class_metrics

pytest.importorskip("matplotlib")

from asym_lightning.analysis.class_figures import confusion_figure, png, reliability_figure


def values_of(num_classes, labels=None):
    labels = torch.arange(num_classes).repeat(3) if labels is None else torch.tensor(labels)
    probabilities = torch.eye(num_classes)[labels.roll(1)] * 0.8 + 0.2 / num_classes
    return class_metrics(num_classes)(probabilities, labels)


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("num_classes", "numbers", "named"), [(2, 4, True), (20, 400, True), (40, 0, True), (70, 0, False)]
)
def test_cells_have_numbers_and_rows_have_names_while_there_is_room(num_classes, numbers, named):
    names = [f"class {number}" for number in range(num_classes)]
    axes = confusion_figure(values_of(num_classes), names, "Confusion, test data").axes[0]
    assert len(axes.texts) == numbers
    assert ([label.get_text() for label in axes.get_yticklabels()] == names) == named
    assert axes.get_title() == "Confusion, test data"


def test_a_class_without_a_sample_is_marked():
    axes = confusion_figure(values_of(3, [0, 0, 1]), ["a", "b", "c"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c (no sample)"]
    assert texts(axes) == ["1", "1", "0", "1", "0", "0", "0", "0", "0"]


@pytest.mark.parametrize("name", [r"$\frac$", "a$b$c_{", "two\nlines", "日本", "x" * 500])
def test_any_name_can_be_drawn(name, recwarn):
    assert png(confusion_figure(values_of(2), [name, "b"], name)).startswith(b"\x89PNG")
    assert not recwarn.list


def test_points_are_where_confidence_and_accuracy_are():
    values = values_of(4)
    axes = reliability_figure(values).axes[0]
    points = next(shape for shape in axes.collections if shape.get_label() == "this model")
    ((x, y),) = points.get_offsets()
    assert (x, y) == pytest.approx((0.85, 0.0))
    assert texts(axes) == ["calibration error 0.850"]
