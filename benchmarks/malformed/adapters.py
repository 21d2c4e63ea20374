"""Adapter directories, of ours and of `peft`, full and compact, of which something is wrong."""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from hypothesis import strategies as st
from packaging.version import Version
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from asym_lightning.adapters import AdapterConfig, inject_adapters, load_adapters, save_adapters
from asym_lightning.adapters.files.directory import CONFIG_FILE, METADATA_KEY, TENSOR_FILE
from asym_lightning.adapters.files.factors import read_factors
from benchmarks.malformed import values
from benchmarks.malformed.case import Case
from benchmarks.malformed.judge import Touched

PREFIX = "base_model.model."
FORMS = ("full", "compact", "of peft")


@dataclass
class Directory:
    """What is in an adapter directory, to be changed."""

    form: str
    config: Any
    metadata: Any
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write both files."""
        config = self.config
        header = {"format": "pt"}
        if self.form == "compact" and isinstance(config, dict):
            config = {**config, METADATA_KEY: self.metadata}
        elif self.form == "full":
            header[METADATA_KEY] = self.metadata if isinstance(self.metadata, str) else json.dumps(self.metadata)
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, folder / TENSOR_FILE, header)


def host() -> nn.Module:
    """The model that the directories are for."""
    torch.manual_seed(0)
    return nn.ModuleDict({"one": nn.Linear(6, 4), "two": nn.Linear(4, 5), "head": nn.Linear(5, 3)})


def adapter_config() -> AdapterConfig:
    """How it was adapted."""
    return AdapterConfig(rank=2, targets=["one", "two"], heads=["head"])


@functools.cache
def _sound(form: str) -> Directory:
    model = host()
    inject_adapters(model, adapter_config())
    with tempfile.TemporaryDirectory() as name:
        save_adapters(model, name, include_frozen=form != "compact")
        config = json.loads(Path(name, CONFIG_FILE).read_text())
        with safe_open(Path(name, TENSOR_FILE), "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    metadata = config.pop(METADATA_KEY) if form == "compact" else json.loads(header[METADATA_KEY])
    return Directory(form, config, None if form == "of peft" else metadata, tensors)


def sound(form: str) -> Directory:
    """A directory of which nothing is wrong."""
    return copy.deepcopy(_sound(form))


def _load(folder: Path) -> None:
    _load_into(host(), folder)


def _load_adapted(folder: Path) -> None:
    model = host()
    inject_adapters(model, adapter_config())
    _load_into(model, folder)


def _load_into(model: nn.Module, folder: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        load_adapters(model, folder)
    except Exception:
        after = model.state_dict()
        if before.keys() != after.keys() or not all(torch.equal(after[name], before[name]) for name in before):
            raise Touched("the state of the model changed") from None
        if trained != {name: p.requires_grad for name, p in model.named_parameters()}:
            raise Touched("what trains changed") from None
        raise


def _read(folder: Path) -> None:
    read_factors(folder)


READERS: Mapping[str, Callable[[Path], None]] = {
    "load": _load,
    "load into an adapted model": _load_adapted,
    "read for a report": _read,
}


def _case(what: str, form: str, reader: str, change: Callable[[Directory], Any], *offenders: str) -> Case:
    def make(folder: Path) -> None:
        directory = sound(form)
        change(directory)
        directory.write(folder)

    return Case(f"{form}, {reader}: {what}", offenders or (CONFIG_FILE, TENSOR_FILE), make, READERS[reader])


def _written(what: str, form: str, reader: str, file: str, write: Callable[[Path], Any]) -> Case:
    def make(folder: Path) -> None:
        sound(form).write(folder)
        write(folder / file)

    return Case(f"{form}, {reader}: {file} {what}", (file,), make, READERS[reader])


_CONFIG_FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "peft_type": st.one_of(values.not_texts(), st.sampled_from(["lora", "IA3", "", None])),
    "r": values.not_positive_integers(),
    "lora_alpha": values.not_positive_numbers(),
    "lora_dropout": values.not_shares(),
    "use_rslora": values.not_truths(),
    "bias": st.one_of(values.not_texts(), st.sampled_from(["", "some"])),
    "modules_to_save": values.not_lists_of_texts(),
    "rank_pattern": st.one_of(values.not_mappings(), st.builds(lambda v: {"one": v}, values.not_positive_integers())),
    "alpha_pattern": st.one_of(values.not_mappings(), st.builds(lambda v: {"one": v}, values.not_positive_numbers())),
}
_OUR_FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "scheme": st.one_of(values.not_texts(), st.sampled_from(["", "A_rand", "hB_zero", "hB_zero_A_what"])),
    "rank": values.not_positive_integers(),
    "alpha": values.not_positive_numbers(),
    "dropout": values.not_shares(),
    "targets": st.one_of(values.not_lists_of_texts(), st.just([])),
    "exclude": values.not_lists_of_texts(),
    "heads": values.not_lists_of_texts(),
    "rank_pattern": st.one_of(values.not_mappings(), st.builds(lambda v: {"one": v}, values.not_positive_integers())),
    "alpha_pattern": st.one_of(values.not_mappings(), st.builds(lambda v: {"one": v}, values.not_positive_numbers())),
    "rank_stabilized": values.not_truths(),
    "share_a": values.not_truths(),
    "max_rank": st.one_of(values.not_positive_integers(), st.sampled_from([10**9, 1])),
    "seed": st.one_of(values.not_numbers(), st.sampled_from(values.FRACTIONS + values.HUGE)),
    "path": st.one_of(values.not_texts(), st.just("fast")),
    "unknown": st.integers(),
}
BAD_PATTERNS = ("(", "[", "*", "(?P<a>x)(?P<a>y)", "(a+)+$", "(a|a)*b", "(.*)*x", "a?" * 30 + "a" * 30, "x" * 5000,
                "(a|b|ab)*c", "(?=(a+))\\1", "(.*a){20}", "a{99999999999}")  # fmt: skip


@st.composite
def _config_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(("full", "of peft"))), draw(st.sampled_from(list(READERS)))
    field = draw(st.sampled_from(list(_CONFIG_FIELDS)))
    value = draw(_CONFIG_FIELDS[field])
    if value is None and field != "peft_type":
        value = "none"
    return _case(
        f"{field} = {value!r:.80}", form, reader, lambda d: d.config.update({field: value}), field, "peft_type"
    )


@st.composite
def _pattern_cases(draw: st.DrawFn) -> Case:
    field = draw(st.sampled_from(["alpha_pattern", "rank_pattern"]))
    pattern = draw(st.sampled_from(BAD_PATTERNS))
    reader = draw(st.sampled_from(list(READERS)))
    return _case(
        f"{field} of {pattern:.40}", "of peft", reader, lambda d: d.config.update({field: {pattern: 3}}), field
    )


@st.composite
def _header_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(("full", "compact"))), draw(st.sampled_from(list(READERS)))
    field = draw(st.sampled_from(list(_OUR_FIELDS)))
    value = draw(_OUR_FIELDS[field])
    offenders = (field, "unknown option", "configuration")
    change = _set_header("config", {field: value})
    return _case(f"config.{field} = {value!r:.80}", form, reader, change, *offenders)


@st.composite
def _metadata_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(("full", "compact"))), draw(st.sampled_from(list(READERS)))
    part = draw(st.sampled_from(["config", "ranks", "checksums", "ranks.one.all", "checksums.one.all", "more"]))
    if part in ("config", "ranks"):
        value: Any = draw(st.one_of(values.not_mappings(), st.none()))
    elif part == "more":
        value = draw(st.integers())
    elif part.startswith("ranks"):
        value = draw(st.one_of(values.not_positive_integers(), st.integers(min_value=3)))
    elif part == "checksums":
        form, value = "compact", draw(values.not_mappings())
    else:
        form, value = "compact", draw(st.one_of(values.not_numbers(), st.none()))

    def change(directory: Directory) -> None:
        owner, _, key = part.partition(".")
        (directory.metadata[owner] if key else directory.metadata)[key or owner] = value

    return _case(f"{part} = {value!r:.80}", form, reader, change)


def _nan(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = torch.nan
    return tensor


RESHAPED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "a scalar": lambda t: t.sum(),
    "one dimension": lambda t: t.flatten(),
    "empty": lambda t: t[:0],
    **({"complex": lambda t: t.to(torch.complex64)} if Version(safetensors.__version__) >= Version("0.7") else {}),
    "integers": lambda t: t.to(torch.int64),
    "truth values": lambda t: t > 0,
    "bytes": lambda t: t.to(torch.uint8),
    "NaN": _nan,
    "infinity": lambda t: t / 0,
    "a row more": lambda t: torch.cat([t, t[:1]]),
    "a column less": lambda t: t[:, :-1],
    "three dimensions": lambda t: t.expand(3, *t.shape),
    "a rank of 20,000": lambda t: torch.ones(20_000, 6) if t.shape[1] == 6 else torch.ones(4, 20_000),
}


@st.composite
def _tensor_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(FORMS)), draw(st.sampled_from(("load", "load into an adapted model")))
    keys = [key for key in sound(form).tensors if "lora" in key]
    return _tensor_case(draw(st.sampled_from(keys)), draw(st.sampled_from(list(RESHAPED))), form, reader)


def _tensor_case(key: str, how: str, form: str, reader: str) -> Case:
    def change(directory: Directory) -> None:
        directory.tensors[key] = RESHAPED[how](directory.tensors[key])

    return _case(f"{key} is {how}", form, reader, change, TENSOR_FILE, "one", "two")


@st.composite
def _name_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(FORMS)), draw(st.sampled_from(("load", "load into an adapted model")))
    key = draw(st.sampled_from(list(sound(form).tensors)))
    new = draw(
        st.sampled_from(
            ["", "x", "lora_A", PREFIX, f"{PREFIX}three.lora_A.weight", f"{PREFIX}lora_B.weight", "one.weight",
             f"{PREFIX}one.lora_magnitude_vector", f"{PREFIX}one.weight", "\x1b[31m.lora_A.weight",
             f"{PREFIX}one.lora_C.weight", f"{PREFIX}head.more", f"{PREFIX}two.bias"]
        )
    )  # fmt: skip
    replaces = draw(st.booleans())

    def change(directory: Directory) -> None:
        tensor = directory.tensors[key]
        if replaces:
            del directory.tensors[key]
        directory.tensors[new] = tensor.clone()

    what = f"{key} {'called' if replaces else 'also as'} {new!r}"
    return _case(what, form, reader, change, TENSOR_FILE, "one", "two", "three", "head", "lora")


@st.composite
def _missing_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(FORMS)), draw(st.sampled_from(list(READERS)))
    keys = [key for key in sound(form).tensors if "lora" in key]
    key = draw(st.sampled_from(keys))
    return _case(f"lacks {key}", form, reader, lambda d: d.tensors.pop(key), TENSOR_FILE, "one", "two")


@st.composite
def _file_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(FORMS)), draw(st.sampled_from(list(READERS)))
    file = draw(st.sampled_from((CONFIG_FILE, TENSOR_FILE)))
    data = draw(st.one_of(values.bytes_of_nothing(), st.sampled_from([b"null", b"[]", b"3", b'"LORA"'])))
    return _written(f"of {data!r:.60}", form, reader, file, lambda path: path.write_bytes(data))


@st.composite
def _truncated_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(FORMS)), draw(st.sampled_from(list(READERS)))
    file, share = draw(st.sampled_from((CONFIG_FILE, TENSOR_FILE))), draw(st.integers(0, 98))

    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * share // 100])

    return _written(f"cut to {share}%", form, reader, file, cut)


@st.composite
def _place_cases(draw: st.DrawFn) -> Case:
    form, reader = draw(st.sampled_from(FORMS)), draw(st.sampled_from(list(READERS)))
    file, kind = draw(st.sampled_from((CONFIG_FILE, TENSOR_FILE))), draw(st.sampled_from(list(PLACES)))

    def replace(path: Path) -> None:
        path.unlink()
        PLACES[kind](path)

    return _written(f"is {kind}", form, reader, file, replace)


PLACES: Mapping[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
}


def _set_tensor(name: str, tensor: Tensor) -> Callable[[Directory], Any]:
    return lambda directory: directory.tensors.update({f"{PREFIX}{name}": tensor})


def _set_config(**fields: Any) -> Callable[[Directory], Any]:
    return lambda directory: directory.config.update(fields)


def _set_header(part: str, fields: Any) -> Callable[[Directory], Any]:
    return lambda directory: directory.metadata[part].update(fields)


def _smuggle_as_head(directory: Directory) -> None:
    _set_tensor("one.weight", torch.zeros(4, 6))(directory)
    _set_config(modules_to_save=["head", "one"])(directory)


def _other_seed(directory: Directory) -> None:
    _set_header("checksums", {"one.all": math.nan})(directory)
    _set_header("config", {"seed": 1})(directory)


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""
    deep = "[" * 100_000
    adapted = "load into an adapted model"
    return [
        _case("one dimension", "full", "load", _set_tensor("one.lora_A.weight", torch.ones(6))),
        _case("a scalar", "full", "load", _set_tensor("one.lora_A.weight", torch.ones(()))),
        _case("an empty factor", "full", "load", _set_tensor("one.lora_B.weight", torch.ones(4, 0))),
        *(_tensor_case(f"{PREFIX}one.lora_B.weight", how, "full", "load") for how in RESHAPED),
        _case("no config", "full", "load", lambda d: d.metadata.pop("config")),
        _case("no ranks", "compact", "load", lambda d: d.metadata.pop("ranks")),
        _case("a list for a mapping", "full", "load", lambda d: d.metadata.update(ranks=[2, 2])),
        _case("unknown metadata", "full", "load", lambda d: d.metadata.update(colour="red"), "colour"),
        _case("a checksum of text", "compact", "load", _set_header("checksums", {"one.all": "1.5"}), "checksums"),
        *(_case("a checksum of NaN with another seed", "compact", r, _other_seed, "checksums") for r in READERS),
        *(
            _case("a frozen weight", form, reader, _set_tensor("one.weight", torch.zeros(4, 6)), "one.weight")
            for form in FORMS
            for reader in READERS
        ),
        _case("a frozen weight that the config calls a head", "of peft", adapted, _smuggle_as_head, "one.weight"),
        _case("rank 0", "of peft", "load", _set_config(r=0), "`r`"),
        _case("alpha as text", "of peft", "load", _set_config(lora_alpha="16"), "lora_alpha"),
        _case("a rank of a billion", "of peft", "load", _set_config(r=10**9), "`r`"),
        _case("room for a rank of a billion", "full", "load", _set_header("config", {"max_rank": 10**9}), "max_rank"),
        _written("in latin-1", "of peft", "load", CONFIG_FILE, lambda p: p.write_bytes('{"é": 1}'.encode("latin-1"))),
        _written("nested deep", "of peft", "load", CONFIG_FILE, lambda p: p.write_text(deep)),
        _case("metadata nested deep", "full", "load", lambda d: setattr(d, "metadata", deep)),
        _written("a list", "of peft", "read for a report", CONFIG_FILE, lambda p: p.write_text("[]")),
        *(
            _case(f"pattern {p:.20}", "of peft", "load", _set_config(alpha_pattern={p: 3}), "alpha_pattern")
            for p in BAD_PATTERNS
        ),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _config_cases(), _header_cases(), _metadata_cases(), _tensor_cases(), _name_cases(), _missing_cases(),
        _file_cases(), _truncated_cases(), _place_cases(), _pattern_cases(),
    )  # fmt: skip
