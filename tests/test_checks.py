import math
from dataclasses import dataclass, fields

import numpy as np
import pytest

from offrl import DiscreteBCQConfig, FitConfig, LearnerConfig, ReplayConfig
from offrl.checks import Checks
from offrl.collection import OnlineConfig
from offrl.errors import ConfigError

NEVER = [math.nan, math.inf, "1e-3", [], {}, object()]


@dataclass(frozen=True)
class Config:
    share: float = 0.5
    count: int = 3
    name: str = "one"
    flag: bool = True
    size: float = 1.0

    def __post_init__(self):
        checks = Checks(self)
        checks.number("share", "0 < share < 1", lambda share: 0 < share < 1)
        checks.whole("count", least=2, most=9)
        checks.choice("name", ("one", "two"))
        checks.flag("flag")
        checks.number("size", "over 0", lambda size: size > 0, as_float32=True)


def test_what_fits_is_taken_whatever_number_type_it_has():
    config = Config(share=np.float32(0.25), count=np.int64(9), name="two", flag=False)
    assert [(type(value), value) for value in (config.share, config.count)] == [(float, 0.25), (int, 9)]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"share": math.nan}, "Config.share: nan; expected 0 < share < 1"),
        ({"share": True}, "Config.share: True; expected 0 < share < 1"),
        ({"share": "0.5"}, "Config.share: '0.5'; expected 0 < share < 1"),
        ({"size": 1e39}, "Config.size: 1e+39; expected over 0, at most 3.4e+38, which float32 holds"),
        ({"count": 2.0}, "Config.count: 2.0; expected 2 to 9, a whole number"),
        ({"count": 10}, "Config.count: 10; expected 2 to 9, a whole number"),
        ({"name": ["one"]}, "Config.name: ['one']; expected one of ('one', 'two')"),
        ({"flag": 1}, "Config.flag: 1; expected True or False"),
    ],
)
def test_what_does_not_fit_is_one_line(settings, line):
    with pytest.raises(ConfigError) as error:
        Config(**settings)
    assert str(error.value) == line


@pytest.mark.parametrize("kind", [LearnerConfig, FitConfig, DiscreteBCQConfig, OnlineConfig, ReplayConfig])
def test_no_config_takes_what_is_no_setting(kind):
    needed = {"updates": 1} if kind is FitConfig else {}
    for field in fields(kind):
        for value in NEVER:
            settings = {**needed, field.name: value}
            if field.name == "epochs":
                settings.pop("updates")
            fits = (field.name, type(value)) in {("optimizer_settings", dict), ("include", list)}
            if not fits:
                with pytest.raises(ConfigError):
                    kind(**settings)
