import pytest
import torch

from asym_lightning.modules import WarmupSchedule


def rates(schedule, num_steps, lr=1.0):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = schedule(optimizer, num_steps)
    used = []
    for _ in range(num_steps):
        used.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return used


def test_warm_up_rises_linearly_to_the_full_rate_at_its_last_step():
    used = rates(WarmupSchedule(warmup=0.4, decay="constant"), 10, lr=2.0)
    assert used == pytest.approx([0.5, 1.0, 1.5, 2.0, *[2.0] * 6])


def test_cosine_falls_from_the_full_rate_through_half_at_half_way():
    used = rates(WarmupSchedule(decay="cosine"), 100)
    assert used[0] == 1.0
    assert used[50] == pytest.approx(0.5)
    assert used == sorted(used, reverse=True)
    assert used[-1] < 0.001


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_final_is_what_is_left_at_the_end(decay):
    assert WarmupSchedule(decay=decay, final=0.1).factor(100, 100) == pytest.approx(0.1)
    assert WarmupSchedule(decay=decay, final=0.1).factor(0, 100) == 1.0


def test_rate_stays_at_the_end_if_the_run_goes_on():
    assert WarmupSchedule(decay="cosine").factor(150, 100) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup": 1.0}, r"`warmup` must be in \[0, 1\)"),
        ({"warmup": -0.1}, r"`warmup` must be in \[0, 1\)"),
        ({"final": 1.5}, r"`final` must be in \[0, 1\]"),
        ({"decay": "cosin"}, "`decay` must be one of cosine, linear, constant, not 'cosin'"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        WarmupSchedule(**arguments)
