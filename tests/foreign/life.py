"""The life of a project with adapters, in two processes: `python life.py NAME FOLDER {whole,resumed}`.

`whole` trains without an interruption; `resumed`, in a process of its own, goes on from a checkpoint in the middle and
then loads, merges and removes. What has to hold is asserted; what was measured is printed, a line of JSON a process.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from asym_lightning.adapters import AdapterConfig, adapter_state_dict, adapters_by_name, merge_adapters, remove_adapters
from asym_lightning.callbacks import AdapterCheckpoint, AdapterInjection, BNormMonitor, FreezeA
from asym_lightning.core.names import plain_name, plain_state
from asym_lightning.lifecycle.backbone import named_backbone

TOLERANCE = 1e-4


class Project:
    """A client: its own module, data and ways, and what an AdapterInjection is told of it.

    Attributes:
        lightning: The Lightning that it imports.
        backbone: As for `AdapterInjection`; `heads`, too.
        adapter: Options of the `AdapterConfig`.
        trainer_options: Options of the Trainer beside those of all projects.
        check_after: As for `AdapterInjection`.
        holds_objects: Whether its checkpoints hold more than tensors and plain values, so that they have to be trusted.
        unused: Prefixes of names of what the project trains and has no use for.
        resume_seed: What the global generators are seeded by when the run is gone on with.
        refusal: What the sentence says by which callbacks of the project are refused.
    """

    lightning: Any = lightning.pytorch
    backbone: str | None = None
    heads: tuple[str, ...] | None = None
    adapter: dict[str, Any] = {"targets": ["all-linear"]}
    trainer_options: dict[str, Any] = {}
    check_after = 1
    holds_objects = False
    unused: tuple[str, ...] = ()
    resume_seed = 2
    refusal = ""

    def module(self) -> nn.Module:
        """One that hasn't been trained, the same each time."""
        raise NotImplementedError

    def train_data(self) -> Any:
        """What it trains on."""
        raise NotImplementedError

    def other_data(self) -> Any:
        """What it validates, tests and predicts."""
        raise NotImplementedError

    def injection(self) -> AdapterInjection:
        config = AdapterConfig(**{"rank": 2, **self.adapter})
        return AdapterInjection(config, backbone=self.backbone, heads=self.heads, check_after=self.check_after)

    def refused(self) -> list[Any]:
        """Callbacks of the project that can't work beside an injection."""
        return []

    def fit(self, trainer: Any, module: nn.Module, checkpoint: Path | None) -> nn.Module:
        """Train in the project's own way, and return what has been trained."""
        trust = {"weights_only": False} if self.holds_objects else {}
        trainer.fit(module, self.train_data(), self.other_data(), ckpt_path=checkpoint, **trust)
        return module

    def test(self, trainer: Any, module: nn.Module) -> Any:
        return trainer.test(module, self.other_data(), verbose=False)

    def predict(self, trainer: Any, module: nn.Module) -> Any:
        return trainer.predict(module, self.other_data())

    def kept(self, module: Any, folder: Path) -> nn.Module | None:
        """A merged module, saved and loaded in the project's own way, of which `merged.ckpt` is a checkpoint."""
        return type(module).load_from_checkpoint(folder / "merged.ckpt", weights_only=False)

    def trainer(self, folder: Path, *callbacks: Any, **options: Any) -> Any:
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "default_root_dir": folder,
            "enable_checkpointing": any(isinstance(callback, AdapterCheckpoint) for callback in callbacks),
        }
        return self.lightning.Trainer(callbacks=list(callbacks), **{**defaults, **self.trainer_options, **options})


def whole(project: Project, folder: Path) -> dict[str, Any]:
    """Train, and look at what moved and what was saved."""
    module, trainer = _built(project), _training(project, folder)
    if callbacks := project.refused():
        _refuse(project, folder, module, callbacks)
    before = {name: value.clone() for name, value in plain_state(module).items() if isinstance(value, Tensor)}
    torch.manual_seed(1)
    module = project.fit(trainer, module, None)
    adapters = adapters_by_name(module)
    still = [name for name, adapter in adapters.items() if not adapter.B.any()]
    assert adapters and not still, f"B is zero in {still} of {len(adapters)}"
    after = plain_state(module)
    trained = {plain_name(name) for name, p in module.named_parameters() if p.requires_grad}
    frozen = {plain_name(name) for name, p in module.named_parameters() if not p.requires_grad} & before.keys()
    moved = [name for name in frozen if not torch.equal(before[name], after[name])]
    assert frozen and not moved, f"frozen weights moved: {moved}"
    used = {name for name in trained & before.keys() if not name.startswith(project.unused)}
    unmoved = [name for name in used if torch.equal(before[name], after[name])]
    assert not unmoved, f"trained, and the same as before: {unmoved}"
    paths = _checkpoints(folder)
    for path in paths:
        state = torch.load(path, weights_only=not project.holds_objects)["state_dict"]
        assert not frozen & state.keys() and trained <= state.keys()
        assert path.with_suffix(".adapter").is_dir()
    module.trainer.save_checkpoint(folder / "end.ckpt")  # after the last validation, which may have had its say
    end = {
        "state": _trained(module),
        "outputs": _outputs(project, folder, module),
        "test": _test(project, folder, module),
    }
    torch.save(end, folder / "end.pt")
    sizes = {"file": paths[-1].stat().st_size, "module": sum(v.numel() * v.element_size() for v in before.values())}
    return {"adapters": len(adapters), "checkpoints": len(paths), "bytes": sizes}


