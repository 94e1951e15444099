"""A dataset as one page, its health check first."""

from __future__ import annotations

from pathlib import Path

from offrl.datasets.summary import DatasetSummary, inspect_dataset
from offrl.replay.store import FrameStore
from offrl.report._dataset import (
    actions_card,
    counts_card,
    drawn_card,
    episode_card,
    lengths_card,
    returns_card,
    rewards_card,
    samples_card,
)
from offrl.report._markup import Markup, element, fact, note, section, write_document
from offrl.shards.layouts import Problem

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
        section(
            "Episodes",
            _grid(counts_card(summary), returns_card(summary), lengths_card(summary), rewards_card(store)),
        ),
        section(
            "Actions and observations",
            _grid(actions_card(summary), drawn_card(summary), samples_card(store)),
            episode_card(summary, store),
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
        class_="grid-cards",
    )


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
