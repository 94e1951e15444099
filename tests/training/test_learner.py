import dataclasses
import math
import shutil
from functools import partial

import pytest
import torch
from torch import nn

from offrl import Batch, TaskSpec
from offrl.algorithms import Algorithm, DiscreteBCQ, ParameterGroup, PolicyOutput, frozen_copy
from offrl.batch import FrameBatch
from offrl.errors import ConfigError, RunError
from offrl.networks import CompactEncoder
from offrl.training import Learner, LearnerConfig
from offrl.training import learner as learner_module
from offrl.training._autotune import best_threads
from offrl.training.learner import StepSchedule
from offrl.training.optimizer import clear_tiny, move

SPEC = TaskSpec.vector(1, ("left", "right"))


class Slope(Algorithm):
    """Loss = weight * mean(observation): the gradient is what the batch says, so every step can be checked by hand."""

    name = "slope"

    def __init__(self, spec=SPEC):
        super().__init__(spec, None)
        self.weight = nn.Parameter(torch.tensor([10.0]))
        self.online = nn.Linear(1, 1)
        self.online.weight.data.fill_(4.0)
        self.online.bias.data.fill_(0.0)
        self.target = frozen_copy(self.online)
        self.target.weight.data.fill_(0.0)
        self.seen = []

    def loss(self, batch):
        self.seen.append(batch.observation)
        # the online layer takes part with a gradient of 0
        loss = (self.weight * batch.observation).mean() + 0 * self.online.weight.sum() + 0 * self.online.bias.sum()
        return loss, {"weight": self.weight.detach().clone().squeeze()}

    def forward(self, observation):
        scores = torch.cat([self.weight * observation, observation], dim=1)
        return PolicyOutput(scores, torch.zeros_like(scores))

    def targets(self):
        return [(self.online, self.target)]


def batch_of(value, size=4):
    observation = torch.full((size, 1), float(value))
    return Batch(observation, torch.zeros(size, dtype=torch.int64), torch.zeros(size), torch.zeros(size), observation)


def make_learner(total_updates=10, **settings):
    settings = {"optimizer": "SGD", "learning_rate": 0.5, "precision": "fp32", **settings}
    return Learner(Slope(), LearnerConfig(**settings), total_updates=total_updates)


def test_an_update_is_one_step_of_the_optimiser():
    learner = make_learner()
    learner.update(batch_of(2))
    assert learner.algorithm.weight.item() == 10 - 0.5 * 2
    assert learner.step == 1


def test_cosine_goes_from_the_full_rate_to_0():
    learner = make_learner(total_updates=4, schedule="cosine")
    rates = []
    for _ in range(4):
        rates.append(learner.learning_rate)
        learner.update(batch_of(0))
    expected = [0.5, 0.25 * (1 + math.cos(math.pi / 4)), 0.25, 0.25 * (1 + math.cos(3 * math.pi / 4))]
    assert rates == pytest.approx(expected)
    assert learner.learning_rate == 0


def test_the_schedule_is_what_the_optimiser_uses():
    learner = make_learner(total_updates=2, schedule="cosine")
    learner.update(batch_of(1))
    learner.update(batch_of(1))
    assert learner.algorithm.weight.item() == pytest.approx(10 - 0.5 - 0.25)


def test_targets_move_by_polyak_at_every_update():
    learner = make_learner(polyak=0.5)
    learner.update(batch_of(0))
    assert learner.algorithm.target.weight.item() == 2
    learner.update(batch_of(0))
    assert learner.algorithm.target.weight.item() == 3


def test_a_hard_copy_every_n_updates():
    learner = make_learner(polyak=1.0, target_period=3)
    moved = []
    for _ in range(4):
        learner.update(batch_of(0))
        moved.append(learner.algorithm.target.weight.item())
    assert moved == [0, 0, 4, 4]


