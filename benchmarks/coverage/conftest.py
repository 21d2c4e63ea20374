"""Fields of single types are those of a transformers that has all types: with an earlier one nothing here imports."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("transformers.models.uvdoc") else ["*.py"]