def resumed(project: Project, folder: Path) -> dict[str, Any]:
    """Go on from the middle, and compare the end; then all ways to load."""
    end = torch.load(folder / "end.pt", weights_only=False)
    paths = _checkpoints(folder)
    middle = paths[len(paths) // 2 - 1]
    trainer, module = _training(project, folder / "resumed"), _built(project)
    torch.manual_seed(project.resume_seed)
    module = project.fit(trainer, module, middle)
    state, run = _trained(module), module.trainer
    assert state.keys() == end["state"].keys()
    off = max((_distance(state[name], end["state"][name]) for name in state), default=0.0)
    tested, outputs = _test(project, folder, module), _outputs(project, folder, module)
    facts = {"resumed_off": off, "test_off": _distance(tested, end["test"])}
    facts["predict_off"] = _distance(outputs, end["outputs"])
    for kind in ("adapter",) if project.holds_objects else ("ckpt", "adapter"):
        loaded = _built(project)
        project.injection().load(loaded, folder / f"end.{kind}")
        facts[f"{kind}_off"] = _distance(_outputs(project, folder, loaded), end["outputs"])
    backbone = named_backbone(loaded, project.backbone)
    merge_adapters(backbone)
    facts["merged_off"] = _distance(_outputs(project, folder, loaded), end["outputs"])
    merge_adapters(named_backbone(module, project.backbone))
    run.save_checkpoint(folder / "merged.ckpt")
    plain = _built(project)  # which loads strictly: what is merged has the project's own keys, and all of them
    plain.load_state_dict(torch.load(folder / "merged.ckpt", weights_only=False)["state_dict"])
    facts["plain_off"] = _distance(_outputs(project, folder, plain), end["outputs"])
    if (kept := project.kept(module, folder)) is not None:
        facts["kept_off"] = _distance(_outputs(project, folder, kept), end["outputs"])
    remove_adapters(backbone)
    assert not adapter_state_dict(loaded)
    fresh = dict(_built(project).named_parameters())
    assert all(torch.equal(p, fresh[n]) for n, p in loaded.named_parameters() if n not in state)
    for name, value in facts.items():
        limit = TOLERANCE if name in ("merged_off", "plain_off", "kept_off") else 0.0
        assert value <= limit, f"{name} is {value}: {facts}"
    return facts


def _refuse(project: Project, folder: Path, module: nn.Module, callbacks: list[Any]) -> None:
    """See callbacks refused by a sentence, before the first step, that leaves the module as it was."""
    before = {name: (value.clone(), value.requires_grad) for name, value in module.named_parameters()}
    trainer = project.trainer(folder / "refused", project.injection(), *callbacks)
    try:
        project.fit(trainer, module, None)
    except ValueError as error:
        assert project.refusal in str(error) and str(error).endswith(".") and "\n" not in str(error), error
    else:
        raise AssertionError(f"{callbacks} are not refused")
    after = dict(module.named_parameters())
    assert trainer.global_step == 0 and before.keys() == after.keys()
    changed = [n for n, (v, trains) in before.items() if trains != after[n].requires_grad or not v.equal(after[n])]
    assert not changed, f"not as before the refusal: {changed}"


def _built(project: Project) -> nn.Module:
    torch.manual_seed(0)
    return project.module()


def _training(project: Project, folder: Path) -> Any:
    checkpoint = AdapterCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    watch = BNormMonitor(every_n_steps=2, file=str(folder / "b_norms.csv"))
    return project.trainer(folder, project.injection(), FreezeA(), watch, checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {plain_name(name): p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def _outputs(project: Project, folder: Path, module: nn.Module) -> list[Tensor]:
    torch.manual_seed(3)
    return _tensors(project.predict(project.trainer(folder), module))


def _test(project: Project, folder: Path, module: nn.Module) -> list[Tensor]:
    torch.manual_seed(4)
    return _tensors(project.test(project.trainer(folder), module))


def _tensors(tree: Any) -> list[Tensor]:
    """All numbers in a tree."""
    leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, (Tensor, float)) or hasattr(leaf, "__array__")]
    found = [torch.as_tensor(leaf).detach().double() for leaf in leaves]
    assert found, f"no numbers in {type(tree).__name__}"
    return found


def _distance(one: Any, other: Any) -> float:
    """The largest difference of two tensors, or lists of them; those that are NaN in both are the same."""
    if isinstance(one, list):
        assert len(one) == len(other)
        return max(map(_distance, one, other))
    if not one.numel() and not other.numel():
        return 0.0
    return float((one - other).abs().nan_to_num(0.0 if torch.equal(one.isnan(), other.isnan()) else torch.inf).max())


def main() -> None:
    name, folder, phase = sys.argv[1:]
    warnings.filterwarnings("ignore")
    project = importlib.import_module(f"projects.{name}").Client()
    facts = {"whole": whole, "resumed": resumed}[phase](project, Path(folder))
    print(json.dumps({"project": name, "phase": phase, **facts}))


if __name__ == "__main__":
    main()