def test_a_hard_copy_is_one_also_where_polyak_is_a_whole_number():
    learner = make_learner(polyak=1)
    learner.algorithm.target.weight.data.fill_(2.0**60)  # beside which a difference to the weight is lost
    learner.update(batch_of(0))
    assert learner.algorithm.target.weight.item() == learner.algorithm.online.weight.item() == 4


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_weight_on_the_device_moves_as_a_number_does(weight):
    online, moved, expected = (torch.tensor([value, 3.0]) for value in (1e-8, 1.0, 1.0))
    move([(online, moved)], torch.tensor(weight))
    move([(online, expected)], weight)
    assert moved.tolist() == expected.tolist()


def test_averaged_weights_by_hand_and_only_for_evaluation():
    learner = make_learner(average_decay=0.999)
    learner.update(batch_of(2))  # weight 9; decay min(0.999, 1/11)
    average = 10 / 11 + 9 * 10 / 11
    assert learner.snapshot().weight.item() == pytest.approx(average)
    learner.update(batch_of(2))  # weight 8; decay 2/12
    average = average * 2 / 12 + 8 * 10 / 12
    assert learner.snapshot().weight.item() == pytest.approx(average)
    assert learner.algorithm.weight.item() == 8


def test_without_averaging_a_snapshot_is_the_weights_now():
    learner = make_learner()
    learner.update(batch_of(2))
    snapshot = learner.snapshot()
    learner.update(batch_of(2))
    assert (snapshot.weight.item(), learner.algorithm.weight.item()) == (9, 8)
    assert not snapshot.training


def test_metrics_are_means_since_the_last_reading():
    learner = make_learner()
    for _ in range(2):
        learner.update(batch_of(2))
    metrics = learner.read_metrics()
    assert metrics == {"loss": (20 + 18) / 2, "weight": 9.5}
    learner.update(batch_of(2))
    assert learner.read_metrics()["weight"] == 8


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_update_that_is_not_finite_changes_no_weight_and_stops_at_the_next_reading(optimizer, value):
    learner = make_learner(optimizer=optimizer)
    learner.update(batch_of(2))
    before = {name: tensor.clone() for name, tensor in learner.state_tensors().items() if "metric" not in name}
    learner.update(batch_of(value))
    for name, tensor in before.items():
        if "target" not in name:  # those go on following the weights
            assert torch.equal(learner.state_tensors()[name], tensor), name
    message = "training: the loss or a gradient is infinite or NaN in 1 of the 2 updates before 2; expected finite ones"
    with pytest.raises(RunError, match=message):
        learner.read_metrics()


class SteepAtZero(Slope):
    """A finite loss whose gradient is not: the root of the weight."""

    def loss(self, batch):
        return (self.weight * batch.observation).clamp(min=0).mean().sqrt() + 0 * self.online.weight.sum(), {}


def test_a_gradient_that_is_not_finite_counts_too():
    learner = Learner(SteepAtZero(), LearnerConfig(optimizer="SGD", precision="fp32"), total_updates=1)
    learner.update(batch_of(0))
    assert learner.algorithm.weight.item() == 10
    with pytest.raises(RunError, match="a gradient is infinite or NaN in 1 of the 1 updates"):
        learner.require_finite()


def test_updates_that_are_not_finite_can_be_skipped_and_are_counted():
    learner = make_learner(non_finite="skip")
    for value in (2, math.inf, 2):
        learner.update(batch_of(value))
    assert learner.read_metrics() == {"loss": (20 + 18) / 2, "weight": 9.5, "skipped_updates": 1}
    assert learner.algorithm.weight.item() == 8
    learner.update(batch_of(2))
    assert learner.read_metrics() == {"loss": 16, "weight": 8, "skipped_updates": 0}


class HalfTrained(Slope):
    """Leaves the online layer out of what is trained, though the loss has a gradient there."""

    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return loss + self.online.weight.sum() * batch.observation.mean(), metrics

    def parameter_groups(self):
        return [ParameterGroup([self.weight])]


