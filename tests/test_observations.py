"""The shapes of observations that the field has, through every path: play, ingest, gather, encoders, train, export."""

from dataclasses import dataclass, replace
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import offrl
from offrl.collection import collect
from offrl.envs import FrameStack, GrayStack, RandomBehaviour, task_spec
from offrl.networks import (
    CompactEncoder,
    ImpalaEncoder,
    MinAtarEncoder,
    MLPEncoder,
    NatureEncoder,
    ResidualEncoder,
    default_encoder,
)
from offrl.policies import verify_onnx
from offrl.shards import Manifest, write_dataset

LENGTH = 5  # steps of an episode


@dataclass(frozen=True)
class Kind:
    """One kind of observation: what an environment shows, how many make a stack, and what networks see of it."""

    shown: tuple[int, ...]
    dtype: type
    stack: int
    observation_shape: tuple[int, ...]
    encoders: tuple
    normalise: tuple[float, float] = (1 / 128, -1.0)

    def frame(self, t):
        """What is shown at step t of any episode."""
        rng = np.random.default_rng(t)
        if self.dtype is np.float32:
            return rng.normal(size=self.shown).astype(np.float32)
        return rng.integers(2 if self.dtype is np.bool_ else 256, size=self.shown).astype(self.dtype)

    def planes(self, t):
        """The same as it is kept: channels first, uint8."""
        frame = self.frame(max(t, 0))
        if frame.ndim == 1:
            return frame
        return np.moveaxis(np.atleast_3d(frame), -1, 0).astype(np.uint8)

    def observation(self, t):
        """What a policy is given at step t: the last frames, oldest first, the first one repeated at the start."""
        return np.concatenate([self.planes(i) for i in range(t - self.stack + 1, t + 1)])


KINDS = {
    "vectors": Kind((5,), np.float32, 1, (5,), (MLPEncoder,), (1.0, 0.0)),
    "gray 96 x 96, stacks of 4": Kind((96, 96), np.uint8, 4, (4, 96, 96), (NatureEncoder, CompactEncoder)),
    "Atari's gray 84 x 84, stacks of 4": Kind((84, 84), np.uint8, 4, (4, 84, 84), (NatureEncoder, ImpalaEncoder)),
    "RGB": Kind((40, 64, 3), np.uint8, 1, (3, 40, 64), (NatureEncoder, CompactEncoder, ImpalaEncoder, ResidualEncoder)),
    "RGB, stacks of 3": Kind((64, 40, 3), np.uint8, 3, (9, 64, 40), (NatureEncoder, CompactEncoder)),
    "MinAtar": Kind((10, 10, 4), np.bool_, 1, (4, 10, 10), (MinAtarEncoder, ImpalaEncoder), (1.0, 0.0)),
    "MinAtar, stacks of 2": Kind((10, 10, 7), np.bool_, 2, (14, 10, 10), (MinAtarEncoder, ImpalaEncoder), (1.0, 0.0)),
    "small gray, stacks of 2": Kind((10, 12), np.uint8, 2, (2, 10, 12), (MinAtarEncoder, ImpalaEncoder)),
}


