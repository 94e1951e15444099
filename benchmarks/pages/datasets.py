"""The standard datasets on the pages."""

from __future__ import annotations

from benchmarks.pages.kept import interval_text, kept, missing, table
from offrl.collection import RECIPES

CARD_PLOTS = {
    "returns": "Histogram of the returns",
    "actions": "Use of each action",
    "samples": "Stacks of frames and their actions",
}


def dataset_cards() -> str:
    """What is in each standard dataset, with pictures."""
    parts = []
    for name, recipe in RECIPES.items():
        folder = name.replace("/", "-")
        parts.append(f"### {name}\n\n{recipe.description.capitalize()}.")
        card = kept(f"datasets/{folder}/card.json")
        if card is None:
            parts.append(missing(f"datasets {name}"))
            continue
        bounds = interval_text((card["mean"]["low"], card["mean"]["high"]), card["episodes"], form=".0f")
        parts.append(
            f"Mean return **{card['mean']['mean']:.0f}** ({bounds}), median {card['median']:.0f}, "
            f"{card['share_over_900']:.0%} of the episodes over 900; {card['episodes']} episodes, "
            f"{card['transitions']:,} transitions, {card['terminated']} terminated and {card['truncated']} truncated. "
            f"`{card['command']}`."
        )
        parts += [f"![{text} of {name}](benchmarks/datasets/{folder}/{plot}.png)" for plot, text in CARD_PLOTS.items()]
    return "\n\n".join(parts)


def recipes() -> str:
    """The standard datasets in a table."""
    rows = []
    for name, recipe in RECIPES.items():
        card = kept(f"datasets/{name.replace('/', '-')}/card.json")
        figures = (f"{card['mean']['mean']:.0f}", f"{card['share_over_900']:.0%}") if card else ("", "")
        rows.append((f"`{name}`", recipe.description, *figures))
    return table(("name", "what plays", "mean return", "episodes over 900"), rows)
