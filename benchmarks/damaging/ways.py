"""Ways to damage a file, as disks, networks, editors and hurried people do it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Damage = Callable[[np.random.Generator, bytes], bytes]

SWAP = "another's file in its place"
DIGITS = "a digit changed"


def flip(rng: np.random.Generator, content: bytes) -> bytes:
    """One to four bits are the other way round."""
    damaged = bytearray(content)
    for at in rng.integers(len(content), size=rng.integers(1, 5)):
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def overwrite(rng: np.random.Generator, content: bytes) -> bytes:
    """Up to 64 bytes in a row are noise."""
    at, size = int(rng.integers(len(content))), int(rng.integers(1, 65))
    return (content[:at] + rng.bytes(size) + content[at + size :])[: len(content)]


def zero(rng: np.random.Generator, content: bytes) -> bytes:
    """A sector, or a smaller block, is zeros."""
    size = int(rng.choice([16, 512, 4096]))
    at = int(rng.integers(len(content))) // size * size
    return (content[:at] + bytes(size) + content[at + size :])[: len(content)]


def truncate(rng: np.random.Generator, content: bytes) -> bytes:
    """It is cut short anywhere, or just before its end."""
    end = rng.integers(len(content)) if rng.random() < 0.7 else len(content) - rng.integers(1, min(9, len(content) + 1))
    return content[: int(end)]


def append(rng: np.random.Generator, content: bytes) -> bytes:
    """Noise, zeros, spaces or its own end follow it."""
    size = int(rng.integers(1, 300))
    return content + (rng.bytes(size), bytes(size), b" \n" * size, content[-size:])[rng.integers(4)]


def change_digit(rng: np.random.Generator, content: bytes) -> bytes:
    """Of one number of a text, a digit is another."""
    places = [at for at, byte in enumerate(content) if byte in b"0123456789"]
    at = int(rng.choice(places))
    digit = str((int(content[at : at + 1]) + int(rng.integers(1, 10))) % 10).encode()
    return content[:at] + digit + content[at + 1 :]


WAYS: dict[str, Damage] = {
    "bits flipped": flip,
    "bytes overwritten": overwrite,
    "a block of zeros": zero,
    "cut short": truncate,
    "bytes appended": append,
    DIGITS: change_digit,
}
