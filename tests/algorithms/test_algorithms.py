"""What every algorithm promises."""

import copy
import math
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_replay import ToyReplay

import offrl
from offrl import Batch, OfflineRLError, OnnxPolicy, TaskSpec, TorchPolicy, fit
from offrl.algorithms import BC, REM, DiscreteBCQ, DiscreteSAC, ParameterGroup
from offrl.cli.names import ALGORITHMS, algorithm_class
from offrl.networks import CompactEncoder, MLPEncoder
from offrl.policies import export_onnx, verify_onnx
from offrl.runs.checkpoint import latest_checkpoint, load_policy
from offrl.training import FitConfig, Learner, LearnerConfig

SHELF = {name: algorithm_class(name) for name in ALGORITHMS}
SPEC = TaskSpec.vector(3, ("left", "right", "stay"))


def make_batch(seed: int, size: int = 16) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return Batch(
        observation=torch.randn(size, 3, generator=rng),
        action=torch.randint(3, (size,), generator=rng),
        reward=torch.randn(size, generator=rng),
        discount=torch.full((size,), 0.9) * (torch.rand(size, generator=rng) > 0.3),
        next_observation=torch.randn(size, 3, generator=rng),
        next_action=torch.randint(3, (size,), generator=rng),
    )


@pytest.fixture(params=SHELF.values(), ids=SHELF)
def algorithm(request):
    return request.param(SPEC, seed=1)


def test_the_name_on_the_command_line_is_the_one_in_runs():
    assert {name: kind.name for name, kind in SHELF.items()} == {name: name for name in SHELF}


def test_loss_is_a_finite_scalar_with_gradients_for_all_that_is_trained(algorithm):
    loss, metrics = algorithm.loss(make_batch(0))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    for name, parameter in algorithm.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert all(value.shape == () for value in metrics.values())


def test_targets_are_frozen_copies_of_parts_that_are_trained(algorithm):
    for online, target in algorithm.targets():
        assert all(p.requires_grad for p in online.parameters())
        for ours, theirs in zip(online.parameters(), target.parameters(), strict=True):
            assert torch.equal(ours, theirs)
            assert not theirs.requires_grad
            assert ours.data_ptr() != theirs.data_ptr()


def test_the_seed_decides_the_weights(algorithm):
    again, other = type(algorithm)(SPEC, seed=1), type(algorithm)(SPEC, seed=2)
    observation = make_batch(0).observation
    assert torch.equal(algorithm(observation).scores, again(observation).scores)
    assert not torch.equal(algorithm(observation).scores, other(observation).scores)


def test_a_row_does_not_depend_on_the_others(algorithm):
    observation = make_batch(0).observation
    whole, alone = algorithm(observation), algorithm(observation[3:4])
    torch.testing.assert_close(whole.scores[3:4], alone.scores)
    torch.testing.assert_close(whole.logits[3:4], alone.logits)


def test_values_are_the_scores_or_an_actors_critic_or_there_are_none(algorithm):
    observation = make_batch(0).observation
    output = algorithm(observation)
    if isinstance(algorithm, BC):
        return
    assert algorithm.values(observation).shape == (16, 3)
    is_actor = hasattr(algorithm, "policy_head")
    assert torch.equal(output.scores, output.logits) == is_actor
    assert torch.equal(algorithm.values(observation), output.scores) != is_actor


def test_an_imitator_has_no_values():
    observation = make_batch(0).observation
    with pytest.raises(OfflineRLError, match="bc learns no values; use an algorithm with q"):
        BC(SPEC).values(observation)


def test_a_copy_trains_apart():
    algorithm = DiscreteBCQ(SPEC)
    twin = copy.deepcopy(algorithm)
    twin.encoder.network[0].weight.data.add_(1)
    assert not torch.equal(algorithm(make_batch(0).observation).scores, twin(make_batch(0).observation).scores)


def test_what_is_trained_is_one_group_with_the_learners_rate(algorithm):
    (group,) = algorithm.parameter_groups()
    assert isinstance(group, ParameterGroup)
    assert group.learning_rate_scale == 1.0
    # Target networks are frozen copies, and not trained by the optimiser.
    trained = [name for name, _ in algorithm.named_parameters() if not name.startswith("target")]
    assert len(group.parameters) == len(trained) > 0


