"""Folders of backbones, of timm and of Hugging Face, of which something is wrong."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from asym_lightning.modules import BackboneOptions, ImageClassifier, InstructionTuner, TextClassifier
from benchmarks.malformed import values
from benchmarks.malformed.adapters import PLACES
from benchmarks.malformed.case import Case

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FOLDER = "backbone"
_ARCHITECTURE = "vit_tiny_patch16_224"
_ARGUMENTS: Mapping[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}


@functools.cache
def _files(kind: str) -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        if kind == "timm":
            model = timm.create_model(_ARCHITECTURE, num_classes=3, **_ARGUMENTS)
            save_file({n: t.contiguous() for n, t in model.state_dict().items()}, Path(name, WEIGHTS))
            described = {"architecture": _ARCHITECTURE, "num_classes": 3, "model_args": dict(_ARGUMENTS),
                         "pretrained_cfg": {"input_size": [3, 16, 16], "num_classes": 3}}  # fmt: skip
            Path(name, CONFIG).write_text(json.dumps(described))
        elif kind == "encoder":
            sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
            BertForSequenceClassification(BertConfig(vocab_size=20, **sizes)).save_pretrained(name)
        else:
            config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16)
            GPT2LMHeadModel(config).save_pretrained(name)
        return {file: Path(name, file).read_bytes() for file in (CONFIG, WEIGHTS)}


def _build(kind: str, source: str, **options: Any) -> None:
    backbone_options = BackboneOptions(**options)
    if kind == "timm":
        module: Any = ImageClassifier(source, num_classes=3, backbone_options=backbone_options)
    elif kind == "encoder":
        module = TextClassifier(source, label_names=["a", "b"], backbone_options=backbone_options)
    else:
        module = InstructionTuner(source, backbone_options=backbone_options)
    module.configure_model()


KINDS = ("timm", "encoder", "decoder")


def write(folder: Path, kind: str) -> Path:
    """A folder of which nothing is wrong."""
    target = folder / FOLDER
    target.mkdir()
    for file, data in _files(kind).items():
        (target / file).write_bytes(data)
    return target


def _case(what: str, kind: str, change: Callable[[Path], Any], *offenders: str, **options: Any) -> Case:
    def make(folder: Path) -> None:
        change(write(folder, kind))

    return Case(f"{kind}: {what}", (*offenders, FOLDER), make, lambda folder: _build(kind, f"./{FOLDER}", **options))


@st.composite
def _byte_cases(draw: st.DrawFn) -> Case:
    kind, file = draw(st.sampled_from(KINDS)), draw(st.sampled_from([CONFIG, WEIGHTS]))
    data = draw(values.bytes_of_nothing())
    return _case(f"{file} of {data!r:.60}", kind, lambda folder: (folder / file).write_bytes(data))


@st.composite
def _truncated_cases(draw: st.DrawFn) -> Case:
    kind, file = draw(st.sampled_from(KINDS)), draw(st.sampled_from([CONFIG, WEIGHTS]))
    share = draw(st.integers(0, 97))

    def cut(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: len(data) * share // 100])

    return _case(f"{file} cut to {share}%", kind, cut)


@st.composite
def _place_cases(draw: st.DrawFn) -> Case:
    kind, file = draw(st.sampled_from(KINDS)), draw(st.sampled_from([CONFIG, WEIGHTS]))
    place = draw(st.sampled_from(["missing", "a folder", "a link to nothing", "a link to itself"]))

    def replace(folder: Path) -> None:
        (folder / file).unlink()
        PLACES[place](folder / file)

    return _case(f"{file} is {place}", kind, replace)


_WRONG: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "timm": {
        "architecture": (None, 3, "no_such", [], {}),
        "model_args": (3, {"no_such": 1}, {"depth": "x"}, {"embed_dim": -4}, {"num_heads": 5}, {"img_size": "x"}),
    },
    "encoder": {
        "model_type": (None, 3, "no_such", [], "gpt2"),
        "hidden_size": ("x", -8, 0, 9, 1e9, [8]),
        "num_hidden_layers": ("x", [1], 2.5),
        "num_attention_heads": (0, "x", 3),
        "vocab_size": ("x", -1, [1]),
        "hidden_act": ("no_such", 3),
    },
    "decoder": {
        "model_type": (None, 3, "no_such", [], "bert"),
        "n_embd": ("x", -8, 0, 9, [8]),
        "n_layer": ("x", [1], 2.5),
        "n_head": (0, "x", 3),
        "vocab_size": ("x", -1, [1]),
    },
}


@st.composite
def _field_cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(KINDS))
    field = draw(st.sampled_from(list(_WRONG[kind])))
    value = draw(st.sampled_from(_WRONG[kind][field]))

    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, field: value}))

    return _case(f"{field} = {value!r}", kind, change)


@st.composite
def _weight_cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(KINDS))
    how = draw(st.sampled_from(["none of them", "of other shapes"]))

    def change(folder: Path) -> None:
        tensors = {"x": torch.ones(2)}
        if how == "of other shapes":
            from safetensors.torch import load_file

            tensors = {n: torch.ones(7, 7) for n in load_file(folder / WEIGHTS)}
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return _case(f"weights are {how}", kind, change)


_ARGUMENT_CASES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "timm": ({"no_such": 1}, {"depth": "x"}, {"embed_dim": -4}, {"img_size": [1, 2, 3]}, {"num_heads": 5}),
    "encoder": ({"no_such": 1}, {"hidden_size": "x"}, {"hidden_size": 9}, {"num_attention_heads": 3},
                {"num_hidden_layers": []}),
    "decoder": ({"no_such": 1}, {"n_embd": "x"}, {"n_head": 3}, {"n_layer": []}),
}  # fmt: skip


@st.composite
def _argument_cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(KINDS))
    arguments = dict(draw(st.sampled_from(_ARGUMENT_CASES[kind])))
    return _case(f"model_args {arguments}", kind, lambda folder: None, "model_args", model_args=arguments)


@st.composite
def _name_cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(KINDS))
    name = draw(st.sampled_from(["", ".", "..", "/", "no/such/folder", "../../etc", "\x00", "a" * 300, "/dev/null", "é",
                                 "no_such_model", "~", "file:///etc/passwd"]))  # fmt: skip
    offenders = (repr(name), repr(name)[:28], "backbone")
    return Case(f"{kind}: called {name!r:.40}", offenders, lambda folder: None, lambda folder: _build(kind, name))


def _with_code(folder: Path) -> None:
    (folder / "evil.py").write_text("open('was_run', 'w')\nclass Config: pass\n")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Config"}
    (folder / CONFIG).write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""
    return [
        _case("code", "encoder", _with_code),
        _case("code", "decoder", _with_code),
        _case("model_args that there are not", "timm", lambda folder: None, "model_args", model_args={"no_such": 1}),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _byte_cases(), _truncated_cases(), _place_cases(), _field_cases(), _weight_cases(), _argument_cases(),
        _name_cases(),
    )  # fmt: skip
