"""What turns texts, sound and pictures into a model's inputs: by name, or from a local folder."""

from __future__ import annotations

from typing import Any

from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer

from asym_lightning.core.messages import first_line, shown

_AUTO_CLASSES: dict[str, Any] = {
    "tokenizer": AutoTokenizer,
    "feature_extractor": AutoFeatureExtractor,
    "processor": AutoProcessor,
}


def load_preprocessor(kind: str, source: str) -> Any:
    """Load what stands beside a model.

    Args:
        kind: `tokenizer`, `feature_extractor` or `processor`.
        source: Name on the hub or local folder.

    Raises:
        ImportError: If it needs a package that is not there, as SmolVLM's processor does.
        ValueError: If there is none.
    """
    what = kind.replace("_", " ")
    try:
        return _AUTO_CLASSES[kind].from_pretrained(source, trust_remote_code=False)
    except ImportError as error:
        raise ImportError(f"the {what} of {shown(source)} lacks a package: {first_line(error)[:200]}") from error
    except Exception as error:  # of any kind: what is in the folder goes straight into a constructor
        message = f"there is no {what} in {shown(source)}, on the hub or as a local folder: {first_line(error)[:120]}"
        raise ValueError(message) from error
