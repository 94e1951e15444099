import signal

import pytest

from benchmarks.children import ending_quietly
from offrl.system.signals import Interrupted


@pytest.mark.parametrize(
    ("asked", "exit_code"),
    [(Interrupted(signal.SIGTERM), 143), (Interrupted(signal.SIGINT), 130), (KeyboardInterrupt(), 130)],
)
def test_a_child_that_is_asked_to_end_says_so_by_its_exit_code_alone(asked, exit_code):
    with pytest.raises(SystemExit) as ended, ending_quietly():
        raise asked
    assert ended.value.code == exit_code
