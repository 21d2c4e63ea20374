"""Estimates beside what real steps take, and the time of an estimate for 70B parameters and 1,024 devices.

    python -m benchmarks.estimate                # CPU: bytes that autograd saves, and the peak by torch's profiler
    python -m benchmarks.estimate --device cuda  # torch.cuda.max_memory_allocated

Writes a table to benchmarks/results/estimate.md; fails where an exact number differs or a peak is off by a tenth.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as tf
from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.estimate.estimate import Estimate, Run, estimate_step
from asym_lightning.estimate.table import size_text
from benchmarks.machine import describe
from benchmarks.memory import parameter_bytes, peak_bytes, saved_bytes, tensor_bytes

RESULTS = Path(__file__).parent / "results" / "estimate.md"
PEAK_TOLERANCE = 0.1
ARMS = {"B-only": "hB_zero_A_rand", "LoRA": "hB_zero_hA_he", "full": None}
# Llama-2-70B's shape, as its config.json gives it.
LLAMA_70B = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 4096,
}  # fmt: skip


@dataclass
class Trained:
    """A model with a batch, a loss and an optimizer; tensors are made where torch makes them by default."""

    model: nn.Module
    is_text: bool
    batch_size: int
    length: int

    def batch(self) -> Any:
        if not self.is_text:
            return torch.zeros(self.batch_size, 3, 224, 224)
        ids = torch.zeros(self.batch_size, self.length, dtype=torch.int64)
        mask = torch.ones_like(ids)
        mask[:, -1] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def loss(self, batch: Any) -> Tensor:
        logits = self.model(**batch).logits if self.is_text else self.model(batch)
        logits = logits.flatten(0, -2)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad])


def vit() -> Trained:
    """A ViT-S cut to four blocks."""
    return Trained(timm.create_model("vit_small_patch16_224", depth=4, num_classes=10), False, 8, 0)


def roberta() -> Trained:
    """A RoBERTa of width 384 and six layers, with its dropout."""
    config = tf.RobertaConfig(
        vocab_size=5000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536
    )
    return Trained(tf.RobertaForSequenceClassification(config), True, 16, 128)


def llama(checkpointing: bool = False) -> Trained:
    """A Llama of width 512 and eight layers."""
    config = tf.LlamaConfig(
        vocab_size=4000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, use_cache=False,
    )  # fmt: skip
    model = tf.LlamaForCausalLM(config)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Trained(model, True, 8, 256)


MODELS: dict[str, Callable[[], Trained]] = {
    "ViT-S, 4 blocks": vit,
    "RoBERTa 384 x 6": roberta,
    "Llama 512 x 8": llama,
    "the same, checkpointing": lambda: llama(checkpointing=True),
}


def build(name: str, scheme: str | None, device: str) -> Trained:
    """Build a model on a device, adapted, or all of it trained."""
    torch.manual_seed(0)
    with torch.device(device):
        trained = MODELS[name]()
        if scheme is not None:
            inject_adapters(trained.model, AdapterConfig(scheme, rank=8, targets=["all-linear"]))
    trained.model.train()
    return trained


@dataclass(frozen=True)
class Comparison:
    """Bytes that were estimated and measured."""

    model: str
    arm: str
    estimate: Estimate
    state: int
    saved: int
    peak: int

    @property
    def is_exact(self) -> bool:
        return self.state == self.estimate.weights + self.estimate.gradients + self.estimate.optimizer_state

    @property
    def peak_error(self) -> float:
        return self.estimate.peak / self.peak - 1

    def row(self) -> str:
        exact = "equal" if self.is_exact else "DIFFERENT"
        sizes = [size_text(size) for size in (self.estimate.activations, self.saved, self.estimate.peak, self.peak)]
        return f"| {self.model} | {self.arm} | {exact} | {' | '.join(sizes)} | {self.peak_error:+.1%} |"


def compare(name: str, arm: str, device: str) -> Comparison:
    """Estimate a step, and take it."""
    fake = build(name, ARMS[arm], "meta")
    found = estimate_step(fake.model, fake.batch, fake.loss, fake.optimizer, Run(is_gpu=device == "cuda"))
    real = build(name, ARMS[arm], device)
    with torch.device(device):
        batch = real.batch()
        optimizer = real.optimizer()
        peak = (_peak_of_gpu if device == "cuda" else _peak_of_cpu)(real, optimizer, batch)
        inputs = list(batch.values()) if real.is_text else [batch]
        saved = saved_bytes(lambda: real.loss(batch), [*real.model.parameters(), *real.model.buffers(), *inputs])
    held = parameter_bytes(real.model) + sum(b.nbytes for b in real.model.buffers())
    gradients = sum(p.grad.nbytes for p in real.model.parameters() if p.grad is not None)
    values = (v for values in optimizer.state.values() for v in values.values() if isinstance(v, Tensor))
    state = sum(tensor_bytes(value) for value in values if value.device.type == device)
    resident = 0 if device == "cuda" else held + sum(tensor.nbytes for tensor in inputs)
    return Comparison(name, arm, found, held + gradients + state, saved, peak + resident)


def _steps(trained: Trained, optimizer: torch.optim.Optimizer, batch: Any) -> Iterator[None]:
    """Two steps, the second of which finds the optimizer's state and the gradients of the first, as later ones do."""
    for _ in range(2):
        loss = trained.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        del loss
        optimizer.step()
        yield


