"""The hash of an ONNX file's own content, in its last metadata entry.

A protobuf file may be written in pieces: bytes that follow it add to its lists. So the entry with the hash is appended
to the file that it is the hash of, and can be checked without serialising anything again.
"""

from __future__ import annotations

import hashlib

import onnx

_SEALED, _SHA256, _FORMAT = "sealed", "content_sha256", "1"


def sealed(model: onnx.ModelProto) -> bytes:
    """The model as a file, with the hash of its content; a seal that it had goes."""
    kept = [entry for entry in model.metadata_props if entry.key not in (_SEALED, _SHA256)]
    model = _copy_with(model, [*kept, onnx.StringStringEntryProto(key=_SEALED, value=_FORMAT)])
    content: bytes = model.SerializeToString(deterministic=True)
    return content + _entry(hashlib.sha256(content).hexdigest())


def require_seal(content: bytes, model: onnx.ModelProto) -> bool:
    """Whether the file has a seal; raises ValueError where it has one and was changed since."""
    names = [entry.key for entry in model.metadata_props if entry.key in (_SEALED, _SHA256)]
    if not names:
        return False
    size = len(_entry("0" * 64))
    if content[-size:] != _entry(hashlib.sha256(content[:-size]).hexdigest()):
        raise ValueError(f"it was changed since it was written: its content and {_SHA256} differ")
    return True


def _copy_with(model: onnx.ModelProto, entries: list[onnx.StringStringEntryProto]) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.metadata_props[:]
    copied.metadata_props.extend(entries)
    return copied


def _entry(digest: str) -> bytes:
    entry: bytes = onnx.ModelProto(
        metadata_props=[onnx.StringStringEntryProto(key=_SHA256, value=digest)]
    ).SerializeToString(deterministic=True)
    return entry
