"""One small model of random weights for every type of transformers."""

from __future__ import annotations

import contextlib
import itertools
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from benchmarks.coverage.small_config import COUNTS, HEAD_DIM, HEADS, RULES, Rules, small_config
from benchmarks.coverage.subject import Call, Subject, outputs
from benchmarks.coverage.transformers_inputs import calls_of, tower_calls
from benchmarks.coverage.type_facts import OVERRIDES

# What a model of the type is mostly trained as; first match counts.
_TASKS = (
    "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM", "CAUSAL_LM",
    "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "CTC", "OBJECT_DETECTION",
    "UNIVERSAL_SEGMENTATION", "SEMANTIC_SEGMENTATION", "VIDEO_CLASSIFICATION", "DEPTH_ESTIMATION", "MASKED_LM",
    "PRETRAINING", "QUESTION_ANSWERING",
)  # fmt: skip


def names() -> Sequence[str]:
    """The types that have a model of their own."""
    return [name for name in CONFIG_MAPPING_NAMES if model_class_name(name)]


def model_class_name(model_type: str) -> str | None:
    """The class that is built of a type, or ``None`` where it has none, as a configuration of a part has not."""
    return next(iter(_class_names(model_type)), None)


def _class_names(model_type: str) -> list[str]:
    """The classes of a type: for what it is mostly trained as, without a task, which takes less, for other tasks."""
    tasks = list(_TASKS)
    is_seq2seq = model_type in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_seq2seq:
        tasks.insert(0, "SEQUENCE_CLASSIFICATION")
    found = [name for task in tasks if (name := _class_name(f"MODEL_FOR_{task}_MAPPING_NAMES", model_type))]
    base = [name] if (name := _class_name("MODEL_MAPPING_NAMES", model_type)) else []
    if model_type in modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return list(dict.fromkeys([*base, *found]))
    return list(dict.fromkeys([*found[:1], *base, *found[1:]]))


def _class_name(mapping: str, model_type: str) -> str | None:
    found = getattr(modeling_auto, mapping).get(model_type)
    return found if isinstance(found, str) or not found else found[0]


def subject(model_type: str) -> Subject:
    """A model of random weights, and calls that it takes.

    Raises:
        RuntimeError: None of the small configurations and of the calls that were tried work; the message is the last
            error of each.
    """
    import transformers

    names = _class_names(model_type)
    classes = [found for name in names if (found := getattr(transformers, name, None))]
    if not classes:
        raise RuntimeError(f"transformers names the class {names[0]} and does not have it")
    reasons: list[str] = []
    for model_class, variant in ((c, v) for c in classes for v in _smallest_first(model_type, c, reasons)):
        try:
            torch.manual_seed(0)
            model = _built(model_class, _config(model_type, model_class, variant)).float().eval()
        except Exception as error:  # what a type takes is found by trying
            reasons.append(f"not built: {_one_line(error)}")
            continue
        try:
            calls, failed = working_calls(model)
        except AttributeError as error:  # its configuration has other fields than those that say what it is called with
            reasons.append(f"not called: {_one_line(error)}")
            continue
        if calls:
            return Subject(model_type, model, calls)
        reasons += [f"not run: {error}" for error in failed[:1]]
    raise RuntimeError(" | ".join(dict.fromkeys(reasons)))


def _smallest_first(model_type: str, model_class: Any, reasons: list[str]) -> Iterator[Variant]:
    """The variants in their order, but for large ones, which come last; why the others are none goes into reasons."""
    large: list[Variant] = []
    for variant in VARIANTS:
        try:
            size = _size(model_class, _config(model_type, model_class, variant))
        except Exception as error:
            reasons.append(f"not built: {_one_line(error)}")
            continue
        if size > LARGEST:
            reasons.append(f"{size:,} parameters")
        elif size > LARGE:
            large.append(variant)
        else:
            yield variant
    yield from large


def _config(model_type: str, model_class: Any, variant: Variant) -> Any:
    """The configuration, or the part of it that the class is built from, as a decoder is from that of all."""
    config = small_config(model_type, OVERRIDES, *variant)
    if isinstance(config, model_class.config_class):
        return config
    return next((part for part in vars(config).values() if isinstance(part, model_class.config_class)), config)


def _built(model_class: Any, config: Any) -> nn.Module:
    """The model, of the configuration's decoder where the class reads fields that only that has."""
    try:
        return model_class._from_config(config)
    except AttributeError:
        with contextlib.suppress(Exception):
            return model_class._from_config(config.get_text_config(decoder=True))
        raise


def _size(model_class: Any, config: Any) -> int:
    """How many weights there would be; 0 where building it needs their values."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in _built(model_class, config).parameters())
    except Exception:
        return 0


def working_calls(model: nn.Module) -> tuple[list[Call], list[str]]:
    """The first calls that work, with those of towers; and what was said of the ones before."""
    failed: list[str] = []
    # A second time with what the first was told.
    for calls in itertools.chain(calls_of(model), _calls_as_told(model, failed)):
        if (error := _error(model, calls)) is not None:
            failed.append(error)
            continue
        if not any("pixel" in argument for argument in calls[0].arguments):
            calls += tower_calls(model, lambda call: _error(model, [call]) is None)
        return calls, failed
    return [], failed


# What torch says of an input that has another number of features than a layer wants.
_WANTED = (
    re.compile(r"mat1 and mat2 shapes cannot be multiplied \(\d+x\d+ and (\d+)x"),
    re.compile(r"Given normalized_shape=\[(\d+)\]"),
    re.compile(r"to have (\d+) channels"),
    re.compile(r"expects (\d+)"),
    re.compile(r"size of tensor a \(\d+\) must match the size of tensor b \((\d+)\)"),
)


def _calls_as_told(model: nn.Module, errors: list[str]) -> Iterator[list[Call]]:
    """Calls with the numbers of features that the errors so far ask for, and of the dimensions that are documented."""
    found = [int(match[1]) for error in errors for pattern in _WANTED if (match := pattern.search(error))]
    widths = list(dict.fromkeys(found))
    if widths:
        yield from calls_of(model, widths)
    yield from calls_of(model, widths, as_documented=True)


def _error(model: nn.Module, calls: list[Call]) -> str | None:
    try:
        with torch.no_grad():
            return None if outputs(model, calls) else "gives no floating-point number"
    except Exception as error:
        return _one_line(error)


def _one_line(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]} ({Path(place.filename).name}:{place.lineno})"


class Variant(NamedTuple):
    """A way to make a configuration small; see `small_config`."""

    fields: dict[str, Any]
    rules: Rules = RULES
    lists: bool = False
    missing: bool = False
    divisor: int = 1


LARGE, LARGEST = 30_000_000, 120_000_000
# Models that allow no grouping of keys and values, or whose widths hang together in ways of their own.
VARIANTS = (
    Variant({}),
    Variant({"*num_key_value_heads": HEADS}),
    Variant({"*head_dim": HEAD_DIM}),
    Variant({"mrope_section": True}),
    Variant({"mrope_section": True, "*num_key_value_heads": HEADS}),
    Variant({}, missing=True),
    Variant({}, lists=True),
    Variant({}, lists=True, missing=True),
    Variant({}, COUNTS, lists=True),
    Variant({}, COUNTS),
    Variant({}, COUNTS, lists=True, divisor=8),
    Variant({}, COUNTS, divisor=8),
    Variant({}, COUNTS, lists=True, missing=True, divisor=8),
)
