"""Cards of a dataset, for the page of a run and for the dataset's own."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets.summary import DatasetSummary, sample_stacks
from offrl.replay._windows import episode_bounds
from offrl.replay.store import FrameStore
from offrl.report._charts import histogram
from offrl.report._markup import NOTHING, Markup, data_uri, element, join, note, row, section
from offrl.report._record import Record

_NUM_SAMPLES = 4
_NUM_STEPS = 8  # of an episode's beginning, and of its end
_MOST_FEATURES = 8  # of a vector


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
    warnings = [note(line, "note warning") for line in summary.warnings]
    cards = (counts_card(summary, *warnings), returns_card(summary), actions_card(summary), samples_card(store))
    return section("Dataset", element("div", *cards, class_="grid-two"))


def counts_card(summary: DatasetSummary, *notes: Markup) -> Markup:
    """How much there is, in figures; and notes below."""
    mean = summary.mean_return
    interval = {} if mean.low is None else {"its 95 % interval": mean.bounds(summary.num_episodes, form=",.1f")}
    rows = {
        "transitions": f"{summary.num_transitions:,}",
        "frames": f"{summary.num_frames:,}",
        "episodes": f"{summary.num_episodes:,}",
        "ended by the task": f"{summary.num_terminated:,}",
        "cut short": f"{summary.num_truncated:,}",
        "mean length": f"{summary.lengths.mean():,.1f} steps",
        "mean return": f"{mean.mean:,.1f}",
        **interval,
        "median return": f"{np.median(summary.returns):,.1f}",
        "best return": f"{summary.returns.max():,.1f}",
    }
    return _card("What is in it", _table(rows), *notes)


def returns_card(summary: DatasetSummary) -> Markup:
    """The episodes by return."""
    chart = histogram(summary.returns, "How many episodes had which return", "return of an episode")
    return _card("Episodes by return", chart, note("The dashed line is the mean."))


def lengths_card(summary: DatasetSummary) -> Markup:
    """The episodes by length."""
    chart = histogram(summary.lengths, "How many episodes had which length", "steps of an episode")
    return _card("Episodes by length", chart, note("The dashed line is the mean."))


def rewards_card(store: FrameStore) -> Markup:
    """The steps by reward."""
    rewards = np.asarray(store.rewards, dtype=np.float64)
    chart = histogram(rewards, "How many steps had which reward", "reward of a step", log_counts=True)
    zero, above = float(np.mean(rewards == 0)), float(np.mean(rewards > 0))
    words = (
        f"{rewards.min():.4g} to {rewards.max():.4g}, mean {rewards.mean():.3g}: {100 * above:.1f} % over 0, "
        f"{100 * (1 - zero - above):.1f} % under 0. The counts stand on a logarithmic scale."
    )
    return _card("Steps by reward", chart, note(words))


def actions_card(summary: DatasetSummary) -> Markup:
    """How often each action was taken, by name."""
    shares = summary.action_counts / summary.num_transitions
    return _card("Share of each action", _share_bars(summary.action_names, shares.tolist()))


def drawn_card(summary: DatasetSummary) -> Markup:
    """What a sampling strategy draws, where one was asked for."""
    drawn = summary.drawn
    if drawn is None:
        return NOTHING
    about = (
        f"From {drawn.share:.1%} of the transitions, as varied as {drawn.effective:,.0f} drawn equally often; mean "
        f"return of their episodes {drawn.mean_return:,.1f}."
    )
    bars = _share_bars(summary.action_names, drawn.action_shares.tolist())
    return _card(f"Share of each action, drawn by {drawn.sampling}", bars, note(about))


def _share_bars(names: Sequence[str], shares: Sequence[float]) -> Markup:
    most = max(shares) or 1
    cells = []
    for name, share in zip(names, shares, strict=True):
        filled = element("div", class_="filled", style=f"width:{100 * share / most:.1f}%")
        text = f"{100 * share:.1f} %" if share else "never"
        cells += [element("div", name), element("div", filled, class_="track"), element("div", text, class_="share")]
    return element("div", *cells, class_="actions")


def samples_card(store: FrameStore) -> Markup:
    """Some stacks with what was done."""
    if not store.spec.is_pixels:
        return NOTHING
    figures = []
    for stack, action in zip(*sample_stacks(store, _NUM_SAMPLES, seed=0), strict=True):
        words = store.spec.action_names[action]
        figures.append(_picture(np.hstack(stack), f"frames before: {words}", element("figcaption", words)))
    title = "What a policy sees, oldest frame left, and what was done"
    return _card(title, element("div", *figures, class_="grid-two"))


def episode_card(summary: DatasetSummary, store: FrameStore) -> Markup:
    """The beginning and the end of the episode of median return, step by step, and what it led to."""
    median = int(np.argsort(summary.returns, kind="stable")[len(summary.returns) // 2])
    bounds = episode_bounds(store.segment_end)
    first, last = int(bounds.first[median]), int(bounds.last[median])
    num_steps = last - first + 1
    begun, ending = range(first, min(first + _NUM_STEPS, last + 1)), range(max(last + 1 - _NUM_STEPS, first), last + 1)
    parts = (begun, ending) if num_steps > 2 * _NUM_STEPS else (range(first, last + 1),)
    end = "terminated" if store.terminated[last] else "cut"
    show = _frames if store.spec.is_pixels else _vectors
    about = f"Episode {median:,}: {num_steps:,} steps, return {summary.returns[median]:,.1f}, {end} at the end."
    shown = show(store, [[*part] for part in parts], first, f"then: {end}")
    return _card("An episode, its beginning and its end", shown, note(about))


def _frames(store: FrameStore, parts: Sequence[Sequence[int]], first: int, end: str) -> Markup:
    strips = []
    for rows in parts:
        figures = []
        for at in rows:
            words = f"{at - first}: {store.spec.action_names[store.actions[at]]}"
            caption = element("figcaption", words, element("br"), f"reward {store.rewards[at]:+.3g}")
            figures.append(_picture(_planes(_frame(store, store.last[at])), f"step {at - first}", caption))
        strips.append(figures)
    last = _frame(store, store.next_last[parts[-1][-1]])
    strips[-1].append(_picture(_planes(last), end, element("figcaption", end)))
    return join(element("div", *figures, class_="strip") for figures in strips)


def _frame(store: FrameStore, index: int) -> NDArray[Any]:
    frame: NDArray[Any] = store.frames_between(index, index + 1)[0]
    return frame


def _planes(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame as one gray picture: its channels side by side, where it has several."""
    return frame if frame.ndim == 2 else np.hstack(list(frame))


