"""What only a CUDA device runs; without one these are skipped."""

import copy
import math

import numpy as np
import pytest
import torch

from offrl import Batch, TaskSpec
from offrl.algorithms import DiscreteBCQ
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.errors import RunError
from offrl.networks import CompactEncoder
from offrl.replay import open_replay
from offrl.system.devices import exact_convolutions
from offrl.training import FitConfig, Learner, LearnerConfig, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SPEC = TaskSpec.pixels((4, 48, 48), ("left", "right", "stay"))
ROWS = 8


def batch_of(count, seed, reward=1.0):
    generator = torch.Generator().manual_seed(seed)
    rows = count * ROWS
    pixels = torch.randint(0, 256, (2, rows, *SPEC.observation_shape), dtype=torch.uint8, generator=generator)
    actions = torch.randint(0, 3, (rows,), generator=generator)
    discount, following = torch.full((rows,), 0.9), actions.flip(0)
    return Batch(pixels[0], actions, torch.full((rows,), reward), discount, pixels[1], next_action=following)


def trained(batches, kind=DiscreteBCQ, **settings):
    settings = {"precision": "fp32", "compile": "off", "average_decay": 0.9, "schedule": "cosine", **settings}
    algorithm = kind(SPEC, encoder=CompactEncoder, seed=0)
    learner = Learner(algorithm, LearnerConfig(**settings), total_updates=20, device="cuda")
    for batch in batches:
        learner.update(batch, len(batch.action) // ROWS)
    return learner


def assert_close(learner, other):
    for (name, tensor), expected in zip(learner.state_tensors().items(), other.state_tensors().values(), strict=True):
        torch.testing.assert_close(
            tensor, expected, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("settings", [{}, {"augment_shift": 2, "augment_brightness": 9}, {"target_period": 3}])
def test_replayed_updates_are_those_that_python_runs_one_by_one(settings):
    groups = [batch_of(4, seed) for seed in range(4)]
    singles = [single for group in groups for single in group.split(4)]
    graph = trained(groups, updates_per_graph=4, **settings)
    assert list(graph._graphs) == [4]
    assert_close(graph, trained(singles, updates_per_graph=0, **settings))
    assert graph.step == 16


@pytest.mark.parametrize("kind", [algorithm_class(name) for name in ALGORITHMS])
def test_every_algorithm_is_replayed_as_it_runs(kind):
    """REM's mixture among them, which is another one in every update."""
    groups = [batch_of(4, seed) for seed in range(3)]
    singles = [single for group in groups for single in group.split(4)]
    graph = trained(groups, kind, updates_per_graph=4)
    assert list(graph._graphs) == [4]
    assert_close(graph, trained(singles, kind, updates_per_graph=0))


def test_a_replayed_update_that_is_not_finite_changes_no_weight():
    learner = trained([batch_of(2, 0), batch_of(2, 1)], updates_per_graph=2)
    before = copy.deepcopy(learner.algorithm.encoder.state_dict())
    learner.update(batch_of(2, 2, reward=math.nan), 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.algorithm.encoder.state_dict().items())
    with pytest.raises(RunError, match="in 2 of the 6 updates"):
        learner.read_metrics()


def test_float32_is_exact():
    learner = trained([batch_of(1, 0)], updates_per_graph=0)
    convolution = learner.algorithm.encoder.network[0]
    inputs = torch.randn(8, 4, 48, 48, device="cuda")
    with exact_convolutions(learner.device):
        found = convolution(inputs)
    assert torch.backends.cudnn.allow_tf32  # only within it
    torch.testing.assert_close(
        found.double(), copy.deepcopy(convolution).double()(inputs.double()), rtol=1e-5, atol=1e-6
    )


def test_groups_of_several_sizes_have_graphs_of_their_own():
    sizes = (4, 4, 3, 4, 3, 1, 1)
    groups = [batch_of(size, seed) for seed, size in enumerate(sizes)]
    singles = [single for size, group in zip(sizes, groups, strict=True) for single in group.split(size)]
    graph = trained(groups, updates_per_graph=4)
    assert sorted(graph._graphs) == [1, 3, 4]
    assert_close(graph, trained(singles, updates_per_graph=0))


def test_a_loss_that_waits_for_the_device_runs_without_a_graph():
    class Waiting(DiscreteBCQ):
        def loss(self, batch):
            assert batch.reward.sum().item() == ROWS
            return super().loss(batch)

    algorithm = Waiting(SPEC, encoder=CompactEncoder, seed=0)
    config = LearnerConfig(precision="fp32", compile="off", updates_per_graph=2)
    learner = Learner(algorithm, config, total_updates=20, device="cuda")
    stream = torch.cuda.current_stream()
    with pytest.warns(UserWarning, match="it runs without"):
        learner.update(batch_of(2, 0), 2)
    assert torch.cuda.current_stream() == stream
    learner.update(batch_of(2, 1), 2)
    assert learner.step == 4


def test_a_resumed_run_goes_on_as_one_never_stopped_up_to_rounding():
    groups = [batch_of(4, seed) for seed in range(4)]
    first = trained(groups[:2], updates_per_graph=4)
    second = trained([], updates_per_graph=4)
    second.load_state(first.state_tensors(), first.state_values())
    for group in groups[2:]:
        second.update(group, 4)
    assert_close(second, trained(groups, updates_per_graph=4))


def test_a_compiled_loss_is_the_eager_one():
    batches = [batch_of(1, seed) for seed in range(6)]
    compiled = trained(batches, compile="on")
    assert compiled.compile == "on"
    assert_close(compiled, trained(batches))


def test_an_optimiser_that_cannot_stay_on_the_device_runs_without_graphs():
    learner = trained([batch_of(2, 0), batch_of(2, 1)], optimizer="RMSprop", updates_per_graph=2)
    assert not learner._graphs


def test_a_run_from_frames_on_the_device_equals_one_from_memory(tmp_path):
    rng = np.random.default_rng(0)
    rows = 300
    frames = rng.integers(0, 256, (rows + 1, 4, 48, 48), dtype=np.uint8)
    np.savez(
        tmp_path / "log.npz",
        states=frames[:-1],
        next_states=frames[1:],
        actions=rng.integers(0, 3, rows),
        rewards=rng.normal(size=rows).astype(np.float32),
        dones=np.arange(rows) % 50 == 49,
    )

    def train(name, tier):
        replay = open_replay(tmp_path, tier=tier, n_step=3, progress=False)
        algorithm = DiscreteBCQ(replay.spec, encoder=CompactEncoder, seed=0)
        config = FitConfig(updates=40, batch_size=ROWS, log_period=20, checkpoint_period=20)
        settings = LearnerConfig(precision="fp32", compile="off", updates_per_graph=5)
        return fit(algorithm, replay, config, learner=settings, run=tmp_path / name, loggers=[], device="cuda")

    on_device = train("device", "device")
    assert on_device._graphs
    assert_close(on_device, train("ram", "ram"))