def test_what_no_group_trains_sums_no_gradients_and_keeps_no_nan():
    settings = LearnerConfig(optimizer="SGD", learning_rate=0.5, precision="fp32", non_finite="skip")
    learner = Learner(HalfTrained(), settings, total_updates=10)
    gradients = []
    for value in (2, 2, math.nan, 2):
        learner.update(batch_of(value))
        gradients.append(learner.algorithm.online.weight.grad.item())
    assert [gradients[index] for index in (0, 1, 3)] == [2, 2, 2]
    assert learner.algorithm.weight.item() == 10 - 3 * 0.5 * 2
    assert learner.algorithm.online.weight.item() == 4
    assert learner.read_metrics()["skipped_updates"] == 1


class WithDicts(Slope):
    """Groups its parameters as torch's optimisers want them."""

    def parameter_groups(self):
        return [{"params": [self.weight]}]


def test_what_is_no_config_or_no_group_is_refused():
    with pytest.raises(ConfigError, match=r"Learner.config: a dict; expected a LearnerConfig"):
        Learner(Slope(), {"learning_rate": 0.1}, total_updates=1)
    with pytest.raises(ConfigError, match=r"WithDicts.parameter_groups: a dict; expected a list of ParameterGroup"):
        Learner(WithDicts(), total_updates=1)


