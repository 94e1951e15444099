"""A small dataset and a run on it."""

import pytest
from run_offrl import offrl, offrl_json


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cartpole") / "data"
    offrl("collect", "CartPole-v1", directory, "--transitions", 300, "--workers", 1, "--quiet")
    return directory


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    return offrl_json("train", data, "--updates", 6, "--run", run, "--set", "precision=fp32")
