"""What every algorithm is: a module with a loss, and nothing about how that loss is run."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, get_args, get_origin

from torch import Tensor, nn
from typing_extensions import TypeVar

from offrl.batch import Batch
from offrl.errors import ConfigError, OfflineRLError
from offrl.networks._checking import checked, settings_of
from offrl.networks.encoders import EncoderFactory, default_encoder
from offrl.networks.initialisation import require_seed, seeded
from offrl.spec import TaskSpec

Config = TypeVar("Config", default=Any)
Metrics = Mapping[str, Tensor]
"""0-d tensors by name, on the device of the loss; the Learner detaches them and reads them when a row is logged."""


class PolicyOutput(NamedTuple):
    """What a policy acts on, the same for every algorithm: see `offrl.losses.greedy_actions`."""

    scores: Tensor
    """[B, A] float32: the greedy action has the best score among the likely actions."""
    logits: Tensor
    """[B, A] float32: which actions are likely; all zero where the algorithm rules none out."""


class ParameterGroup(NamedTuple):
    """Parameters with a learning rate of their own.

    Attributes:
        parameters: Trained together.
        learning_rate_scale: The learner's learning rate is multiplied by it, at every update.
    """

    parameters: list[nn.Parameter]
    learning_rate_scale: float = 1.0


class Algorithm(nn.Module, ABC, Generic[Config]):
    """Base of all algorithms; a subclass brings a frozen config, its networks, a loss and what its policy acts on.

    Write `class MyAlgorithm(Algorithm[MyConfig])`, with `MyConfig` a frozen dataclass. The observations that `loss`,
    `forward` and `values` see are normalised (`TaskSpec.normalise`). Networks may run in bf16, and pixels come in it
    where that rounds no gray; q, logits and losses are float32 (`offrl.networks.Head` sees to it).

    Args:
        spec: The task.
        config: The algorithm's settings; None takes the defaults.
        encoder: Makes the encoder for an observation shape: a class, or a `functools.partial` of one.
        seed: Of the first weights.

    Attributes:
        name: What the algorithm is called in runs and tables.
        seed: As given, for a run's records.
        needs: Optional fields of `Batch` that its loss reads. A replay gives "next_action", "behaviour_probability" and
            "index" only where it was asked for them: `open_replay(..., include=["next_action"])`.
        threshold: The likelihood threshold its policy acts with, see `offrl.losses.greedy_actions`.

    Raises:
        ConfigError: Arguments of another kind, or an encoder whose features are not of the size that it says.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    threshold: float = 0.0
    seed: int = 0

    def __init__(
        self,
        spec: TaskSpec,
        config: Config | None = None,
        *,
        encoder: EncoderFactory = default_encoder,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._require_arguments(spec, config, seed)
        self.spec = spec
        self.seed = int(seed)
        if config is None and (kind := self.config_class()) is not None:
            config = kind()
        self.config: Config = config  # type: ignore[assignment]  # None only where the algorithm has no config
        self._encoder_settings = settings_of(encoder)  # for a run's records
        make_encoder = checked(encoder)
        with seeded(self.seed):
            self.make_networks(make_encoder)

    @classmethod
    def config_class(cls) -> type[Any] | None:
        """The dataclass of the settings: `MyConfig` of `class MyAlgorithm(Algorithm[MyConfig])`; None without one."""
        for kind in cls.__mro__:
            for base in kind.__dict__.get("__orig_bases__", ()):
                origin = get_origin(base)  # Algorithm, or a generic subclass such as QLearning
                is_algorithm = isinstance(origin, type) and issubclass(origin, Algorithm)
                if is_algorithm and isinstance(get_args(base)[0], type):
                    found: type[Any] = get_args(base)[0]
                    return found
        return None

    def _require_arguments(self, spec: object, config: object, seed: object) -> None:
        name, kind = type(self).__name__, self.config_class()
        if not isinstance(spec, TaskSpec):
            raise ConfigError(
                f"a {type(spec).__name__}",
                where=f"{name}.spec",
                expected="a TaskSpec",
                hint=f"pass the replay's: {name}(replay.spec)" if hasattr(spec, "spec") else None,
            )
        # A constructor of the subclass's own may take a config of another kind.
        is_ours = type(self).__init__ is Algorithm.__init__
        if is_ours and config is not None and kind is not None and not isinstance(config, kind):
            given = f"the class {config.__name__}" if isinstance(config, type) else f"a {type(config).__name__}"
            expected = kind.__name__
            raise ConfigError(given, where=f"{name}.config", expected=f"a {expected}", hint=f"pass {expected}(...)")
        require_seed(seed, f"{name}.seed")

    def make_networks(self, encoder: EncoderFactory) -> None:
        """Makes the networks as attributes of this module. Their first weights are drawn from the seed."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss [] of a prepared batch, and 0-d metrics to log beside it.

        On a CUDA device it is recorded once and then replayed: what changes from update to update must be a tensor.
        """

    @abstractmethod
    def forward(self, observation: Tensor) -> PolicyOutput:
        """What the policy acts on. [B, ...] -> scores [B, A], logits [B, A]."""

    def values(self, observation: Tensor) -> Tensor:
        """Q values. [B, ...] -> [B, A].

        Raises:
            OfflineRLError: the algorithm learns no values.
        """
        raise OfflineRLError(f"{self.name} learns no values", hint="use an algorithm with q, such as DiscreteBCQ")

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """(online, target) pairs of networks; the Learner moves each target after its online network."""
        return []

    def parameter_groups(self) -> list[ParameterGroup]:
        """What is trained, in groups with learning rates of their own. The default is one group of all parameters."""
        return [ParameterGroup([parameter for parameter in self.parameters() if parameter.requires_grad])]

    def copy_to_targets(self) -> None:
        """Sets each target network to its online network, as at the beginning of training."""
        for online, target in self.targets():
            target.load_state_dict(online.state_dict())


Network = TypeVar("Network")


def frozen_copy(network: Network) -> Network:
    """A target network: equal at first, never trained by gradients.

    Raises:
        ConfigError: `network` is no nn.Module.
    """
    target = copy.deepcopy(network)
    if not isinstance(target, nn.Module):
        raise ConfigError(f"{type(network).__name__}", where="target network", expected="an nn.Module")
    target.requires_grad_(False)
    target.is_frozen_copy = True  # type: ignore[assignment]  # for the warning about one that no target pair names
    return target