def _vectors(store: FrameStore, parts: Sequence[Sequence[int]], first: int, end: str) -> Markup:
    rows = [at for part in parts for at in part]
    shown = min(store.frames.shape[1], _MOST_FEATURES)
    features = [f"feature {index}" for index in range(shown)]
    heads = [element("th", name, class_="number") for name in (*features, "action", "reward")]
    body = []
    for at in rows:
        values = [f"{value:.3g}" for value in _frame(store, store.last[at])[:shown]]
        did = store.spec.action_names[store.actions[at]]
        body.append(row(str(at - first), [*values, did, f"{store.rewards[at]:+.3g}"]))
    led_to = [f"{value:.3g}" for value in _frame(store, store.next_last[rows[-1]])[:shown]]
    body.append(row(end, [*led_to, "", ""]))
    table = element("table", element("thead", element("tr", element("th", "step"), *heads)), element("tbody", *body))
    return element("div", table, class_="scroll")


def _card(title: str, *children: str) -> Markup:
    return element("div", element("h3", title), *children, class_="card")


def _table(rows: dict[str, str]) -> Markup:
    return element("table", element("tbody", *(row(name, [value]) for name, value in rows.items())))


def _picture(image: NDArray[np.uint8], words: str, caption: Markup) -> Markup:
    picture = element("img", src=data_uri(_gray_png(image), "image/png"), alt=words)
    return element("figure", picture, caption, class_="stack")


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