# What a task forbids, and batches at the edge of what a replay gives


def with_masks(batch: Batch, action_mask, next_action_mask) -> Batch:
    return replace(batch, action_mask=action_mask, next_action_mask=next_action_mask)


def gradients(algorithm, batch):
    """The loss and all gradients of it, from the same state of the algorithm."""
    algorithm = copy.deepcopy(algorithm)
    loss, _ = algorithm.loss(batch)
    loss.backward()
    return [loss.detach(), *(p.grad for p in algorithm.parameters() if p.requires_grad)]


def test_masks_that_allow_all_change_nothing(algorithm):
    batch = make_batch(0)
    everything = torch.ones(16, 3, dtype=torch.bool)
    for free, masked in zip(
        gradients(algorithm, batch), gradients(algorithm, with_masks(batch, everything, everything)), strict=True
    ):
        torch.testing.assert_close(free, masked)


def test_masks_that_forbid_everything_leave_the_loss_finite_and_the_next_value_0(algorithm):
    batch = make_batch(0)
    nothing = torch.zeros(16, 3, dtype=torch.bool)
    assert all(found.isfinite().all() for found in gradients(algorithm, with_masks(batch, nothing, nothing)))
    if "next_action" in algorithm.needs:  # what was done was legal, whatever the mask says
        return
    forbidden = gradients(algorithm, with_masks(batch, None, nothing))
    terminated = gradients(algorithm, replace(batch, discount=torch.zeros(16)))
    for found, expected in zip(forbidden, terminated, strict=True):
        torch.testing.assert_close(found, expected)


def test_what_is_forbidden_next_has_no_part_in_the_target(algorithm):
    """Only action 1 is legal at s': the loss is the same whatever the target network says of the others."""
    batch = make_batch(0)
    only = torch.zeros(16, 3, dtype=torch.bool)
    only[:, 1] = True
    batch = replace(with_masks(batch, None, only), next_action=torch.ones(16, dtype=torch.int64))
    before = gradients(algorithm, batch)
    for name, head in algorithm.named_modules():
        if name.startswith("target_q_head") and hasattr(head, "output"):
            bias = head.output.bias.detach().view(*output_shape(algorithm))
            bias[..., [0, 2], :] += 1000
    for one, other in zip(before, gradients(algorithm, batch), strict=True):
        if algorithm.name != "iql":  # its target network judges the logged action only
            torch.testing.assert_close(one, other)


def output_shape(algorithm):
    """How a bias of the q head is read: REM's as [K, A, 1], quantiles as [1, A, N], others as [1, A, 1]."""
    if isinstance(algorithm, REM):
        return (algorithm.config.num_heads, 3, 1)
    return (1, 3, getattr(algorithm.config, "num_quantiles", 1))


