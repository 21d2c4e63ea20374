"""Checkpoint files of which something is wrong."""

from __future__ import annotations

import copy
import functools
import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig
from asym_lightning.callbacks import AdapterInjection
from asym_lightning.cli.errors import check_checkpoint
from asym_lightning.cli.restoring import restoring
from benchmarks.malformed import values
from benchmarks.malformed.adapters import PLACES
from benchmarks.malformed.case import Case
from benchmarks.malformed.judge import Touched

FILE = "model.ckpt"
Change = Callable[[dict[str, Any]], Any]


class _Host(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.ModuleDict({"one": nn.Linear(6, 4), "head": nn.Linear(4, 3)})

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.net["head"](self.net["one"](batch[0])), batch[1])

    def validation_step(self, batch: list[Tensor]) -> None:
        self.training_step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)


def _injection() -> AdapterInjection:
    return AdapterInjection(AdapterConfig(rank=2, targets=["one"], heads=["head"], dropout=0.1), backbone="net")


def _data() -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(4, 6), torch.zeros(4, dtype=torch.long)), batch_size=2)


def _trainer(folder: Path, epochs: int) -> Trainer:
    return Trainer(
        default_root_dir=folder, max_epochs=epochs, callbacks=[_injection()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip


@functools.cache
def _sound() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        trainer = _trainer(Path(name), 1)
        trainer.fit(_Host(), _data())
        trainer.save_checkpoint(Path(name, FILE))
        return Path(name, FILE).read_bytes()


def sound() -> dict[str, Any]:
    """What is in a checkpoint of which nothing is wrong."""
    loaded: dict[str, Any] = torch.load(io.BytesIO(_sound()), weights_only=True)
    return loaded


def _go_on(folder: Path) -> None:
    path = str(folder / FILE)
    module = _Host()
    before = copy.deepcopy(module.state_dict())
    with restoring(path):
        check_checkpoint(path, is_to_go_on=True)
        try:
            _trainer(folder, 2).fit(module, _data(), ckpt_path=path)
        except ValueError:
            after = module.state_dict()
            if not all(torch.equal(after[name], before[name]) for name in before if name.startswith("net.one")):
                raise Touched("frozen weights changed") from None
            raise


def _evaluate(folder: Path) -> None:
    path = str(folder / FILE)
    with restoring(path):
        check_checkpoint(path)
        _trainer(folder, 1).validate(_Host(), _data(), ckpt_path=path, verbose=False)


def _load(folder: Path) -> None:
    _injection().load(_Host(), folder / FILE)


READERS: Mapping[str, Callable[[Path], None]] = {"go on": _go_on, "evaluate": _evaluate, "load": _load}


def _case(what: str, reader: str, change: Change, *offenders: str) -> Case:
    def make(folder: Path) -> None:
        checkpoint = sound()
        changed = change(checkpoint)
        torch.save(checkpoint if changed is None else changed, folder / FILE)

    return Case(f"{reader}: {what}", (*offenders, FILE, "The checkpoint"), make, READERS[reader])


def _written(what: str, reader: str, write: Callable[[Path], Any]) -> Case:
    return Case(f"{reader}: {what}", (FILE,), lambda folder: write(folder / FILE), READERS[reader])


def _set(path: str, value: Any) -> Change:
    """Put a value where a dotted path leads; parts in brackets are numbers of a list."""

    def change(checkpoint: dict[str, Any]) -> None:
        *above, last = path.split("/")
        owner: Any = checkpoint
        for part in above:
            owner = owner[int(part) if isinstance(owner, list) else part]
        owner[int(last) if isinstance(owner, list) else last] = value

    return change


# What each reader needs: nothing else is looked at, so it may be wrong.
ALWAYS = ("state_dict", "pytorch-lightning_version", "adapter_description", "adapter_description/backbone",
          "adapter_description/config", "adapter_description/quantization")  # fmt: skip
OF_TRAINING = ("loops", "loops/fit_loop", "optimizer_states", "optimizer_states/0", "optimizer_states/0/state",
               "optimizer_states/0/param_groups", "lr_schedulers", "epoch", "global_step", "places", "places/0",
               "places/0/random_state", "places/0/loaders", "places/0/loaders/0", "loops/fit_loop/epoch_progress",
               "loops/fit_loop/epoch_loop.batch_progress", "loops/fit_loop/epoch_progress/total")  # fmt: skip
_WRONG: tuple[Any, ...] = (3, 2.5, "x", [3], ["a", {}], torch.ones(2), {"a": "b"}, True)
_LIKE_LISTS = ("optimizer_states", "lr_schedulers", "places", "places/0/loaders", "optimizer_states/0/param_groups")


@st.composite
def _field_cases(draw: st.DrawFn) -> Case:
    reader = draw(st.sampled_from(list(READERS)))
    fields = (*ALWAYS, *OF_TRAINING) if reader == "go on" else ALWAYS
    field, value = draw(st.sampled_from(fields)), draw(st.sampled_from(_WRONG))
    if field in ("epoch", "global_step") and type(value) is int:  # which they may be
        value = -1
    return _case(f"{field} = {value!r:.40}", reader, _set(field, value), field)


@st.composite
def _missing_cases(draw: st.DrawFn) -> Case:
    reader = draw(st.sampled_from(list(READERS)))
    fields = ("state_dict", "pytorch-lightning_version", "adapter_description/backbone", "adapter_description/config")
    if reader == "go on":
        fields += ("loops", "loops/fit_loop", "optimizer_states", "lr_schedulers", "epoch", "global_step",
                   "places/0/random_state", "places/0/loaders", "optimizer_states/0/state",
                   "optimizer_states/0/param_groups", "loops/fit_loop/epoch_progress")  # fmt: skip
    field = draw(st.sampled_from(fields))

    def change(checkpoint: dict[str, Any]) -> None:
        *above, last = field.split("/")
        owner: Any = checkpoint
        for part in above:
            owner = owner[int(part) if isinstance(owner, list) else part]
        del owner[last]

    return _case(f"lacks {field}", reader, change, field)


def _with(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[0] = value
    return tensor


_TENSORS: Mapping[str, Callable[[Tensor], Any]] = {
    "NaN": lambda t: _with(t, torch.nan),
    "infinity": lambda t: _with(t, torch.inf),
    "complex": lambda t: t.to(torch.complex64),
    "integers": lambda t: t.long(),
    "one number": lambda t: t.sum(),
    "a row more": lambda t: torch.cat([t, t[:1]]),
    "empty": lambda t: t[:0],
    "a list": lambda t: t.tolist(),
    "text": lambda t: "x",
    "nothing": lambda t: None,
    "a huge view": lambda t: torch.ones(1).expand(2**40),
    "a row": lambda t: t[0],
}


@st.composite
def _tensor_cases(draw: st.DrawFn) -> Case:
    reader, how = draw(st.sampled_from(list(READERS))), draw(st.sampled_from(list(_TENSORS)))
    names = [name for name, value in sound()["state_dict"].items() if isinstance(value, Tensor) and value.ndim]
    return _tensor_case(reader, how, draw(st.sampled_from(names)))


def _tensor_case(reader: str, how: str, name: str) -> Case:
    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"][name] = _TENSORS[how](checkpoint["state_dict"][name])

    return _case(f"{name} is {how}", reader, change, name)


@st.composite
def _name_cases(draw: st.DrawFn) -> Case:
    reader = draw(st.sampled_from(list(READERS)))
    name = draw(st.sampled_from(list(sound()["state_dict"])))
    new = draw(st.sampled_from(["", "x", "net.one.more", 3, "net.head", "\x1b[31m"]))

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"][new] = checkpoint["state_dict"].pop(name)

    return _case(f"{name} called {new!r}", reader, change, name)


@st.composite
def _file_cases(draw: st.DrawFn) -> Case:
    reader, data = draw(st.sampled_from(list(READERS))), draw(values.bytes_of_nothing())
    return _written(f"{data!r:.60}", reader, lambda path: path.write_bytes(data))


@st.composite
def _truncated_cases(draw: st.DrawFn) -> Case:
    reader, share = draw(st.sampled_from(list(READERS))), draw(st.integers(0, 99))
    return _written(f"cut to {share}%", reader, lambda p: p.write_bytes(_sound()[: len(_sound()) * share // 100]))


@st.composite
def _pickle_cases(draw: st.DrawFn) -> Case:
    """The description of the tensors is damaged: a byte of it is another, or some are cut off."""
    reader, place = draw(st.sampled_from(list(READERS))), draw(st.integers(0, 3000))
    return _pickle_case(reader, place, draw(st.integers(1, 100)))


def _pickle_case(reader: str, place: int, cut: int) -> Case:
    def write(path: Path) -> None:
        _rewrite(path, lambda data: data[: min(place, len(data) - cut)])

    return _written(f"pickle cut at {place} or {cut} before its end", reader, write)


def _rewrite(path: Path, change: Callable[[bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(io.BytesIO(_sound())) as source, zipfile.ZipFile(path, "w", compression) as target:
        for part in source.infolist():
            data = source.read(part)
            target.writestr(part.filename, change(data) if part.filename.endswith("data.pkl") else data)


@st.composite
def _place_cases(draw: st.DrawFn) -> Case:
    reader, kind = draw(st.sampled_from(list(READERS))), draw(st.sampled_from(list(PLACES)))
    return _written(f"is {kind}", reader, PLACES[kind])


class _Code:
    """What runs a command when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def _holds_code(path: Path) -> None:
    torch.save({**sound(), "more": _Code(str(path.with_name("was run")))}, path)


def _text_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/readme.txt", "hello")


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""
    factor = next(name for name in sound()["state_dict"] if name.endswith("factor_B"))
    return [
        *(_tensor_case(reader, how, factor) for reader in READERS for how in _TENSORS),
        *(_pickle_case(reader, 300, 1) for reader in READERS),
        *(
            case
            for reader in READERS
            for case in (
                _case("a tensor", reader, lambda c: torch.ones(3)),
                _case("a list", reader, lambda c: [c]),
                _case("an empty mapping", reader, lambda c: {}),
                _case("no version", reader, lambda c: c.pop("pytorch-lightning_version") and None),
                _case("a version of words", reader, _set("pytorch-lightning_version", "new")),
                _case("a description of text", reader, _set("adapter_description", "rank 2")),
                _case("a description in a list", reader, _set("adapter_description/config", [2])),
                _written("code", reader, _holds_code),
                _written("a pickle of code without an archive", reader,
                         lambda p: p.write_bytes(pickle.dumps(_Code(str(p.with_name("was run")))))),
                _written("an archive of text", reader, _text_archive),
                _written("a compressed archive", reader, lambda p: _rewrite(p, bytes, zipfile.ZIP_DEFLATED)),
            )
        ),
        _case("no optimizer states", "go on", lambda c: c.pop("optimizer_states") and None, "optimizer_states"),
        _case("the states of two optimizers", "go on", lambda c: c["optimizer_states"].append({})),
        _case("an optimizer of other parameters", "go on",
              _set("optimizer_states/0/param_groups/0/params", [0])),
    ]  # fmt: skip


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _field_cases(), _missing_cases(), _tensor_cases(), _name_cases(), _file_cases(), _truncated_cases(),
        _pickle_cases(), _place_cases(),
    )  # fmt: skip
