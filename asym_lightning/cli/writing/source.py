"""What `generate`, `chat` and the evaluation harness are given: a run, an adapter or a model, as one that writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from asym_lightning.adapters import adapter_layers
from asym_lightning.adapters.files.directory import CONFIG_FILE, is_adapter
from asym_lightning.cli.trained_run import load_trained_run
from asym_lightning.cli.writing.named_adapters import NamedAdapters
from asym_lightning.cli.writing.options import PRECISIONS
from asym_lightning.core.files import read_json
from asym_lightning.core.messages import first_line
from asym_lightning.core.run_files import ADAPTER, CONFIG, read_config
from asym_lightning.data.tokens.tokenized_text import load_tokenizer
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.language.decoding import Decoding
from asym_lightning.modules.language.language_model import create_language_model
from asym_lightning.modules.pretrained_config import pretrained_config


@dataclass(frozen=True)
class WritingModel:
    """A language model, and what it was trained to be given.

    Args:
        model: A model of transformers, on its device.
        tokenizer: Its tokenizer.
        adapters: Its adapters by name.
        template: The template of its training data; None where there is none.
        prefix: What its training data has before each text.
        decoding: How its run generated texts.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    adapters: NamedAdapters
    template: str | None = None
    prefix: str = ""
    decoding: Decoding = field(default_factory=Decoding)


def load_source(
    source: str | Path,
    *,
    base: str | None = None,
    checkpoint: str | None = None,
    adapters: Mapping[str, str] | None = None,
    dtype: str | None = None,
    device: str = "auto",
) -> WritingModel:
    """Build what a source names.

    Args:
        source: A run directory, an adapter directory, a model's folder, or a name on the hub.
        base: Base model of an adapter directory; None takes the one that it names.
        checkpoint: Checkpoint of a run; None takes the best one.
        adapters: Directories of further adapters by name.
        dtype: Precision of the base model's weights; None means the model's own, or that of the run.
        device: Where to compute; `auto` takes a GPU if there is one.

    Raises:
        FileNotFoundError: If a directory lacks what it should hold.
        ValueError: If the source is no language model, or an option does not belong to it.
    """
    path, place = Path(source), _device(device)
    is_run, is_adapters = (path / CONFIG).is_file(), is_adapter(path)
    for option, value, belongs in (("base", base, is_adapters), ("checkpoint", checkpoint, is_run)):
        if value is not None and not belongs:
            kind = {"base": "an adapter directory", "checkpoint": "a run"}[option]
            raise ValueError(f"`--{option}` is for {kind}, which {str(source)!r} is not.")
    for name, directory in (adapters or {}).items():
        if not is_adapter(Path(directory)) and not (Path(directory) / ADAPTER).is_dir():
            raise FileNotFoundError(f"the adapter {name!r} is not there: {directory!r} holds no {CONFIG_FILE}.")
    if is_run:
        return _of_run(path, checkpoint, adapters or {}, dtype, place)
    base = (base or _base_of(path)) if is_adapters else str(source)
    tokenizer = load_tokenizer(str(path) if (path / "tokenizer_config.json").is_file() else base)
    model = _built(base, dtype).to(place).eval()
    return WritingModel(model, tokenizer, NamedAdapters(model, adapters or {}, own=path if is_adapters else None))


def _of_run(
    path: Path, checkpoint: str | None, adapters: Mapping[str, str], dtype: str | None, place: torch.device
) -> WritingModel:
    run = load_trained_run(path, checkpoint, precision=dtype)
    model: Any = getattr(run.model, "backbone", None)
    if not _writes(model):
        raise ValueError(f"the run {str(path)!r} trained a {type(run.model).__name__}, which writes no text.")
    data = (read_config(path).get("data") or {}).get("init_args") or {}
    layers = adapter_layers(model).values()
    factors = {id(p) for layer in layers for p in layer.adapters.parameters()}
    return WritingModel(
        model.to(place),
        load_tokenizer(run.tokenizer_name or run.backbone_name),
        NamedAdapters(
            model, adapters, is_base_changed=any(p.requires_grad and id(p) not in factors for p in model.parameters())
        ),
        template=data.get("template"),
        prefix=data.get("prefix") or "",
        decoding=getattr(run.model, "decoding", None) or Decoding(),
    )


def _base_of(directory: Path) -> str:
    base = read_json(directory / CONFIG_FILE).get("base_model_name_or_path")
    if not base:
        raise ValueError(f"`{directory / CONFIG_FILE}` names no base model: give it by `--base`.")
    return str(base)


def _built(base: str, dtype: str | None) -> Any:
    config = pretrained_config(base)
    own = str(config.dtype).removeprefix("torch.")
    options = BackboneOptions(precision=dtype or (own if own in PRECISIONS else "float32"))  # type: ignore[arg-type]
    model = create_language_model(base, "encoder-decoder" if config.is_encoder_decoder else "causal", options)
    if not _writes(model):
        raise ValueError(f"{base!r} is a {type(model).__name__}, which writes no text.")
    return model


def _writes(model: Any) -> bool:
    can_generate = getattr(model, "can_generate", None)  # of transformers alone
    return callable(can_generate) and bool(can_generate())


def _device(name: str) -> torch.device:
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # how torch says that there is none
        raise ValueError(f"`--device {name}` can't be used: {first_line(error)[:120].rstrip('.')}.") from error
    return device
