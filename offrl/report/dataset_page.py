"""A dataset as one page, its health check first; and its cards, which the page of a run has, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets.coverage import READING, Measures
from offrl.datasets.summary import DatasetSummary, inspect_dataset, sample_stacks
from offrl.replay._windows import episode_bounds
from offrl.replay.store import FrameStore
from offrl.report._charts import histogram
from offrl.report._markup import (
    NOTHING,
    Markup,
    data_uri,
    element,
    fact,
    gray_png,
    join,
    note,
    row,
    section,
    write_document,
)
from offrl.report._record import Record
from offrl.shards.layouts import Problem
from offrl.spec import TaskSpec

_NUM_SAMPLES = 4
_NUM_STEPS = 8  # of an episode's beginning, and of its end
_MOST_FEATURES = 8  # of a vector
_LOOKED_FOR = (
    "Looked for: inverted or missing ends, time limits logged as ends, rewards one step off, rows out of order, stacks "
    "in a wrong order, actions that never occur, rewards that say nothing, frames of one colour, of another scale or "
    "repeated, episodes that lie there twice."
)


def write_dataset_page(
    store: FrameStore, path: str | Path, *, title: str, summary: DatasetSummary | None = None
) -> Path:
    """Writes a page about a dataset: what looks wrong and how to fix it, counts, distributions, samples.

    The page holds its pictures itself and asks for nothing from elsewhere. The same dataset gives the same bytes.

    Args:
        store: the dataset.
        path: the HTML file.
        title: what the dataset is called.
        summary: what `inspect_dataset` found, where that is at hand.

    Returns:
        The file's path.
    """
    path = Path(path)
    summary = inspect_dataset(store) if summary is None else summary
    write_document(
        path,
        f"{title}: dataset",
        element("header", element("h1", title), element("p", _about(store))),
        _health(summary),
        _facts(summary),
        note(f"{READING}.") if summary.measures is not None and summary.measures.is_complete else NOTHING,
        section(
            "Episodes",
            _grid(_counts_card(summary), _returns_card(summary), _lengths_card(summary), _rewards_card(store)),
        ),
        section(
            "Actions and observations",
            _grid(_actions_card(summary), _drawn_card(summary), _samples_card(store)),
            _episode_card(summary, store),
        ),
    )
    return path


def _about(store: FrameStore) -> str:
    shape = store.spec.observation_shape
    if store.spec.is_pixels:
        channels = f", {store.spec.channels} channels each" if store.spec.channels > 1 else ""
        seen = f"stacks of {store.spec.stack} frames of {shape[1]} x {shape[2]} pixels{channels}"
    else:
        seen = f"vectors of {shape[0]}"
    return f"A dataset of {seen}, {store.spec.num_actions} actions; {store.report.layout} layout"


def _facts(summary: DatasetSummary) -> Markup:
    mean = summary.mean_return
    bounds = mean.bounds(summary.num_episodes, form=",.1f")
    detail = bounds if mean.low is None else f"95 % interval {bounds}"
    num_unused = int((summary.action_counts == 0).sum())
    return element(
        "div",
        fact("Transitions", f"{summary.num_transitions:,}", f"over {summary.num_frames:,} frames"),
        fact("Episodes", f"{summary.num_episodes:,}", f"{summary.lengths.mean():,.0f} steps on average"),
        fact("Mean return", f"{mean.mean:,.1f}", detail),
        fact("Actions", f"{len(summary.action_counts)}", f"{num_unused} never taken" if num_unused else "all occur"),
        *_measures(summary.measures),
        class_="grid-cards",
    )


def _measures(measures: Measures | None) -> Iterator[Markup]:
    """TQ and SACo, as far as they are known."""
    if measures is None:
        return
    known = measures.references
    if measures.tq is not None:
        detail = f"0: random, {known.random_return:,.1f}; 1: the best online policy, {known.best_return:,.1f}"
        yield fact("Trajectory quality (TQ)", f"{measures.tq:.2f}", detail)
    if measures.saco is None:
        yield fact("State-action pairs", f"{measures.num_pairs:,}", "unique")
    else:
        detail = f"{measures.num_pairs:,} unique pairs, of the replay dataset's {known.num_pairs:,}"
        yield fact("State-action coverage (SACo)", f"{measures.saco:.2f}", detail)


def _health(summary: DatasetSummary) -> Markup:
    if not summary.problems:
        return section(
            "Health", element("div", element("h3", "Nothing looks wrong"), note(_LOOKED_FOR), class_="card sound")
        )
    return section("Health", *map(_problem, summary.problems), note(f"These are doubts, not verdicts. {_LOOKED_FOR}"))


def _problem(problem: Problem) -> Markup:
    hint = element("p", element("b", "To fix it: "), problem.hint)
    return element("div", element("h3", problem.what), element("p", problem.means), hint, class_="card problem")


def _grid(*cards: Markup) -> Markup:
    return element("div", *cards, class_="grid-two")


def _dataset_section(record: Record, summary: DatasetSummary | None, store: FrameStore | None) -> Markup:
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
    cards = (_counts_card(summary, *warnings), _returns_card(summary), _actions_card(summary), _samples_card(store))
    return section("Dataset", element("div", *cards, class_="grid-two"))


def _counts_card(summary: DatasetSummary, *notes: Markup) -> Markup:
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


def _returns_card(summary: DatasetSummary) -> Markup:
    """The episodes by return."""
    chart = histogram(summary.returns, "How many episodes had which return", "return of an episode")
    return _card("Episodes by return", chart, note("The dashed line is the mean."))


def _lengths_card(summary: DatasetSummary) -> Markup:
    """The episodes by length."""
    chart = histogram(summary.lengths, "How many episodes had which length", "steps of an episode")
    return _card("Episodes by length", chart, note("The dashed line is the mean."))


def _rewards_card(store: FrameStore) -> Markup:
    """The steps by reward."""
    rewards = np.asarray(store.rewards, dtype=np.float64)
    chart = histogram(rewards, "How many steps had which reward", "reward of a step", log_counts=True)
    zero, above = float(np.mean(rewards == 0)), float(np.mean(rewards > 0))
    words = (
        f"{rewards.min():.4g} to {rewards.max():.4g}, mean {rewards.mean():.3g}: {100 * above:.1f} % over 0, "
        f"{100 * (1 - zero - above):.1f} % under 0. The counts stand on a logarithmic scale."
    )
    return _card("Steps by reward", chart, note(words))


def _actions_card(summary: DatasetSummary) -> Markup:
    """How often each action was taken, by name."""
    shares = summary.action_counts / summary.num_transitions
    return _card("Share of each action", _share_bars(summary.action_names, shares.tolist()))


def _drawn_card(summary: DatasetSummary) -> Markup:
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


def _samples_card(store: FrameStore) -> Markup:
    """Some stacks with what was done."""
    if not store.spec.is_pixels:
        return NOTHING
    figures = []
    for stack, action in zip(*sample_stacks(store, _NUM_SAMPLES, seed=0), strict=True):
        words = store.spec.action_names[action]
        figures.append(_picture(np.hstack(stack), f"frames before: {words}", element("figcaption", words)))
    title = "What a policy sees, oldest frame left, and what was done"
    return _card(title, element("div", *figures, class_="grid-two"))


def _episode_card(summary: DatasetSummary, store: FrameStore) -> Markup:
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
    features = [_feature(store.spec, index) for index in range(shown)]
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


def _feature(spec: TaskSpec, index: int) -> str:
    return spec.feature(index) if spec.feature_names else f"feature {index}"


def _card(title: str, *children: str) -> Markup:
    return element("div", element("h3", title), *children, class_="card")


def _table(rows: dict[str, str]) -> Markup:
    return element("table", element("tbody", *(row(name, [value]) for name, value in rows.items())))


def _picture(image: NDArray[np.uint8], words: str, caption: Markup) -> Markup:
    picture = element("img", src=data_uri(gray_png(image), "image/png"), alt=words)
    return element("figure", picture, caption, class_="stack")