class Grouped(Slope):
    """With groups of a test's own making."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def parameter_groups(self):
        return [self.make(self)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: ParameterGroup([]), "no parameters; expected one or more to train"),
        (lambda _: ParameterGroup([nn.Parameter(torch.ones(1))]), "a group with a parameter of another module"),
        (lambda ours: ParameterGroup([ours.weight], -1.0), "learning_rate_scale -1.0; expected a number, 0 or more"),
        (lambda ours: ParameterGroup([ours.weight], math.nan), "learning_rate_scale nan"),
        (lambda ours: ParameterGroup([ours.weight], "2"), "learning_rate_scale '2'"),
    ],
)
def test_groups_that_train_nothing_or_the_wrong_way_are_refused(make, message):
    with pytest.raises(ConfigError, match=f"Grouped.parameter_groups: {message}"):
        Learner(Grouped(make), total_updates=1)


def test_a_group_of_an_iterator_is_trained():
    settings = LearnerConfig(optimizer="SGD", learning_rate=0.5, precision="fp32")
    learner = Learner(Grouped(lambda ours: ParameterGroup(iter([ours.weight]))), settings, total_updates=1)
    learner.update(batch_of(2))
    assert learner.algorithm.weight.item() == 10 - 0.5 * 2


class Tied(Slope):
    """Two layers share a weight, in the online network and in its target, which two pairs name."""

    def __init__(self):
        super().__init__()
        self.online = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        self.online[1].weight = self.online[0].weight
        self.online[0].weight.data.fill_(4.0)
        self.target = frozen_copy(self.online)
        self.target[0].weight.data.fill_(0.0)

    def loss(self, batch):
        return (self.weight * batch.observation).mean() + 0 * self.online[0].weight.sum(), {}

    def targets(self):
        return [(self.online, self.target), (self.online[0], self.target[0])]


def test_a_target_weight_of_many_names_moves_once():
    learner = Learner(Tied(), LearnerConfig(polyak=0.5, precision="fp32", compile="off"), total_updates=1)
    online = learner.algorithm.online[0].weight.item()
    learner.update(batch_of(0))
    assert learner.algorithm.target[0].weight.item() == online / 2


class Viewed(Slope):
    """Its target is a vector and a view of its first number, which lies at the same place in memory."""

    def __init__(self):
        super().__init__()
        self.online = nn.Module()
        self.online.register_buffer("all", torch.ones(3))
        self.online.register_buffer("first", self.online.all[0])
        self.target = nn.Module()
        self.target.register_buffer("all", torch.zeros(3))
        self.target.register_buffer("first", self.target.all[0])

    def loss(self, batch):
        return (self.weight * batch.observation).mean(), {}


def test_a_view_of_a_target_tensor_leaves_none_behind():
    learner = Learner(Viewed(), LearnerConfig(polyak=1.0, precision="fp32", compile="off"), total_updates=1)
    learner.update(batch_of(0))
    assert learner.algorithm.target.all.tolist() == [1, 1, 1]


def test_an_empty_group_beside_another_is_left_out():
    class Frozen(Slope):
        def parameter_groups(self):
            return [ParameterGroup([], 0.1), ParameterGroup([self.weight])]

    learner = Learner(Frozen(), LearnerConfig(optimizer="SGD", learning_rate=0.5, precision="fp32"), total_updates=1)
    learner.update(batch_of(2))
    assert learner.algorithm.weight.item() == 10 - 0.5 * 2


class Torn(Tied):
    """Its target shares a weight that its online network has twice."""

    def __init__(self):
        super().__init__()
        self.online[1].weight = nn.Parameter(torch.ones(1, 1))


def test_a_target_weight_that_is_to_follow_two_is_refused():
    with pytest.raises(ConfigError, match=r"Torn.targets: a tensor \[1, 1\] of a target network is to follow two"):
        Learner(Torn(), total_updates=1)


class EverySecondTime(Slope):
    """Has a metric in every second update only."""

    def loss(self, batch):
        loss, metrics = super().loss(batch)
        return loss, metrics if len(self.seen) % 2 else {}


def test_metrics_that_are_not_in_every_update_are_refused():
    learner = Learner(
        EverySecondTime(), LearnerConfig(optimizer="SGD", precision="fp32", compile="off"), total_updates=2
    )
    learner.autotune(batch_of(1))
    learner.algorithm.seen.clear()
    learner.update(batch_of(1))
    with pytest.raises(
        ConfigError, match=r"loss: the metrics are \['loss'\]; expected \['loss', 'weight'\], as in the"
    ):
        learner.update(batch_of(1))


@pytest.mark.parametrize(("non_finite", "expected"), [("stop", {}), ("skip", {"skipped_updates": 0})])
def test_before_the_first_update_there_is_nothing_to_read(non_finite, expected):
    learner = make_learner(non_finite=non_finite)
    assert learner.read_metrics() == expected
    assert learner.measure([]) == {}
    learner.update(batch_of(2))
    assert learner.read_metrics() == {"loss": 20, "weight": 10, **expected}


@pytest.mark.parametrize("total_updates", [0, -1, 2.5, True])
def test_a_run_has_one_update_or_more(total_updates):
    with pytest.raises(ConfigError, match=rf"Learner.total_updates: {total_updates}; expected 1 or more, a whole"):
        make_learner(total_updates=total_updates, schedule="cosine")


@pytest.mark.parametrize("count", [0, -1, 2.0])
def test_an_update_is_one_or_more(count):
    with pytest.raises(ConfigError, match=rf"Batch.split: {count} parts; expected 1 or more, a whole number"):
        make_learner().update(batch_of(1), count=count)


def test_a_device_of_no_known_name_is_refused():
    with pytest.raises(ConfigError, match="device: 'gpu' cannot be used here"):
        Learner(Slope(), total_updates=1, device="gpu")


class Mispaired(Slope):
    def targets(self):
        return [(self.other, self.target)]


@pytest.mark.parametrize(
    ("other", "found"), [(nn.Linear(2, 1), r"\[1, 2\]"), (nn.ReLU(), "nothing"), (nn.Linear(1, 3), r"\[3, 1\]")]
)
def test_a_target_that_is_no_copy_of_its_online_network_is_refused(other, found):
    algorithm = Mispaired()
    algorithm.other = other
    message = rf"Mispaired.targets: the target network's weight \[1, 1\] is to follow {found} of its online network"
    with pytest.raises(ConfigError, match=message):
        Learner(algorithm, total_updates=1)


class Volumes(Slope):
    """Convolutions over two and over three axes."""

    def __init__(self, spec):
        super().__init__(spec)
        self.flat, self.solid = nn.Conv2d(2, 3, 2), nn.Conv3d(2, 3, 2)


def test_only_weights_of_four_axes_are_laid_out_for_pictures():
    algorithm = Volumes(SPEC)
    before = [layer.weight.detach().clone() for layer in (algorithm.flat, algorithm.solid)]
    Learner(algorithm, total_updates=1)
    assert algorithm.flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert algorithm.solid.weight.is_contiguous()
    for layer, weight in zip((algorithm.flat, algorithm.solid), before, strict=True):
        assert torch.equal(layer.weight, weight)


def test_several_updates_at_once_are_those_updates_one_after_the_other():
    settings = {"schedule": "cosine", "average_decay": 0.9, "target_period": 2, "optimizer": "Adam"}
    together, apart = make_learner(total_updates=6, **settings), make_learner(total_updates=6, **settings)
    batches = [batch_of(value) for value in (1, 2, 3)]
    columns = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("observation", "action", "reward", "discount", "next_observation")
    }
    together.update(Batch(**columns), count=3)
    for batch in batches:
        apart.update(batch)
    assert together.step == apart.step == 3
    for name, tensor in apart.state_tensors().items():
        assert torch.equal(tensor, together.state_tensors()[name]), name
    assert together.read_metrics() == apart.read_metrics()


def test_a_schedule_in_tensors_is_the_same_update():
    """What a CUDA graph replays, run without one."""
    settings = {"average_decay": 0.9, "polyak": 0.25, "optimizer": "Adam"}
    numbers, tensors = make_learner(**settings), make_learner(**settings)
    for step in range(3):
        batch = batch_of(step + 1)
        numbers.update(batch)
        schedule = StepSchedule(*torch.tensor(tensors._step_schedule(step)))
        tensors._update(batch, tensors._augmentation.draws(range(step, step + 1), 4)[0], schedule)
    for name, tensor in numbers.state_tensors().items():
        torch.testing.assert_close(tensors.state_tensors()[name], tensor, msg=name)


def test_frames_on_the_device_are_stacked_in_the_update():
    spec = TaskSpec.pixels((2, 8, 8), ("left", "right"))
    frames = torch.randint(0, 256, (5, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, following = torch.tensor([[0, 0], [2, 3]]), torch.tensor([[0, 1], [3, 4]])
    zeros = torch.zeros(2)
    learner = Learner(Slope(spec), LearnerConfig(precision="fp32"), total_updates=1)
    learner.update(FrameBatch(frames, rows, following, zeros.long(), zeros, zeros))
    expected = torch.stack([frames[[0, 0]], frames[[2, 3]]]).float() / 128 - 1
    torch.testing.assert_close(learner.algorithm.seen[-1], expected, rtol=0, atol=0)


def test_pixels_arrive_normalised_and_channels_last():
    spec = TaskSpec.pixels((4, 8, 8), ("left", "right"))
    learner = Learner(Slope(spec), LearnerConfig(precision="fp32"), total_updates=1)
    raw = torch.randint(0, 256, (2, 4, 8, 8), dtype=torch.uint8)
    zeros = torch.zeros(2)
    learner.update(Batch(raw, zeros.long(), zeros, zeros, raw))
    seen = learner.algorithm.seen[-1]
    torch.testing.assert_close(seen, raw.float() / 128 - 1, rtol=0, atol=0)
    assert seen.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("scale", "dtype"), [(1 / 128, torch.bfloat16), (1 / 255, torch.float32)])
def test_bf16_takes_pixels_as_bf16_only_where_no_gray_is_rounded(scale, dtype):
    spec = dataclasses.replace(TaskSpec.pixels((1, 16, 16), ("left", "right")), scale=scale)
    learner = Learner(Slope(spec), LearnerConfig(precision="bf16"), total_updates=1)
    raw = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    zeros = torch.zeros(1)
    learner.update(Batch(raw, zeros.long(), zeros, zeros, raw))
    seen = learner.algorithm.seen[-1]
    assert seen.dtype == dtype
    torch.testing.assert_close(seen.float(), raw.float() * scale - 1, rtol=0, atol=0)


class Counting(Slope):
    """Its loss counts its calls in a buffer, as an annealed temperature would."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def loss(self, batch):
        self.calls = self.calls + 1  # a new tensor, where += would change the one that is there
        return super().loss(batch)


