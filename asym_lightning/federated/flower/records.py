"""Weights in Flower's records: one safetensors file, never a pickle."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, RecordDict

KEY, KIND = "weights", "safetensors"


def record_of(weights: bytes) -> ArrayRecord:
    """A safetensors file as a record."""
    return ArrayRecord({KEY: Array(dtype="uint8", shape=(len(weights),), stype=KIND, data=weights)})


def weights_of(arrays: ArrayRecord) -> bytes:
    """Undo :func:`record_of`.

    Raises:
        ValueError: It holds something else.
    """
    if list(arrays) != [KEY] or arrays[KEY].stype != KIND:
        raise ValueError(f"A message brings no {KIND} file of weights.")
    return arrays[KEY].data


def array_record(content: RecordDict) -> ArrayRecord:
    """The one record of weights of a message.

    Raises:
        ValueError: There is none, or several.
    """
    records = list(content.array_records.values())
    if len(records) != 1:
        raise ValueError(f"A message brings {len(records)} records of weights, not one.")
    return records[0]
