"""Pretrained weights in safetensors files, read a part of one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

INDEX_FILE, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class PretrainedWeights:
    """Where each tensor is.

    Attributes:
        source: What the user calls it.
        files: The file of each tensor, by its name there.
        keeps_heads: Whether heads in the files are read, where they fit, or always start anew.
    """

    source: str
    files: Mapping[str, Path]
    keeps_heads: bool = True

    @classmethod
    def of(cls, source: str, *, keeps_heads: bool = True) -> PretrainedWeights:
        """Find the files of a local folder, or of a repository on the hub, which is downloaded.

        Raises:
            ValueError: There are no safetensors files, or the index names one that is not there.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = Path(snapshot_download(source, allow_patterns=[SINGLE_FILE, INDEX_FILE, "model-*.safetensors"]))
        if (folder / INDEX_FILE).is_file():
            files = {
                name: folder / file
                for name, file in json.loads((folder / INDEX_FILE).read_text())["weight_map"].items()
            }
        elif (folder / SINGLE_FILE).is_file():
            with safe_open(folder / SINGLE_FILE, framework="pt") as file:
                files = dict.fromkeys(file.keys(), folder / SINGLE_FILE)
        else:
            raise ValueError(
                f"the backbone {source!r} holds neither {SINGLE_FILE} nor {INDEX_FILE}, and only these can be "
                "read shard by shard: load it once and save it with `save_pretrained`."
            )
        missing = sorted({path.name for path in files.values() if not path.is_file()})
        if missing:
            raise ValueError(f"the backbone {source!r} lacks {', '.join(missing[:3])}, which its {INDEX_FILE} names.")
        return cls(source, files, keeps_heads)

    def find(self, name: str, model: nn.Module) -> str | None:
        """The name in the files of a model's tensor, or None.

        Files of a bare transformer lack the prefix that it has within a model with a head, such as `roberta.`, and the
        other way round.
        """
        prefix = f"{getattr(model, 'base_model_prefix', '')}."
        names = (name, name.removeprefix(prefix), f"{prefix}{name}")
        return next((candidate for candidate in names if candidate in self.files), None)

    def lacking(self, model: nn.Module) -> list[str]:
        """Names of the modules some of whose own parameters are in no file under any name."""
        places: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            places.setdefault(id(parameter), []).append(name)
        lacking = [names[0] for names in places.values() if not any(self.find(name, model) for name in names)]
        return sorted({name.rpartition(".")[0] for name in lacking})

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, by its name in the files."""
        with safe_open(self.files[name], framework="pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def read(self, name: str, shape: tuple[int, ...], start: int = 0, stop: int | None = None) -> Tensor:
        """Rows ``start`` to ``stop`` of a tensor, by its name in the files, copied.

        The file is opened for this alone: what is mapped counts as this process' memory while it is open.

        Raises:
            ValueError: The file is damaged, or the tensor has not that ``shape``.
        """
        try:
            with safe_open(self.files[name], framework="pt") as file:
                part = file.get_slice(name)
                found = tuple(part.get_shape())
                if found == shape:
                    return (part[start:stop] if found else file.get_tensor(name)).clone()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"`{self.files[name]}` is damaged or no safetensors file ({error}).") from error
        raise ValueError(
            f"the backbone {self.source!r} has `{name}` of shape {found} in its file, but the model has {shape}; "
            "load it without sharding, which may convert it."
        )
