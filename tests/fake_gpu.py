"""A device without numbers that is not the CPU, on which whole training steps run, backward and update included.

Tensors of torch's fake tensor mode know their device, dtype and shape. On fake CUDA tensors there is no backward pass
without a GPU, for autograd asks its driver for a stream; a device of torch's `PrivateUse1` has a driver in Python. What
meets on two devices, does not promote, has no operator or looks at numbers fails as it would on a GPU.

There is one such device a process and for good, hence :func:`in_own_process`.
"""

from __future__ import annotations

import inspect
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torchmetrics import Metric

from asym_lightning.callbacks import AdapterCheckpoint

if not hasattr(backend_registration, "_DummyBackendModule"):
    pytest.skip("this torch lets no device be made in Python", allow_module_level=True)

NAME = "fakegpu"
IS_HERE = os.environ.get("WITH_FAKE_GPU") == "1"
_KEY = "AutocastPrivateUse1"
_HALF, _FLOATS = (torch.bfloat16, torch.float16), (torch.bfloat16, torch.float16, torch.float32)
# What autocast computes in half precision and in float32 on a GPU, of what the tasks are made of.
_IN_HALF = [
    "linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "einsum", "conv1d", "conv2d", "scaled_dot_product_attention",
]  # fmt: skip
_IN_FLOAT32 = [
    "softmax.int", "log_softmax.int", "layer_norm", "nll_loss", "mse_loss", "cross_entropy_loss", "exp", "log", "rsqrt",
    "pow.Tensor_Scalar", "sum", "sum.dim_IntList", "cumsum", "norm.Scalar",
]  # fmt: skip
# What reads numbers off a GPU: a GradScaler once a step, Lightning where it logs, and transformers before 5 of a mask.
_READERS = (
    "torch/amp/grad_scaler.py", "lightning/fabric/utilities/apply_func.py", "transformers/masking_utils.py",
)  # fmt: skip
_PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}


def in_own_process(file: str, marks: str) -> None:
    """Run the tests of a file that have these marks in a process that has the device."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", marks, file]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"WITH_FAKE_GPU": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


class _Driver(backend_registration._DummyBackendModule):
    def is_available(self) -> bool:
        return False  # so that fake tensors never ask for its memory

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return list(_HALF)


def register() -> list[torch.library.Library]:
    """Make the device, and its autocast; keep what is returned for as long as it is used."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Driver())
    rest, ours = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL", _KEY)
    rest.fallback(torch.library.fallthrough_kernel, _KEY)
    for names, dtype in ((_IN_HALF, None), (_IN_FLOAT32, torch.float32)):
        for name in names:
            packet, _, overload = name.partition(".")
            ours.impl(name, _cast(getattr(getattr(torch.ops.aten, packet), overload or "default"), dtype))
    return [rest, ours]


def _cast(operator: Any, dtype: torch.dtype | None) -> Callable[..., Any]:
    """An operator whose floating-point tensors are cast first; None casts to what autocast computes in."""
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def call(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.get_autocast_dtype(NAME) if dtype is None else dtype

        def cast(value: Any) -> Any:
            return value.to(wanted) if isinstance(value, Tensor) and value.dtype in _FLOATS else value

        with torch._C._ExcludeDispatchKeyGuard(key):
            return operator(*tree_map(cast, args), **tree_map(cast, kwargs))

    return call


class FakeGPU(Accelerator):
    """The device, as the Trainer knows it."""

    setup_device = teardown = lambda self, *args: None
    get_device_stats = lambda self, device: {}  # noqa: E731

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


class _Over(Exception):
    """The steps have been made; what ends an epoch reads numbers."""


class _Batches:
    """A batch over and over; it has no length, which the Trainer would count up over processes."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(tree_map(lambda v: _fake(v, v.device) if isinstance(v, Tensor) else v, self.batch))


class _Stop(Callback):
    def __init__(self, operators: _Operators, num_steps: int) -> None:
        self.operators = operators
        self.num_steps = num_steps

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.operators.steps.append([])
        if batch_idx == self.num_steps:
            assert {parameter.device.type for parameter in pl_module.parameters()} == {NAME}
            raise _Over

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.on_train_batch_start(trainer, pl_module, batch, batch_idx)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start


class _Operators(TorchDispatchMode):
    """Refuses products of two dtypes, as a GPU does, and answers what may be asked of numbers.

    Those of the CPU are there, a GradScaler's gradients are finite, no two metrics have counted the same, A's that grow
    are those of their seeds, and what transformers checks of its inputs is so.

    Attributes:
        steps: The operators of each step, with the layouts of the tensors and the whole numbers that they were given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[Any]] = [[]]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.steps[-1].append((func, tree_map(_layout, (args, kwargs or {}))))
        dtypes = {t.dtype for t in args if isinstance(t, Tensor)}
        if func.overloadpacket in _PRODUCTS and len(dtypes) > 1:
            raise RuntimeError(f"{func} of more than one dtype: {dtypes}")
        if func is torch.ops.aten.allclose.default and _is_asked_in("torchmetrics/collections.py"):
            return False
        if func is torch.ops.aten.equal.default and _is_asked_in("adapters/rank/change.py"):
            return True
        if func is torch.ops.aten._local_scalar_dense.default and _is_asked_in("transformers/utils/import_utils.py"):
            return True
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            is_there = args[0].device.type == "cpu"
            if func is not torch.ops.aten._local_scalar_dense.default or not (is_there or _is_asked_in(*_READERS)):
                raise
            return 0.5 if is_there else 0.0


