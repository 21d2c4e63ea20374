import functools
import random

import numpy as np
import pytest
import torch

from asym_lightning.lifecycle.lock_step import LockStep


def drawn(seed, meet=lambda: None):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    numbers = []
    for _ in range(3):
        meet()
        numbers += [random.random(), float(np.random.rand()), float(torch.rand(()))]
    return numbers


def test_each_function_has_its_own_random_state():
    steps, found = LockStep(), {}

    def draw(seed):
        found[seed] = drawn(seed, lambda: steps.meet("draw", None, lambda values: values))

    before = torch.get_rng_state()
    steps.run([lambda seed=seed: draw(seed) for seed in range(3)])
    assert torch.equal(torch.get_rng_state(), before)
    assert found == {seed: drawn(seed) for seed in range(3)}


def test_each_function_has_its_own_default_dtype():
    steps, found = LockStep(), []

    def use(dtype):
        torch.set_default_dtype(dtype)
        steps.meet("", None, lambda values: values)
        found.append(torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)

    steps.run([lambda: use(torch.float64), lambda: use(torch.bfloat16)])
    assert found == [torch.float64, torch.bfloat16]
    assert torch.get_default_dtype() == torch.float32


def test_work_is_done_once_for_those_that_wait_for_the_same_and_without_those_that_are_over():
    steps, groups = LockStep(), []

    def work(values):
        groups.append(list(values))
        return [value * 10 for value in values]

    def count(number, times):
        for step in range(times):
            assert steps.meet("even" if number % 2 == 0 else "odd", number, work) == number * 10, step

    steps.run([lambda number=number: count(number, number + 1) for number in range(4)])
    assert groups == [[0, 2], [1, 3], [1, 3], [2], [2], [3], [3]]


def test_one_runs_at_a_time_and_is_told_that_its_turn_has_come():
    steps, told, met = LockStep(), [], []

    def note(name):
        met.append((name, told[-1]))
        steps.meet("", None, lambda values: values)
        met.append((name, told[-1]))

    steps.run([lambda: note("a"), lambda: note("b")], [lambda: told.append("a"), lambda: told.append("b")])
    assert len(met) == 4
    assert all(name == turn for name, turn in met)


def test_an_error_of_the_work_reaches_all_that_wait_for_it():
    steps, errors = LockStep(), []

    def fail(values):
        raise ValueError("no")

    def wait(key):
        try:
            steps.meet(key, None, fail if key else lambda values: values)
        except ValueError as error:
            errors.append(str(error))

    steps.run([lambda: wait(1), lambda: wait(0), lambda: wait(1)])
    assert errors == ["no", "no"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_function_that_fails_does_not_stop_the_others():
    steps, found = LockStep(), []

    def fail():
        raise ValueError

    steps.run([fail, lambda: found.append(steps.meet("", 1, lambda values: values))])
    assert found == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_function_whose_turn_can_not_begin_does_not_stop_the_others():
    steps, found, turns = LockStep(), [], []

    def fail_the_second_time():
        turns.append(None)
        if len(turns) == 2:
            raise OSError

    wait = functools.partial(steps.meet, "", 1, lambda values: values)
    steps.run([wait, lambda: found.append(wait())], [fail_the_second_time, lambda: None])
    assert found == [1]


def test_nobody_is_met_outside_of_a_run():
    with pytest.raises(RuntimeError, match=r"has to be called by `Together.run`"):
        LockStep().meet("", None, lambda values: values)