class Show(gymnasium.Env):
    """Shows the frames of a kind, one after the other."""

    action_space = spaces.Discrete(3)

    def __init__(self, kind):
        self.kind = kind
        low, high = (-10, 10) if kind.dtype is np.float32 else (0, 1 if kind.dtype is np.bool_ else 255)
        self.observation_space = spaces.Box(low, high, kind.shown, kind.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.kind.frame(0), {}

    def step(self, action):
        self.t += 1
        return self.kind.frame(self.t), float(action), self.t == LENGTH, False, {}


def make_env(kind):
    env = Show(kind)
    if len(kind.shown) == 1:
        return env
    return GrayStack(env, kind.stack) if len(kind.shown) == 2 else FrameStack(env, kind.stack)


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def replay(kind, tmp_path_factory):
    directory = tmp_path_factory.mktemp("observations") / "data"
    collect(partial(make_env, kind), RandomBehaviour(), directory, transitions=20, workers=1, progress=False)
    return offrl.open_replay(directory, n_step=2, progress=False)


def test_what_was_seen_is_what_a_batch_holds(kind, replay):
    assert replay.spec == task_spec(make_env(kind))
    assert replay.spec.observation_shape == kind.observation_shape
    stored = replay.store.frames[:]
    assert stored.nbytes * kind.stack == len(stored) * kind.observation(0).nbytes  # each frame once
    batch = replay.gather(np.arange(2 * LENGTH))
    steps = [*range(LENGTH), *range(LENGTH)]
    np.testing.assert_array_equal(batch.observation, [kind.observation(t) for t in steps])
    np.testing.assert_array_equal(batch.next_observation, [kind.observation(min(t + 2, LENGTH)) for t in steps])
    scale, offset = kind.normalise
    seen = replay.spec.normalise(batch.observation)
    np.testing.assert_allclose(seen, batch.observation.numpy() * scale + offset, atol=1e-6)


def test_it_is_learned_from_exported_and_played_with_each_encoder_that_takes_it(kind, replay, tmp_path):
    assert isinstance(default_encoder(kind.observation_shape), kind.encoders[0])
    for encoder in kind.encoders:
        algorithm = offrl.DiscreteBCQ(replay.spec, encoder=encoder)
        before = torch.cat([p.detach().flatten() for p in algorithm.encoder.parameters()])
        settings = offrl.LearnerConfig(precision="fp32", compile="off")
        learner = offrl.fit(
            algorithm, replay, offrl.FitConfig(updates=1, batch_size=8), learner=settings, loggers=[], device="cpu"
        )
        after = torch.cat([p.detach().flatten() for p in algorithm.encoder.parameters()])
        assert (before != after).float().mean() > 0.5
        trained = learner.snapshot()
        observations = np.stack([kind.observation(t) for t in range(LENGTH)])
        expected = offrl.TorchPolicy(trained)(observations)
        for contract in ("float", "uint8"):
            path = offrl.export_onnx(trained, tmp_path / f"{encoder.__name__}-{contract}.onnx", contract=contract)
            assert verify_onnx(path, trained, observations).num_disagreements == 0
            assert offrl.OnnxPolicy(path)(observations).tolist() == expected.tolist()
        scores = offrl.evaluate(offrl.OnnxPolicy(path), partial(make_env, kind), [1], workers=0, num_envs=1).scores
        assert scores == (float(offrl.TorchPolicy(trained)(observations).sum()),)


def test_arrays_of_it_are_a_dataset_of_the_same_observations(kind, replay, tmp_path):
    frames = np.stack([kind.planes(t) for t in range(LENGTH + 1)] * 2)
    if len(kind.shown) == 2:
        frames = frames[:, 0]
    if kind.dtype is np.bool_:
        frames = frames.astype(bool)
    write_dataset(
        tmp_path / "data",
        observations=frames,
        actions=[0, 1, 2, 0, 1] * 2,
        rewards=np.zeros(2 * LENGTH),
        terminated=[False] * (LENGTH - 1) + [True] + [False] * (LENGTH - 1) + [True],
        stack=kind.stack,
    )
    written = offrl.open_replay(tmp_path / "data", n_step=2, progress=False)
    assert written.spec == replay.spec
    rows = np.arange(2 * LENGTH)
    ours, theirs = written.gather(rows), replay.gather(rows)
    assert torch.equal(ours.observation, theirs.observation)
    assert torch.equal(ours.next_observation, theirs.next_observation)


def test_standardised_vectors_are_learned_from_as_if_the_data_held_what_networks_see(tmp_path):
    rng = np.random.default_rng(0)
    seen = rng.integers(-4, 5, size=(44, 2)).astype(np.float32)
    given = {
        "actions": rng.integers(3, size=40),
        "rewards": rng.normal(size=40),
        "terminated": np.arange(40) % 10 == 9,
        "feature_names": ["age", "income"],
    }
    mean, deviation = np.float32([40, 30_000]), np.float32([8, 16_384])  # powers of two: nothing is rounded
    write_dataset(tmp_path / "seen", observations=seen, **given)
    write_dataset(tmp_path / "logged", observations=mean + seen * deviation, **given)
    manifest = Manifest.load(tmp_path / "logged")
    replace(manifest, spec=manifest.spec.standardised(mean.tolist(), deviation.tolist())).save(tmp_path / "logged")
    plain, logged = (offrl.open_replay(tmp_path / name, progress=False) for name in ("seen", "logged"))
    settings = offrl.LearnerConfig(precision="fp32", compile="off")
    config = offrl.FitConfig(updates=3, batch_size=8)
    ours, theirs = (
        offrl.fit(offrl.DiscreteBCQ(each.spec), each, config, learner=settings, loggers=[], device="cpu").snapshot()
        for each in (logged, plain)
    )
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=0)
    expected = offrl.TorchPolicy(theirs)(seen)
    np.testing.assert_array_equal(offrl.TorchPolicy(ours)(mean + seen * deviation), expected)
    for contract in ("float", "uint8"):
        path = offrl.export_onnx(ours, tmp_path / f"{contract}.onnx", contract=contract)
        assert verify_onnx(path, ours, mean + seen * deviation).num_disagreements == 0
        policy = offrl.load(path)
        assert policy.spec == ours.spec  # names and scale travel in the file
        np.testing.assert_array_equal(policy(mean + seen * deviation), expected)
