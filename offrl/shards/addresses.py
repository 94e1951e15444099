"""Addresses of data that lies elsewhere, such as s3://bucket/folder."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

_WITH_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")


def is_remote(source: Path | str) -> bool:
    """Whether this is the address of a dataset elsewhere, not a path."""
    return isinstance(source, str) and re.match(r"[a-zA-Z][\w+.-]*(://|::)", source) is not None


def redacted(source: Path | str) -> str:
    """An address without credentials, query and fragment, for records and messages; a path as it is."""
    if not is_remote(source):
        return str(source)
    return "::".join(_split(part)[0] for part in str(source).split("::"))


def _split(url: str) -> tuple[str, list[str]]:
    """What may be shown of an address, and what must not."""
    scheme, separator, rest = url.partition("://")
    # user:secret@, whatever is in the secret; but no port, and none of Azure's container@account.
    found = re.match(r"[^/@]*:(?!\d+(?:/|$)).*@", rest) or re.match(r"[^/@?#]*@", rest)
    user = found[0] if found and scheme not in _WITH_CONTAINERS else ""
    path, *hidden = re.split(r"[?#]", rest.removeprefix(user), maxsplit=1)
    secrets = [user.rstrip("@"), *user.rstrip("@").split(":")[1:], *hidden, *re.split(r"[?#&=]", "".join(hidden))]
    secrets += [unquote(secret) for secret in secrets]
    return f"{scheme}{separator}{path}".rstrip("/"), [secret for secret in secrets if len(secret) > 3]
