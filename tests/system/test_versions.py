import numpy as np

from offrl.system.versions import PACKAGES, installed_versions


def test_versions_of_what_is_installed():
    assert installed_versions(["numpy", "no-such-package-anywhere"]) == {"numpy": np.__version__}
    assert {"offrl", "torch", "numpy", "gymnasium"} <= installed_versions().keys() <= set(PACKAGES)
