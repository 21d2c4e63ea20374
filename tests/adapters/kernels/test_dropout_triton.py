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
from asym_lightning.adapters.kernels.launches import FITS, Launch, Shape  # noqa: E402
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
def test_columns_are_summed_in_parts_where_tokens_are_few():
    x, A = operands(20, 2000, 3)
    in_parts, whole = (
        kernels.drop_then_project(x, A, SEED, 0.3, Launch(16, 4, programs)) for programs in (512, 1)
    )  # fmt: skip
    assert whole.shape == (20, 3)
    torch.testing.assert_close(in_parts, whole, rtol=1e-5, atol=1e-4)


@runs_kernels
@pytest.mark.parametrize("size, ranks", [key for key in FITS if key[0] == 4 or key[1] < 64])
def test_every_launch_drops_and_multiplies_the_same(size, ranks):
    dtype = {2: torch.float16, 4: torch.float32}[size]
    x, A = operands(70, 300, ranks - 1, dtype)
    h = kernels.drop_then_project(x, A, SEED, 0.3)
    back = kernels.project_back_then_drop(h, A, SEED, 0.3)
    for launch in FITS[size, ranks]:
        tolerances = {"rtol": 2 * DTYPES[dtype], "atol": 30 * DTYPES[dtype]}
        torch.testing.assert_close(kernels.drop_then_project(x, A, SEED, 0.3, launch), h, **tolerances)
        torch.testing.assert_close(kernels.project_back_then_drop(h, A, SEED, 0.3, launch), back, **tolerances)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["project", "back"])
def test_launches_are_timed_on_a_card(kernel):
    launch, device = FITS[2, 16][0], torch.device("cuda")
    few, many = (kernels.seconds(Shape(kernel, 2, 16, tokens), launch, device) for tokens in (512, 65536))
    assert 0 < few < many


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
    """To machine code, which needs no GPU: bfloat16 at rank 16 by tensor cores, as many tokens are launched."""
    launch = FITS[2, 16][-1]
    for kernel in products(2, 16, launch, capability):
        assert "mma" in kernel.asm["ptx"]
        assert kernel.metadata.shared <= 16 * 1024  # bytes of 164 thousand that a multiprocessor of an A100 has
        check_fits(kernel, launch, tmp_path)
    drop = compiled(kernels._drop, capability, 4, {"ROWS": 32}, x="*bf16")
    check_fits(drop, Launch(32, 4), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter's functions don't compile")
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("size, ranks", FITS)
def test_every_launch_of_the_table_fits_into_registers(size, ranks, capability, tmp_path):
    for launch in FITS[size, ranks]:
        for kernel in products(size, ranks, launch, capability):
            assert kernel.metadata.shared <= 64 * 1024
            check_fits(kernel, launch, tmp_path, warps_at_work=8 if ranks == 128 else 16)


def products(size, ranks, launch, capability):
    """Both kernels that multiply."""
    number, constants = {2: "*bf16", 4: "*fp32"}[size], {"ROWS": launch.rows, "RANK": ranks}
    yield compiled(kernels._drop_then_project, capability, launch.warps, constants, x=number, A=number, h="*fp32")
    yield compiled(kernels._project_back_then_drop, capability, launch.warps, constants, h=number, A=number, out=number)


def compiled(kernel, capability, warps, constants, **signature):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {**constants, "QUARTER": kernels.QUARTER}
    signature |= {"seed": "i64", "p": "fp32"}
    types = {name: signature.get(name, "i32") for name in kernel.arg_names if name not in constants}
    source = ASTSource(fn=kernel, signature=types | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def check_fits(kernel, launch, folder, warps_at_work=16):
    """Nothing is spilled, and so many warps share the 65,536 registers of a multiprocessor."""
    used = resources(kernel.asm["cubin"], folder)
    assert used["STACK"] == used["LOCAL"] == 0
    programs = warps_at_work // launch.warps
    assert programs * launch.warps * 32 * used["REG"] <= 65536


def resources(cubin, folder):
    """Registers a thread, and bytes a thread that did not fit into them, as the machine code says."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    command = [str(CUOBJDUMP), "--dump-resource-usage", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
