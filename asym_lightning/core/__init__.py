"""The floor: what torch, Lightning and the file system ask of any module here; it knows nothing of adapters."""