def test_what_a_loss_counts_are_updates_and_not_measurements():
    learner = Learner(Counting(), LearnerConfig(precision="fp32"), total_updates=10)
    learner.update(batch_of(1))
    assert learner.measure([batch_of(1), batch_of(3)])["loss"] == pytest.approx(20.0, abs=0.1)
    assert learner.algorithm.calls.item() == 1
    learner.require_sound_weights()
    assert learner.algorithm.calls.item() == 1


def test_auto_settles_on_a_precision_without_touching_the_weights():
    learner = make_learner(precision="auto")
    learner.autotune(batch_of(1))
    assert learner.precision in ("fp32", "bf16")
    assert learner.compile == "off"  # so short a run does not repay the compiler's time
    assert learner.algorithm.weight.item() == 10
    assert learner.algorithm.weight.grad is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimizer": "Adamm"}, "a class of torch.optim"),
        ({"optimizer": "lr_scheduler"}, "a class of torch.optim"),
        ({"optimizer": "LBFGS"}, "another one: it needs the loss as a function"),
        ({"optimizer": "SparseAdam"}, "another one: it needs sparse gradients"),
        ({"optimizer_settings": {"lr": 1.0}}, "learning_rate in place of 'lr'"),
        ({"learning_rate": 0}, "a positive number"),
        ({"learning_rate": math.inf}, "a positive number"),
        ({"schedule": "linear"}, "one of \\('constant', 'cosine'\\)"),
        ({"polyak": 0}, "0 < polyak <= 1"),
        ({"target_period": 0}, "1 or more"),
        ({"average_decay": 1.0}, "0 <= average_decay < 1"),
        ({"compile": True}, "one of \\('auto', 'on', 'off'\\)"),
        ({"non_finite": "ignore"}, "one of \\('stop', 'skip'\\)"),
        ({"updates_per_graph": -1}, "0 or more"),
        ({"precision": "fp8"}, "one of \\('auto', 'fp32', 'bf16'\\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, expected):
    with pytest.raises(ConfigError, match=f"LearnerConfig.{next(iter(settings))}: .*expected {expected}"):
        LearnerConfig(**settings)


def test_settings_that_the_optimiser_does_not_know_are_refused():
    with pytest.raises(ConfigError, match="optimizer_settings: SGD refuses .*momentun"):
        make_learner(optimizer_settings={"momentun": 0.9})


def test_the_optimisers_own_way_of_looping_can_be_asked_for():
    learner = make_learner(optimizer_settings={"foreach": True})
    learner.update(batch_of(2))
    assert learner.algorithm.weight.item() == 9


def test_moments_of_weights_without_gradients_do_not_become_subnormal():
    """Such numbers are slow to calculate with. The weights are those of the bare optimiser, bit for bit."""
    least = torch.finfo(torch.float32).tiny
    learner = make_learner(total_updates=2000, optimizer="Adam", learning_rate=0.1)
    resumed = make_learner(total_updates=2000, optimizer="Adam", learning_rate=0.1)
    bare = nn.Parameter(torch.tensor([10.0]))
    adam = torch.optim.Adam([bare], lr=0.1)
    for step, gradient in enumerate([2.0] * 3 + [0.0] * 1199):
        if step == 950:
            resumed.load_state(learner.state_tensors(), learner.state_values())
        learner.update(batch_of(gradient))
        bare.grad = torch.tensor([gradient])
        adam.step()
    remembered = adam.state[bare]["exp_avg"].item()
    assert 0 < remembered < least
    moments = [t for name, t in learner.state_tensors().items() if name.endswith(("exp_avg", "exp_avg_sq"))]
    assert all(((moment == 0) | (moment.abs() >= least)).all() for moment in moments)
    assert learner.algorithm.weight.item() == bare.item()
    resumed.update(batch_of(0.0, size=4 * 252), count=252)
    for name, tensor in learner.state_tensors().items():
        assert torch.equal(resumed.state_tensors()[name], tensor) or name.startswith("metric.")


@pytest.mark.parametrize(("eps", "squares"), [(1e-8, 0.0), (1e-15, 1e-34)])
def test_squares_are_cleared_where_epsilon_hides_them(eps, squares):
    weight = nn.Parameter(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    adam = torch.optim.Adam([weight], eps=eps)
    weight.grad = torch.ones_like(weight)
    adam.step()
    state = adam.state[weight]
    state["exp_avg"].fill_(1e-34)
    state["exp_avg_sq"].fill_(1e-34)
    state["exp_avg"][0] = state["exp_avg_sq"][0] = 0.5
    clear_tiny(adam)
    for name, second in (("exp_avg", 0.0), ("exp_avg_sq", squares)):
        assert state[name].stride() == weight.stride()  # fused kernels walk raw memory
        assert (state[name][0] == 0.5).all()
        assert (state[name][1] == second).all()


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "NAdam", "Adagrad"])
def test_any_optimiser_by_name_makes_the_loss_smaller(name):
    learner = make_learner(optimizer=name, learning_rate=0.1)
    for _ in range(3):
        learner.update(batch_of(2))
    assert learner.algorithm.weight.item() < 10


