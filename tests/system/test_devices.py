"""The switch for TF32 is the whole process's, also where no GPU is there to see it."""

import pytest
import torch

from offrl.system.devices import exact_convolutions


@pytest.mark.parametrize("before", [True, False])
def test_whoever_leaves_last_turns_it_back(monkeypatch, before):
    """Training enters, an evaluation in another thread enters, training leaves: the evaluation stays exact."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    training, evaluation = (exact_convolutions(torch.device("cuda")) for _ in range(2))
    training.__enter__()
    evaluation.__enter__()
    training.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    evaluation.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_cpu_has_nothing_to_turn():
    with exact_convolutions(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32