class _Functions(TorchFunctionMode):
    """Copies fake tensors, which have no storage to copy, and lets those of the CPU be read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.numpy and args[0].device.type == "cpu":
            return np.zeros(args[0].shape)
        if func is Tensor.__deepcopy__:
            return args[1].setdefault(id(args[0]), args[0].detach().clone().requires_grad_(args[0].requires_grad))
        return func(*args, **(kwargs or {}))


def _layout(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype, value.device.type)
    return value if isinstance(value, int) else None


def _is_asked_in(*files: str) -> bool:
    return any(frame.filename.endswith(files) for frame in inspect.stack(context=0))


class FakeGPUStrategy(SingleDeviceStrategy):
    """Builds modules and reads data with numbers, and leaves them behind where both go to the device."""

    def __init__(self) -> None:
        super().__init__(device=torch.device(NAME, 0), accelerator=FakeGPU())
        self.entered = ExitStack()
        self.operators = _Operators()

    def tensor_init_context(self, empty_init: bool | None = None) -> Any:
        return self.precision_plugin.tensor_init_context()

    def model_to_device(self) -> None:
        self.entered.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        self.entered.enter_context(self.operators)
        self.entered.enter_context(_Functions())
        there: dict[int, Tensor] = {}
        for module in self.model.modules():
            if isinstance(module, Metric):
                module._device = self.root_device  # where `reset` puts its states
            for held in (module._parameters, module._buffers, *_states(module)):
                for name, tensor in held.items():
                    if isinstance(tensor, Tensor):
                        held[name] = there.setdefault(id(tensor), _fake(tensor, self.root_device))

    def teardown(self) -> None:
        """Leave the module where it is."""


def _states(module: nn.Module) -> list[dict[str, Any]]:
    return [module._defaults, vars(module)] if isinstance(module, Metric) else []


def _fake(tensor: Tensor, device: torch.device) -> Tensor:
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def steps(
    folder: Path,
    module: LightningModule,
    batch: Any,
    callbacks: list[Callback],
    precision: str,
    num_steps: int = 2,
    loop: Literal["fit", "validate", "test", "predict"] = "fit",
    logs: bool = False,
) -> list[list[Any]]:
    """Make steps of a module on the device, and what comes after them; return the operators of each step.

    Args:
        folder: Where files go.
        module: The module.
        batch: Of each step.
        callbacks: Of the Trainer.
        precision: As Lightning names it.
        num_steps: Number of steps.
        loop: Which of the Trainer's loops makes them.
        logs: Whether each step is logged.
    """
    strategy = FakeGPUStrategy()
    options: dict[str, Any] = {"precision": precision}
    if precision.endswith("-mixed"):  # Lightning takes whatever is not the CPU for CUDA
        options = {"plugins": MixedPrecision(precision, NAME)}
    trainer = Trainer(
        strategy=strategy, default_root_dir=folder, callbacks=[*callbacks, _Stop(strategy.operators, num_steps)],
        logger=CSVLogger(folder) if logs else False, log_every_n_steps=1, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=num_steps + 1, limit_test_batches=num_steps + 1,
        limit_predict_batches=num_steps + 1, inference_mode=False,
        enable_checkpointing=any(isinstance(callback, AdapterCheckpoint) for callback in callbacks), **options,
    )  # fmt: skip
    batch = module.on_before_batch_transfer(batch, 0)
    with strategy.entered, pytest.raises(_Over):
        getattr(trainer, loop)(module, _Batches(batch))
    return strategy.operators.steps[1 : 1 + num_steps]
