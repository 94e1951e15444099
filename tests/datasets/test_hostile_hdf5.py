"""HDF5 files that would have offrl read what their maker chose."""

import os

import numpy as np
import pytest

from offrl.datasets import convert
from offrl.errors import DatasetError

h5py = pytest.importorskip("h5py")

SECRET = b"the contents of a file that is nobody's business"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def hostile(tmp_path):
    """A d3rlpy file of one episode, whose observations a test replaces."""
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as file:
        file["columns"] = [b"observations", b"actions", b"rewards", b"terminated"]
        file["num_episodes"], file["version"] = 1, "2.1"
        file["actions_0"] = np.zeros((len(SECRET), 1), np.int32)
        file["rewards_0"] = np.zeros((len(SECRET), 1), np.float32)
        file["terminated_0"] = True
    return path


def refused(path, what):
    target = path.parent / "out"
    with pytest.raises(DatasetError, match=what):
        convert(path, target, "frames", progress=False)
    assert not target.exists()


def test_data_in_another_file_is_not_read(hostile, secret):
    with h5py.File(hostile, "a") as file:
        file.create_dataset("observations_0", (len(SECRET), 1), np.uint8, external=[(str(secret), 0, len(SECRET))])
    refused(hostile, "/observations_0 has its data in another file")


def test_a_virtual_dataset_is_not_read(hostile, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = np.zeros((len(SECRET), 1), np.float32)
    layout = h5py.VirtualLayout((len(SECRET), 1), np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "data", (len(SECRET), 1))
    with h5py.File(hostile, "a") as file:
        file.create_virtual_dataset("observations_0", layout)
    refused(hostile, "/observations_0 has its data in another file")


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_a_link_is_not_followed_even_to_a_pipe(hostile, tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    with h5py.File(hostile, "a") as file:
        link = h5py.ExternalLink(str(tmp_path / "pipe"), "/data") if kind == "external" else h5py.SoftLink("/rewards_0")
        file["observations_0"] = link
    refused(hostile, "/observations_0 is a link")


def test_what_is_hidden_in_a_group_is_found_and_a_group_in_itself_ends(hostile, secret):
    with h5py.File(hostile, "a") as file:
        inner = file.create_group("inner")
        inner["itself"] = inner
        inner.create_dataset("data", (len(SECRET),), np.uint8, external=[(str(secret), 0, len(SECRET))])
    refused(hostile, "/inner/data has its data in another file|/inner/itself/data has its data in another file")


def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "log.h5")
    refused(tmp_path / "log.h5", "is not a directory")


def test_minaris_door_is_guarded_too(tmp_path, secret):
    pytest.importorskip("minari")
    directory = tmp_path / "log-v0" / "data"
    directory.mkdir(parents=True)
    (directory / "metadata.json").write_text('{"observation_space": "x", "action_space": "y"}')
    with h5py.File(directory / "main_data.hdf5", "w") as file:
        file.create_group("episode_0").create_dataset(
            "observations", (len(SECRET),), np.uint8, external=[(str(secret), 0, len(SECRET))]
        )
    with pytest.raises(DatasetError, match="/episode_0/observations has its data in another file"):
        convert(directory.parent, tmp_path / "out", "frames", progress=False)
