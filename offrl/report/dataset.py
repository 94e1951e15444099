"""The report's card of a dataset."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from offrl.replay.inspect import DatasetSummary, sample_stacks
from offrl.replay.store import FrameStore
from offrl.report.charts import histogram
from offrl.report.markup import NOTHING, Markup, data_uri, element, note, row, section
from offrl.report.record import Record

_NUM_SAMPLES = 4


def dataset_section(record: Record, summary: DatasetSummary | None, store: FrameStore | None) -> Markup:
    """What the run was trained on; or its pictures, where the dataset is not at hand."""
    if summary is None or store is None:
        sheets = [
            element("div", element("img", src=data_uri(path.read_bytes(), "image/png"), alt=path.stem), class_="card")
            for path in record.dataset_plots
        ]
        if not sheets:
            return NOTHING
        return section("Dataset", element("div", *sheets, class_="grid-two sheet"))
    rows = {
        "transitions": f"{summary.num_transitions:,}",
        "frames": f"{summary.num_frames:,}",
        "episodes": f"{summary.num_episodes:,}",
        "ended by the task": f"{summary.num_terminated:,}",
        "cut short": f"{summary.num_truncated:,}",
        "mean length": f"{summary.lengths.mean():,.1f} steps",
        "mean return": str(summary.mean_return),
        "median return": f"{np.median(summary.returns):,.1f}",
        "best return": f"{summary.returns.max():,.1f}",
    }
    table = element("table", element("tbody", *(row(name, [value]) for name, value in rows.items())))
    warnings = [note(line, "note warning") for line in summary.warnings]
    returns = histogram(summary.returns, "How many episodes had which return", "return of an episode")
    key = "The dashed line is the mean."
    return section(
        "Dataset",
        element(
            "div",
            element("div", element("h3", "What is in it"), table, *warnings, class_="card"),
            element("div", element("h3", "Episodes by return"), returns, note(key), class_="card"),
            element("div", element("h3", "Share of each action"), _actions(summary), class_="card"),
            _samples(store),
            class_="grid-two",
        ),
    )


def _actions(summary: DatasetSummary) -> Markup:
    most = max(int(summary.action_counts.max()), 1)
    cells = []
    for name, count in zip(summary.action_names, summary.action_counts, strict=True):
        filled = element("div", class_="filled", style=f"width:{100 * count / most:.1f}%")
        share = f"{100 * count / summary.num_transitions:.1f} %" if count else "never"
        cells += [element("div", name), element("div", filled, class_="track"), element("div", share, class_="share")]
    return element("div", *cells, class_="actions")


def _samples(store: FrameStore) -> Markup:
    if not store.spec.is_pixels:
        return NOTHING
    figures = []
    for stack, action in zip(*sample_stacks(store, _NUM_SAMPLES, seed=0), strict=True):
        words = store.spec.action_names[action]
        image = element("img", src=data_uri(_gray_png(np.hstack(stack)), "image/png"), alt=f"frames before: {words}")
        figures.append(element("figure", image, element("figcaption", words), class_="stack"))
    title = element("h3", "What a policy sees, oldest frame left, and what was done")
    return element("div", title, element("div", *figures, class_="grid-two"), class_="card")


def _gray_png(image: NDArray[np.uint8]) -> bytes:
    """A gray picture [H, W] as PNG (ISO/IEC 15948): too little to need an imaging library."""
    height, width = image.shape
    lines = np.hstack([np.zeros((height, 1), np.uint8), image]).tobytes()  # each line begins with its filter: none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(lines, 9),
        b"IEND": b"",
    }
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
