"""The commands that make the site's figures."""

import pytest

from benchmarks.__main__ import figures, main


@pytest.mark.parametrize("command", figures(), ids=" ".join)
def test_each_takes_the_options_that_it_is_run_with(command):
    name, *options = command
    main.commands[name].make_context(name, options)