def learnable_batch(spec, seed, size=32):
    """Pictures with a bright quarter, which is the action to take: reward 1 for it, 0 for others."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randint(0, 128, (2, size, *spec.observation_shape), dtype=torch.uint8, generator=generator)
    quarter = torch.randint(0, 4, (2, size), generator=generator)
    half = spec.observation_shape[-1] // 2
    for pictures, places in zip(observation, quarter, strict=True):
        for picture, place in zip(pictures, places.tolist(), strict=True):
            y, x = half * (place // 2), half * (place % 2)
            picture[:, y : y + half, x : x + half] += 100
    action = torch.where(torch.rand(size, generator=generator) < 0.7, quarter[0], (quarter[0] + 1) % 4)
    reward = (action == quarter[0]).float()
    return Batch(observation[0], action, reward, torch.full((size,), 0.5), observation[1])


def trained_on_quarters(updates, **settings):
    spec = TaskSpec.pixels((4, 48, 48), ("a", "b", "c", "d"))
    learner = Learner(DiscreteBCQ(spec, encoder=CompactEncoder), LearnerConfig(**settings), total_updates=updates)
    losses = []
    for step in range(updates):
        learner.update(learnable_batch(spec, step))
        losses.append(learner.read_metrics()["loss"])
    return losses, learner


def test_bf16_loses_no_accuracy():
    """Mean losses over updates 150 to 200 from the same start agree within 2 %."""
    fp32, _ = trained_on_quarters(200, precision="fp32")
    bf16, _ = trained_on_quarters(200, precision="bf16")
    assert sum(fp32[150:]) < 0.8 * sum(fp32[:50])  # it learns
    assert bf16 != fp32
    assert sum(bf16[150:]) == pytest.approx(sum(fp32[150:]), rel=0.02)


@pytest.mark.slow  # the compiler takes half a minute
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own making
def test_a_compiled_loss_is_the_eager_one():
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler")
    eager, _ = trained_on_quarters(20, precision="fp32", compile="off")
    compiled, learner = trained_on_quarters(20, precision="fp32", compile="on")
    assert learner.compile == "on"
    assert compiled == pytest.approx(eager, rel=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own making
def test_what_is_compiled_is_good_for_any_number_of_frames(monkeypatch):
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    spec = TaskSpec.pixels((2, 48, 48), ("a", "b"))
    learner = Learner(
        DiscreteBCQ(spec, encoder=CompactEncoder), LearnerConfig(precision="fp32", compile="on"), total_updates=9
    )
    rows = torch.tensor([[0, 1], [1, 2], [2, 3]])
    counts = []
    for num_frames in (5, 9, 30):
        frames = torch.zeros((num_frames, 48, 48), dtype=torch.uint8)
        learner.update(FrameBatch(frames, rows, rows, torch.tensor([0, 1, 1]), torch.zeros(3), torch.ones(3)))
        counts.append(len(graphs))
    assert counts[0] > 0
    assert counts == counts[:1] * 3


def test_a_loss_that_cannot_be_compiled_is_a_clear_error(monkeypatch):
    def fail(function, **settings):
        def compiled(batch, draws, precision):
            raise RuntimeError("no compiler\nand much more")

        return compiled

    monkeypatch.setattr(torch, "compile", fail)
    message = (
        r"LearnerConfig.compile: torch.compile fails \(RuntimeError: no compiler\); expected .*; take compile='off'"
    )
    with pytest.raises(ConfigError, match=message):
        make_learner(compile="on").update(batch_of(1))


def test_compiling_is_tried_in_a_long_run_and_left_where_it_fails(monkeypatch):
    tried = []
    monkeypatch.setattr(torch, "compile", lambda function, **settings: tried.append(function))  # None cannot be called
    monkeypatch.setattr("offrl.training._autotune._COMPILING_SECONDS", 0.0)
    long = make_learner(total_updates=10_000)
    long.update(batch_of(2))
    assert len(tried) == 1
    assert long.compile == "off"
    assert long.algorithm.weight.item() == 9  # what was measured left no trace
    make_learner(total_updates=999).update(batch_of(2))
    assert len(tried) == 1


def test_a_loss_that_runs_faster_compiled_is_compiled_once_and_stays_so(monkeypatch):
    tried = []
    monkeypatch.setattr(torch, "compile", lambda function, **settings: tried.append(function) or function)
    monkeypatch.setattr("offrl.training._autotune._COMPILING_SECONDS", 0.0)
    speed = {"eager": 1.0, "compiled": 0.5}
    monkeypatch.setattr(
        "offrl.training._autotune.shortest_seconds", lambda ways, device: {way: speed[way] for way in ways}
    )
    learner = make_learner(total_updates=10_000)
    learner.update(batch_of(2))
    assert learner.compile == "on"
    assert len(tried) == 1
    resumed = make_learner(total_updates=10_000)
    resumed.load_state(learner.state_tensors(), learner.state_values())
    speed["compiled"] = 2.0  # what a run has settled on it keeps
    for one in (learner, resumed):
        one.update(batch_of(3))
    assert (resumed.compile, len(tried)) == ("on", 2)
    assert resumed.algorithm.weight.item() == learner.algorithm.weight.item()


def test_fewer_threads_are_taken_where_they_are_much_faster_only(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr("offrl.training._autotune.time.perf_counter", lambda: clock["now"])

    def chosen(most, seconds):
        def run():
            clock["now"] += seconds[torch.get_num_threads()]

        torch.set_num_threads(most)
        found = best_threads(run, most)
        assert torch.get_num_threads() == most
        return found

    assert chosen(4, {4: 1.0, 2: 2.0, 1: 4.0}) == 4
    assert chosen(4, {4: 10.0, 2: 3.0, 1: 4.0}) == 2
    assert chosen(2, {2: 1.0, 1: 0.86}) == 2  # a near tie
    assert chosen(2, {2: 1.0, 1: 0.84}) == 1
    assert chosen(1, {}) == 1  # nothing to measure


def test_threads_are_chosen_once_in_long_runs_and_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(learner_module, "best_threads", lambda run, most: asked.append(most) or 1)
    torch.set_num_threads(2)
    make_learner(total_updates=999).update(batch_of(2))
    assert asked == []
    long = make_learner(total_updates=1000)
    long.update(batch_of(2))
    long.update(batch_of(2))
    assert (asked, long.threads, torch.get_num_threads()) == ([2], 1, 1)

    torch.set_num_threads(2)
    resumed = make_learner(total_updates=1000)
    resumed.load_state(long.state_tensors(), long.state_values())
    assert (resumed.threads, torch.get_num_threads()) == (1, 1)
    named = make_learner(total_updates=1000, threads=2)  # what the user says holds
    named.load_state(long.state_tensors(), long.state_values())
    named.update(batch_of(2))
    assert (named.threads, torch.get_num_threads(), asked) == (2, 2, [2])


@pytest.mark.parametrize("threads", ["3", 0, 10**6, 1.5, None])
def test_a_damaged_number_of_threads_is_not_taken(threads):
    learner = make_learner()
    learner.take_choices({"threads": threads})
    assert learner.threads == "auto"
