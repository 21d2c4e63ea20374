"""Memory and traffic of two processes that share a Llama-shaped backbone, by the way it is wrapped and loaded.

    python -m benchmarks.sharded_loading                            # a small shape, every way
    python -m benchmarks.sharded_loading --shape llama-2-7b --ways ours

writes random weights in bfloat16 as safetensors shards, lets two CPU processes load and adapt them and take one step
with AdamW, and prints for each way, per process and relative to all weights: what is resident when the model is loaded,
the peak while loading, the peak in the step (what the libraries take is subtracted), and the bytes of gradients and
of gathers in a step.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from asym_lightning.adapters import AdapterConfig, inject_adapters, trainable_parameters
from asym_lightning.sharding import (
    AdapterWrapPolicy,
    PretrainedWeights,
    ShardingOptions,
    empty_parameters,
    materialize,
    shard_module,
)
from benchmarks.machine import describe

M_MMAP_THRESHOLD = -3


class Shape(NamedTuple):
    """Sizes of a Llama."""

    width: int
    hidden: int
    layers: int
    vocabulary: int
    heads: int


SHAPES = {
    "small": Shape(1024, 2752, 8, 8000, 8),
    "medium": Shape(1024, 2752, 24, 32000, 8),
    "llama-2-7b": Shape(4096, 11008, 32, 32000, 32),
}
WAYS = {
    "ours": "blocks, read shard by shard",
    "ours, reshard_after_forward: false": "the same, kept between passes",
    "ours, activation_checkpointing: true": "the same, blocks computed twice",
    "one unit": "`fully_shard(model)` alone, read shard by shard",
    "loaded whole": "blocks, loaded whole in each process and then sharded",
    "not sharded": "a whole model in each process",
    "FSDP1, ours": "FSDP1 with `AdapterWrapPolicy`, loaded whole",
    "FSDP1, one unit": "FSDP1 without a policy, loaded whole",
}


class Result(NamedTuple):
    """Bytes, of one process, and seconds."""

    loaded: int
    loading_peak: int
    step_peak: int
    gradients: int
    gathers: int
    load_seconds: float
    step_seconds: float


def write_weights(folder: Path, shape: Shape) -> int:
    """Write a model as transformers does, one file a layer, and return its bytes; nothing is held but one layer."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
        dtype="bfloat16",
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    files: dict[str, dict[str, torch.Size]] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[2] if ".layers." in name else "rest"
        files.setdefault(f"model-{part}.safetensors", {})[name] = parameter.shape
    generator = torch.Generator().manual_seed(0)
    noise = (0.02 * torch.randn(1 << 20, generator=generator)).bfloat16()
    for file, shapes in files.items():
        # One block of noise over and over: to draw billions of numbers would take longer than all the rest.
        tensors = {n: noise.repeat(-(-s.numel() // len(noise)))[: s.numel()].view(s).clone() for n, s in shapes.items()}
        save_file({n: t + 1 if t.dim() == 1 else t for n, t in tensors.items()}, folder / file, {"format": "pt"})
    weight_map = {name: file for file, shapes in files.items() for name in shapes}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return sum(2 * s.numel() for shapes in files.values() for s in shapes.values())


def measure(folder: Path, way: str) -> Result:
    """Load, adapt and step in this process, which is one of a group."""
    # Large blocks that are freed go back to the system: what glibc would keep for later is no need of ours.
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 20)
    traffic = _Traffic()
    _warm_up()
    before = _resident()
    _forget_peak()
    started = time.monotonic()
    model = _load(folder, way)
    load_seconds = time.monotonic() - started
    loading_peak = _peak()
    loaded = _resident()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.randint(0, 1000, (1, 16), generator=torch.Generator().manual_seed(dist.get_rank()))
    _forget_peak()
    started = time.monotonic()
    with traffic:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    if way == "not sharded":
        for _, parameter in trainable_parameters(model):
            traffic.gradients += parameter.nbytes
            dist.all_reduce(parameter.grad)
    optimizer.step()
    return Result(
        loaded - before, loading_peak - before, _peak() - before, traffic.gradients, traffic.gathers, load_seconds,
        time.monotonic() - started,
    )  # fmt: skip


def _warm_up() -> None:
    """Import, and let libraries make, what the first model and the first exchange need."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        dtype="bfloat16",
    )
    model = LlamaForCausalLM(config)
    inject_adapters(model, AdapterConfig(rank=8, targets=["q", "k", "v", "o"]))
    shard_module(model, init_device_mesh("cpu", (dist.get_world_size(),)))
    ids = torch.arange(16)[None]
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]).step()


def _load(folder: Path, way: str) -> nn.Module:
    adapter = AdapterConfig(rank=8, targets=["q", "k", "v", "o"])
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    if way in ("loaded whole", "not sharded") or way.startswith("FSDP1"):
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        inject_adapters(model, adapter)
        if way.startswith("FSDP1"):
            policy = AdapterWrapPolicy() if way == "FSDP1, ours" else None
            if policy is None:  # a flat parameter has one dtype, which adapters in float32 would not let it have
                for parameter in model.parameters():
                    parameter.data = parameter.data.to(torch.bfloat16)
            return FullyShardedDataParallel(
                model, auto_wrap_policy=policy, device_id=torch.device("cpu"), use_orig_params=True
            ).train()
        if way == "loaded whole":
            shard_module(model, mesh)
        return model.train()
    weights = PretrainedWeights.of(str(folder))
    with empty_parameters():
        model = LlamaForCausalLM._from_config(LlamaConfig.from_pretrained(folder), dtype=torch.bfloat16)
    inject_adapters(model, adapter)
    if way == "one unit":
        fully_shard(model, mesh=mesh)
    else:
        shard_module(
            model,
            mesh,
            ShardingOptions(
                reshard_after_forward="reshard_after_forward: false" not in way,
                activation_checkpointing="activation_checkpointing: true" in way,
            ),
        )
    materialize(model, weights)
    return model.train()


class _Traffic:
    """Counts what this process puts into reductions and gets from gathers."""

    # Of several versions of torch.
    NAMES = ("reduce_scatter_single", "reduce_scatter_tensor", "all_gather_single", "all_gather_into_tensor")

    def __init__(self) -> None:
        self.gradients = self.gathers = 0

    def __enter__(self) -> None:
        self._originals = {name: getattr(dist, name) for name in self.NAMES if hasattr(dist, name)}
        for name, function in self._originals.items():
            setattr(dist, name, self._counted(name, function))

    def __exit__(self, *_: object) -> None:
        for name, function in self._originals.items():
            setattr(dist, name, function)

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(output: Tensor | None = None, input: Tensor | None = None, *args: Any, **options: Any) -> Any:
            output = options.pop("output_tensor", options.pop("output", output))
            input = options.pop("input_tensor", options.pop("input", input))
            if name.startswith("reduce"):
                self.gradients += input.nbytes  # type: ignore[union-attr]
            else:
                self.gathers += output.nbytes  # type: ignore[union-attr]
            return function(output, input, *args, **options)

        return counted


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _resident() -> int:
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that the allocator keeps is nobody's
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _process(rank: int, port: int, folder: str, way: str, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    result = measure(Path(folder), way)
    Path(out, f"{rank}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def run(folder: Path, way: str, port: int) -> list[Result]:
    """Two processes' results."""
    with tempfile.TemporaryDirectory() as out:
        mp.start_processes(_process, (port, str(folder), way, out), nprocs=2, start_method="spawn")
        return [Result(*json.loads(Path(out, f"{rank}.json").read_text())) for rank in range(2)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="small", help="Sizes of the backbone.")
    parser.add_argument("--layers", type=int, help="Fewer layers than the shape has.")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--folder", type=Path, help="Where to write the weights for the time of the run.")
    options = parser.parse_args(arguments)
    shape = SHAPES[options.shape]
    if options.layers:
        shape = shape._replace(layers=options.layers)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        total = write_weights(Path(folder), shape)
        machine = describe(torch.device("cpu"), 1)
        print(
            f"{options.shape} with {shape.layers} layers, {total / 1e9:.2f} GB in bfloat16; {machine}; two processes\n"
        )
        print("| way | loaded | peak, loading | peak, step | gradients, MB | gathers, GB | load, s | step, s |")
        print("|---|---|---|---|---|---|---|---|")
        for number, way in enumerate(options.ways):
            worst = Result(*map(max, zip(*run(Path(folder), way, 29600 + number), strict=True)))  # type: ignore[arg-type]
            gathers = "not counted" if way.startswith("FSDP1") else f"{worst.gathers / 1e9:.2f}"
            shares = " | ".join(f"{value / total:.2f}" for value in worst[:3])
            print(
                f"| {way}: {WAYS[way]} | {shares} | {worst.gradients / 1e6:.2f} | {gathers} | "
                f"{worst.load_seconds:.1f} | {worst.step_seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