def test_nothing_infinite_comes_out_of_rows_that_terminated(algorithm):
    batch = make_batch(0)
    batch = replace(batch, discount=torch.zeros(16), next_action=torch.full((16,), -1))
    expected = gradients(algorithm, batch)
    elsewhere = replace(batch, next_observation=torch.full((16, 3), 1e30))
    for found, wanted in zip(gradients(algorithm, elsewhere), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_loss_that_is_not_trained_on_leaves_no_trace(algorithm):
    before = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
    algorithm.eval()
    first, again = algorithm.loss(make_batch(0))[0], algorithm.loss(make_batch(0))[0]
    assert torch.equal(first, again)
    torch.testing.assert_close(algorithm.state_dict(), before, rtol=0, atol=0)


# Training, saving, going on, acting: everything that a Learner, a run and a file do with an algorithm


PIXELS = TaskSpec.pixels((2, 36, 36), ("left", "right", "stay"))


def small(kind, spec, seed=0):
    encoder = CompactEncoder if spec.is_pixels else partial(MLPEncoder, hidden=(16,))
    return kind(spec, encoder=encoder, seed=seed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_an_update_moves_all_weights_in_each_precision(kind, precision):
    replay = ToyReplay(PIXELS, include=kind.needs)
    algorithm = small(kind, PIXELS)
    before = {name: p.detach().clone() for name, p in algorithm.named_parameters()}
    learner = Learner(algorithm, LearnerConfig(precision=precision, compile="off"), total_updates=2)
    for step in range(2):
        learner.update(replay.gather(replay.indices(step, 8)))
    metrics = learner.read_metrics()
    assert all(math.isfinite(value) for value in metrics.values())
    for name, parameter in algorithm.named_parameters():
        assert parameter.dtype == torch.float32
        assert not torch.equal(parameter, before[name]), name
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = algorithm(PIXELS.normalise(replay.gather([0, 1]).observation))
    assert output.scores.dtype == output.logits.dtype == torch.float32


class Interrupting:
    """A logger that ends the run at some update, as Ctrl-C does."""

    def __init__(self, step=None):
        self.step = step

    def log(self, step, metrics, timings):
        if step == self.step:
            signal.raise_signal(signal.SIGINT)

    def close(self):
        pass


@pytest.mark.parametrize("spec", [SPEC, PIXELS], ids=["vectors", "pixels"])
@pytest.mark.parametrize("kind", SHELF.values(), ids=SHELF)
def test_a_run_resumes_bit_for_bit_opens_again_and_exports_equal_actions(kind, spec, tmp_path):
    """Whatever is listed in `offrl.cli.names.ALGORITHMS` is tried here."""
    replay = ToyReplay(spec, include=kind.needs)
    config = FitConfig(updates=8, batch_size=8, log_period=1)
    settings = LearnerConfig(precision="fp32", compile="off", learning_rate=1e-2, target_period=2, polyak=0.5)

    def train(name, stop=None, resume=False):
        options = {"run": tmp_path / name, "loggers": [Interrupting(stop)], "resume": resume, "device": "cpu"}
        algorithm = kind(spec, encoder=CompactEncoder if spec.is_pixels else MLPEncoder)
        return fit(algorithm, replay, config, learner=settings, **options).snapshot()

    trained = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("broken", stop=3)
    resumed = train("broken", resume=True)
    torch.testing.assert_close(resumed.state_dict(), trained.state_dict(), rtol=0, atol=0)
    whole, broken = (latest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "broken"))
    for name in ("policy.safetensors", "learner.safetensors"):  # the optimiser's state, too
        assert load_file(whole / name).keys() == load_file(broken / name).keys()
        torch.testing.assert_close(load_file(whole / name), load_file(broken / name), rtol=0, atol=0)
    rows = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "broken")]
    assert rows[0] == rows[1]

    draw = np.random.default_rng(0)
    observation = draw.normal(size=(200, *spec.observation_shape)).astype(np.float32)
    if spec.is_pixels:
        observation = draw.integers(256, size=(50, *spec.observation_shape), dtype=np.uint8)
    actions = TorchPolicy(trained)(observation).tolist()
    assert offrl.load(tmp_path / "whole")(observation).tolist() == actions
    for contract in ("float", "uint8"):
        path = export_onnx(trained, tmp_path / f"{contract}.onnx", contract=contract)
        assert verify_onnx(path, trained, observation).num_disagreements == 0
        assert OnnxPolicy(path)(observation).tolist() == actions


def test_a_counter_in_an_algorithm_is_part_of_its_checkpoints(tmp_path):
    """REM's mixtures go on where they were; SAC's coefficient too."""
    for kind, name in ((REM, "updates"), (DiscreteSAC, "log_entropy_coefficient")):
        replay = ToyReplay(SPEC)
        config = FitConfig(updates=5, batch_size=8)
        run = tmp_path / name
        trained = fit(small(kind, SPEC), replay, config, run=run, loggers=[], device="cpu").snapshot()
        loaded = load_policy(small(kind, SPEC, seed=1), latest_checkpoint(run / "checkpoints"))
        assert torch.equal(getattr(trained, name), getattr(loaded, name))
        assert getattr(trained, name) != getattr(kind(SPEC), name)
