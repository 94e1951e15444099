from dataclasses import MISSING, dataclass, field

import pytest

from offrl.cli.names import ALGORITHMS
from offrl.cli.settings import Field, config_fields, setting_groups


@dataclass(frozen=True)
class OwnConfig:
    """Settings.

    Attributes:
        needed: without a default.
        sizes: of the layers.
    """

    needed: int
    sizes: list[int] = field(default_factory=lambda: [64])
    unsaid: str = "x"
    derived: int = field(init=False, default=0)


def test_fields_have_their_defaults_and_meanings():
    assert config_fields(OwnConfig) == {
        "needed": Field(int, MISSING, "without a default."),
        "sizes": Field(list[int], [64], "of the layers."),
        "unsaid": Field(str, "x", ""),
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_setting_of_offrls_own_has_a_default_and_a_meaning(algorithm):
    groups = setting_groups(algorithm)
    assert list(groups) == ["algorithm", "learner", "fit", "replay"]
    for fields in groups.values():
        for name, found in fields.items():
            assert found.meaning, name
            assert found.default is not MISSING, name


def test_the_replays_settings_are_those_of_open_replay():
    replay = setting_groups("bcq")["replay"]
    assert replay["discount"].default == 0.99
    assert replay["n_step"].meaning.startswith("Steps summed into one reward")
    assert "memory" in replay["tier"].meaning
