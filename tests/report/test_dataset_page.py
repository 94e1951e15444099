import base64
import re

import numpy as np
import pytest
from parsed_page import Page
from test_dataset import decoded

from offrl import TaskSpec
from offrl.datasets import References, inspect_dataset
from offrl.replay import ingest
from offrl.report import write_dataset_page
from offrl.shards import Episode, Manifest, write_shard

NAMES = ("left", "<right>")


def save(folder, episodes, spec):
    Manifest(spec, (write_shard(folder / "a.npz", episodes),), {"id": "game"}, {"name": "test"}).save(folder)
    return ingest(folder, progress=False)


def frames_of(steps, seed=0):
    return np.random.default_rng(seed).integers(256, size=(steps + 1, 3, 5), dtype=np.uint8)


@pytest.fixture
def store(tmp_path):
    """Two episodes of frames, of 20 and 8 steps; the second is the one of median return."""
    rewards = np.array([1, -1] * 10, np.float32)
    long = Episode(frames_of(20), np.arange(20) % 2, rewards, True, False)
    short = Episode(frames_of(8, seed=1), np.zeros(8, np.int64), np.full(8, 0.5, np.float32), False, True)
    return save(tmp_path / "data", [long, short], TaskSpec.pixels((2, 3, 5), NAMES))


def test_a_sound_dataset_on_a_page(store, tmp_path):
    path = write_dataset_page(store, tmp_path / "page.html", title="data & more")
    shown = Page(path)
    assert path == tmp_path / "page.html"
    for words in (
        "data & more: dataset data & more A dataset of stacks of 2 frames of 3 x 5 pixels, 2 actions; frames layout",
        "Transitions 28 over 30 frames Episodes 2 14 steps on average",
        "Mean return 2.0 2 episodes: too few for an interval",
        "Actions 2 all occur",
        "Nothing looks wrong Looked for: inverted or missing ends,",
        "transitions 28 frames 30 episodes 2 ended by the task 1 cut short 1",
        "-1 to 1, mean 0.143: 64.3 % over 0, 35.7 % under 0.",
        "left 64.3 % <right> 35.7 %",
        "Episode 1: 8 steps, return 4.0, cut at the end.",
        "0: left reward +0.5 1: left",
        "7: left reward +0.5 then: cut",
    ):
        assert words in shown.text
    assert 'class="card problem"' not in shown.source


def test_what_is_known_of_quality_and_coverage_is_on_the_page(store, tmp_path):
    def words(references):
        summary = inspect_dataset(store, references=references)
        return Page(write_dataset_page(store, tmp_path / "page.html", title="data", summary=summary)).text

    both = words(References(random_return=-2.0, best_return=6.0, num_pairs=56))
    assert "Trajectory quality (TQ) 0.50 0: random, -2.0; 1: the best online policy, 6.0" in both
    assert "State-action coverage (SACo) 0.50 28 unique pairs, of the replay dataset's 56" in both
    assert "BC needs a high TQ" in both
    neither = words(References())
    assert "State-action pairs 28 unique" in neither
    assert "TQ" not in neither


def test_the_episode_is_shown_in_its_order(store, tmp_path):
    page = write_dataset_page(store, tmp_path / "page.html", title="data").read_text(encoding="utf-8")
    strip = page[page.index('class="strip"') :]
    pictures = [decoded(base64.b64decode(found)) for found in re.findall(r"data:image/png;base64,([\w+/=]+)", strip)]
    assert [picture.tolist() for picture in pictures] == frames_of(8, seed=1).tolist()


def test_of_a_long_episode_the_middle_is_left_out(tmp_path):
    episode = Episode(frames_of(40), np.arange(40) % 2, np.arange(40, dtype=np.float32), True, False)
    store = save(tmp_path / "data", [episode], TaskSpec.pixels((2, 3, 5), NAMES))
    shown = Page(write_dataset_page(store, tmp_path / "page.html", title="data"))
    steps = [int(step) for step in re.findall(r"(\d+): (?:left|<right>) reward", shown.text)]
    assert steps == [*range(8), *range(32, 40)]
    assert "39: <right> reward +39 then: terminated" in shown.text


def test_problems_come_first_with_what_they_mean_and_how_to_mend_them(tmp_path):
    episode = Episode(np.zeros((4, 3, 5), np.uint8), np.zeros(3, np.int64), np.ones(3, np.float32), True, False)
    store = save(tmp_path / "data", [episode], TaskSpec.pixels((2, 3, 5), NAMES))
    shown = Page(write_dataset_page(store, tmp_path / "page.html", title="data"))
    assert "Actions 2 1 never taken" in shown.text
    assert (
        "Health 1 of 2 actions never occur: <right> What they are worth is not in the data: the network's guesses "
        "about them are never corrected. To fix it: train BCQ or BC,"
    ) in shown.text
    assert shown.source.count('class="card problem"') == 2
    assert shown.text.index("never occur") < shown.text.index("one colour only") < shown.text.index("Transitions")


def test_vectors_are_shown_as_numbers(tmp_path):
    values = np.arange(8, dtype=np.float32).reshape(4, 2) / 4
    episode = Episode(values, np.array([0, 1, 0]), np.array([1, 0, 2], np.float32), True, False)
    store = save(tmp_path / "data", [episode], TaskSpec.vector(2, NAMES))
    shown = Page(write_dataset_page(store, tmp_path / "page.html", title="data"))
    assert "A dataset of vectors of 2, 2 actions" in shown.text
    assert (
        "step feature 0 feature 1 action reward 0 0 0.25 left +1 1 0.5 0.75 <right> +0 2 1 1.25 left +2 "
        "then: terminated 1.5 1.75"
    ) in shown.text
    assert "img" not in shown.tags


def test_the_page_asks_for_nothing_from_elsewhere_and_is_the_same_each_time(store, tmp_path):
    page = write_dataset_page(store, tmp_path / "page.html", title="data")
    shown = Page(page)
    assert all(address.startswith("data:") for address in shown.addresses)
    assert "script" not in shown.tags
    assert not re.search(r"@import|url\(|https?:", shown.source)
    assert write_dataset_page(store, tmp_path / "again.html", title="data").read_bytes() == page.read_bytes()
