"""Adapter directories of modules that hold more than an adapted backbone.

PEFT's layout has a place for heads in the model that is adapted. What trains beside that model goes into a file of its
own in the directory, by its names in the module, and so do the names of a classifier's classes; `peft` and
`load_adapters` don't look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asym_lightning.adapters import load_adapters, save_adapters
from asym_lightning.core.files import atomic_file
from asym_lightning.core.messages import listed
from asym_lightning.core.names import load_plain_state, plain_state, prefix_of
from asym_lightning.lifecycle.label_names import HasLabelNames, save_label_names

OUTSIDE_FILE = "outside_backbone.safetensors"


def save_with_outside(
    module: nn.Module,
    backbone: nn.Module,
    state: Mapping[str, Tensor],
    directory: Path,
    *,
    include_frozen: bool = True,
    writes_whole: bool = True,
) -> None:
    """Write the adapter of a module's backbone, what was trained outside it, and the names of its classes.

    Args:
        module: The module.
        backbone: Its adapted part, or itself.
        state: What was trained, by its names in the module.
        directory: Where to write.
        include_frozen: As for `save_adapters`.
        writes_whole: Whether the state has the backbone's tensors whole; False takes them from the backbone, together
            with all other processes.
    """
    prefix = prefix_of(backbone, module)
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    save_adapters(backbone, directory, include_frozen=include_frozen, state=inside if writes_whole else None)
    outside = {n: t.cpu().contiguous().clone() for n, t in state.items() if _is_outside(n, t, prefix)}
    if outside and writes_whole:
        with atomic_file(directory / OUTSIDE_FILE) as staging:
            save_file(outside, staging)
    if isinstance(module, HasLabelNames) and directory.is_dir():  # which one process of several has made
        save_label_names(module.label_names, directory)


def load_with_outside(
    module: nn.Module, backbone: nn.Module, trained: Mapping[str, nn.Parameter], directory: str | Path
) -> None:
    """Load what :func:`save_with_outside` wrote.

    Args:
        module: The module, adapted.
        backbone: Its adapted part, or itself.
        trained: What has to be there outside the backbone, by its names in the module.
        directory: The directory.

    Raises:
        ValueError: It lacks something that was trained outside the backbone, or has something that the module lacks.
    """
    prefix = prefix_of(backbone, module)
    path = Path(directory, OUTSIDE_FILE)
    outside = load_file(path) if path.is_file() else {}
    lacking = [f"`{name}`" for name in trained if not name.startswith(prefix) and name not in outside]
    if lacking:
        raise ValueError(
            f"`{directory}` lacks {listed(lacking, 3)}, which the module trains outside its backbone: load the `.ckpt` "
            "file beside it."
        )
    own = plain_state(module)
    for name, tensor in outside.items():
        if name not in own or own[name].shape != tensor.shape:
            here = tuple(own[name].shape) if name in own else "no such tensor"
            raise ValueError(f"`{path}` holds `{name}` {tuple(tensor.shape)}, the module has {here}.")
    load_adapters(backbone, directory)
    load_plain_state(module, outside)


def _is_outside(name: str, value: object, prefix: str) -> bool:
    return bool(prefix) and not name.startswith(prefix) and isinstance(value, Tensor)
