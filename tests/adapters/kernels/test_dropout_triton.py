"""The Triton kernels: on a GPU, else in Triton's interpreter, and compiled for GPUs that are not here.

The interpreter has to be chosen before Triton is imported, hence the second process.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from asym_lightning.adapters.kernels import dropout  # noqa: E402
from asym_lightning.adapters.kernels import dropout_triton as kernels  # noqa: E402
from asym_lightning.adapters.kernels.linear import adapted_linear  # noqa: E402
from asym_lightning.adapters.kernels.plan import Plan  # noqa: E402
from asym_lightning.adapters.rows import Rows  # noqa: E402

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
runs_kernels = (lambda test: test) if IS_INTERPRETED else pytest.mark.gpu
SEED = 2**61 + 12345
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
# (tokens, d_in, rank): within one block; several of each with ragged ends; a single number.
SHAPES = [(20, 70, 3), (70, 1000, 20), (1, 1, 1), (0, 64, 4)]
# The interpreter multiplies bfloat16 by its bits.
DTYPES = {torch.float32: 1e-5, torch.float16: 2e-3, **({} if IS_INTERPRETED else {torch.bfloat16: 2e-2})}


@pytest.mark.skipif(IS_INTERPRETED, reason="this is the interpreter's process")
def test_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def operands(num_tokens, width, rank, dtype=torch.float32):
    generator = torch.Generator().manual_seed(num_tokens)
    x, A = (torch.randn(n, width, generator=generator).to(DEVICE, dtype) for n in (num_tokens, rank))
    return x, A


def keeps(num_tokens, width, p, seed=SEED):
    ones = torch.ones(num_tokens, width, device=DEVICE)
    kernels.drop_(ones, seed, p)
    return ones


@runs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_drop_the_entries_that_drop_does(shape, dtype):
    x, A = operands(*shape, dtype)
    kept, tolerance = keeps(*x.shape, 0.3), DTYPES[dtype]
    scale = math.sqrt(shape[1])
    h = kernels.drop_then_project(x, A, SEED, 0.3)
    torch.testing.assert_close(h.float() / scale, (kept * x.float()) @ A.float().T / scale, rtol=0, atol=tolerance)
    back = kernels.project_back_then_drop(h, A, SEED, 0.3)
    assert h.dtype == back.dtype == dtype
    torch.testing.assert_close(
        back.float() / scale, kept * (h.float() @ A.float()) / scale, rtol=tolerance, atol=tolerance
    )


@runs_kernels
def test_columns_are_summed_in_parts_where_tokens_are_few(monkeypatch):
    x, A = operands(20, 2000, 3)
    assert kernels.drop_then_project(x, A, SEED, 0.3).shape == (20, 3)
    whole = kernels.drop_then_project(x, A, SEED, 0.3)
    monkeypatch.setattr(kernels, "PROGRAMS", 1)  # all columns in one program
    torch.testing.assert_close(whole, kernels.drop_then_project(x, A, SEED, 0.3), rtol=1e-5, atol=1e-4)


@runs_kernels
def test_strides_of_the_input_are_followed():
    x, A = operands(20, 70, 3)
    turned = x.T.contiguous().T
    assert torch.equal(kernels.drop_then_project(turned, A, SEED, 0.3), kernels.drop_then_project(x, A, SEED, 0.3))


@runs_kernels
@pytest.mark.parametrize("p", [0.05, 0.5])
def test_entries_are_dropped_independently_with_probability_p(p):
    dropped = 1 - keeps(256, 512, p).double()
    n = dropped.numel()
    assert abs(dropped.mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    for by in (0, 1):
        # Each row's and each column's own rate, as far from p as chance has it.
        rates, m = dropped.mean(by), dropped.shape[by]
        assert abs(((rates - p) ** 2).mean() * m / (p * (1 - p)) - 1) < 0.35
    centred = dropped - p
    # Neighbours, the same place in the next quarter and in the next group, and in the next block of rows.
    for rows, columns in [(0, 1), (1, 0), (0, kernels.QUARTER), (0, kernels.GROUP), (32, 0)]:
        pairs = centred[rows:, columns:] * centred[: 256 - rows, : 512 - columns]
        assert abs(pairs.mean()) < 5 * p * (1 - p) / math.sqrt(pairs.numel())


@runs_kernels
def test_another_seed_drops_others_and_only_p_is_dropped():
    assert not torch.equal(keeps(64, 128, 0.5, seed=1), keeps(64, 128, 0.5, seed=2))
    # The high half of a seed counts too.
    assert not torch.equal(keeps(64, 128, 0.5, seed=1), keeps(64, 128, 0.5, seed=2**40 + 1))
    assert keeps(64, 128, 0.0).all()


@runs_kernels
def test_the_trial_passes():
    assert kernels.work_on.__wrapped__(torch.device(DEVICE))


@runs_kernels
@pytest.mark.parametrize("rank", [4, 200])
@pytest.mark.parametrize("trains", ["B", "AB"])
def test_a_layer_has_the_gradients_of_a_stored_mask(rank, trains, monkeypatch):
    if IS_INTERPRETED:
        # What a GPU's tensors take, on the interpreter's.
        monkeypatch.setattr(dropout, "_kernels", lambda device: kernels)
        monkeypatch.setattr(dropout, "_drop", lambda x, seed, p: kernels.drop_(x, int(seed), p))
        package = "asym_lightning.adapters.kernels"
        monkeypatch.setattr(f"{package}.products.drop_then_project", dropout._drop_then_project)
        monkeypatch.setattr(f"{package}.linear.project_back_then_drop", dropout._project_back_then_drop)
    p, scaling = 0.3, 2.0
    x, A = operands(24, 300, rank)
    W, B = (torch.randn(n, m).to(DEVICE) for n, m in ((40, 300), (40, rank)))
    leaves = [x.requires_grad_(), B.requires_grad_(), *([A.requires_grad_()] if "A" in trains else [])]
    torch.manual_seed(3)
    kept = keeps(24, 300, p, seed=int(dropout.draw_seed())) / (1 - p)
    torch.manual_seed(3)
    out = adapted_linear(x, W, None, [A], [B], Plan((Rows(0, 40),), (scaling,), False, p, "auto"))
    expected = x @ W.T + scaling * (x * kept) @ A.T @ B.T
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-2)
    g = torch.randn_like(out)
    for ours, theirs in zip(torch.autograd.grad(out, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2 * theirs.abs().max().item())


def test_a_device_on_which_they_fail_is_named_once(monkeypatch):
    monkeypatch.setattr(kernels, "drop_", lambda *args: (_ for _ in ()).throw(RuntimeError("no C compiler\nfound")))
    with pytest.warns(UserWarning, match=r"can't be used on cpu \(no C compiler\); torch draws masks"):
        assert not kernels.work_on.__wrapped__(torch.device("cpu"))


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter's functions don't compile")
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_for_gpus(capability, tmp_path):
    """To machine code, which needs no GPU: bfloat16 at rank 16 by tensor cores, four warps to a program."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def compiled(kernel, **signature):
        constants = {"ROWS": 32, "RANK": 16, "QUARTER": kernels.QUARTER}
        constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
        types = {name: signature.get(name, "i32") for name in kernel.arg_names if name not in constants}
        source = ASTSource(fn=kernel, signature=types | dict.fromkeys(constants, "constexpr"), constexprs=constants)
        return triton.compile(source, target=GPUTarget("cuda", capability, 32))

    common = {"seed": "i64", "p": "fp32"}
    project = compiled(kernels._drop_then_project, x="*bf16", A="*bf16", h="*fp32", **common)
    back = compiled(kernels._project_back_then_drop, h="*bf16", A="*bf16", out="*bf16", **common)
    drop = compiled(kernels._drop, x="*bf16", **common)
    assert "mma" in project.asm["ptx"] and "mma" in back.asm["ptx"]
    for kernel in (project, back, drop):
        assert kernel.metadata.shared <= 8 * 1024  # bytes of 164 thousand that a multiprocessor of an A100 has
        used = resources(kernel.asm["cubin"], tmp_path)
        assert used["STACK"] == used["LOCAL"] == 0  # nothing is spilled
        assert used["REG"] <= 128  # four programs of 128 threads fit into the 65,536 of a multiprocessor


def resources(cubin, folder):
    """Registers a thread, and bytes a thread that did not fit into them, as the machine code says."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    command = [str(CUOBJDUMP), "--dump-resource-usage", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