def _peak_of_gpu(trained: Trained, optimizer: torch.optim.Optimizer, batch: Any) -> int:
    for _ in _steps(trained, optimizer, batch):
        torch.cuda.reset_peak_memory_stats()
    for _ in _steps(trained, optimizer, batch):
        pass
    return torch.cuda.max_memory_allocated()


def _peak_of_cpu(trained: Trained, optimizer: torch.optim.Optimizer, batch: Any) -> int:
    return peak_bytes(lambda: deque(_steps(trained, optimizer, batch), maxlen=0))


def time_70b(devices: int) -> tuple[float, float, dict[str, Any]]:
    """Seconds by the clock and of the processor for the whole command, imports included, and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(LLAMA_70B))
        command = [
            sys.executable, "-m", "asym_lightning", "estimate", "--config", "configs/instruction/alpaca_llama2_7b.yaml",
            "--model.backbone", folder, "--model.adapter.targets=[all-linear]", "--model.adapter.rank=16",
            "--trainer.accumulate_grad_batches=1", "--strategy=fsdp2", f"--devices={devices}", "--batch-size=1",
            "--sequence-length=4096", "--format=json",
        ]  # fmt: skip
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, json.loads(out)


def _comparison_lines(comparisons: list[Comparison], device: str) -> list[str]:
    machine = describe(torch.device(device), torch.get_num_threads())
    peak = "torch.cuda.max_memory_allocated" if device == "cuda" else "torch's profiler"
    return [
        "# Estimates beside real steps",
        "",
        f"`python -m benchmarks.estimate --device {device}`; {machine}, fp32,",
        "all linear layers adapted at rank 8, AdamW.",
        f"State: weights, gradients and optimizer state together. Measured peak: {peak}.",
        "",
        "| model | arm | state | activations | saved by autograd | peak, estimated | peak, measured | error |",
        "|---|---|---|---|---|---|---|---|",
        *(comparison.row() for comparison in comparisons),
        "",
    ]


def _lines_of_70b(devices: int) -> list[str]:
    seconds, cpu_seconds, found = time_70b(devices)
    names = ("weights", "gradients", "optimizer_state", "gathered", "activations", "peak")
    return [
        f"## Llama-2-70B's shape: fsdp2, {devices:,} GPUs, 4,096 tokens each",
        "",
        "All linear layers at rank 16, backbone in bfloat16, bf16-mixed, activation checkpointing. Bytes of one GPU,",
        "estimated and not measured: none was at hand.",
        f"{seconds:.0f} s by the clock, {cpu_seconds:.0f} s of the processor, for the whole command, imports included.",
        "",
        *(f"- {name.replace('_', ' ')}: {size_text(found[name])}" for name in names),
        *(f"- {kind}, a step: {size_text(size)}" for kind, size in found["communication"].items()),
        *(f"- {name}: {size_text(size)}" for name, size in found["files"].items()),
        "",
    ]


def main() -> int:
    """Compare, write the table, and return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where real steps are taken")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table (default: %(default)s)")
    parser.add_argument("--skip-70b", action="store_true", help="leave the large estimate out")
    options = parser.parse_args()
    comparisons = []
    for name in options.models:
        for arm in ARMS:
            comparisons.append(compare(name, arm, options.device))
            print(comparisons[-1].row())
    report = [*_comparison_lines(comparisons, options.device), *([] if options.skip_70b else _lines_of_70b(1024))]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(report))
    missed = [c for c in comparisons if not c.is_exact or abs(c.peak_error) > PEAK_TOLERANCE]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
