"""How ranks that are done leave each other, with a store in this process in place of torchrun's."""

import time
from threading import Thread

import pytest
import torch.distributed as dist

from offrl.system import torchrun
from offrl.system.ranks import Ranks
from offrl.system.signals import Interrupted

LONG = 60.0


def two():
    store = dist.HashStore()
    return Ranks(0, 2, store=store), Ranks(1, 2, store=store)


def test_a_rank_waits_until_all_are_done():
    first, second = two()
    found = {}
    waiting = Thread(target=lambda: found.update(first=first.part(LONG)))
    waiting.start()
    time.sleep(0.2)
    assert waiting.is_alive()
    assert second.part(LONG)
    waiting.join(LONG)
    assert found == {"first": True}


def test_a_rank_that_is_gone_keeps_nobody():
    first, _ = two()
    assert not first.part(0.2)


def test_a_rank_that_has_failed_keeps_nobody_and_does_not_wait():
    first, second = two()
    assert second.fails_first()
    assert not first.part(LONG)
    assert not second.part(LONG)


def test_a_store_that_is_gone_keeps_nobody():
    class Gone:
        def add(self, key, amount):
            raise RuntimeError("Connection reset by peer")

    assert not Ranks(0, 2, store=Gone()).part(LONG)


@pytest.mark.parametrize(("are_done", "left"), [(True, 1), (False, 0)])
def test_the_group_is_left_only_where_all_are_done(are_done, left, monkeypatch):
    found = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: found.append(1))
    ranks = Ranks(0, 2)
    monkeypatch.setattr(ranks, "part", lambda seconds: are_done)
    monkeypatch.setattr(torchrun, "_joined", ranks)
    torchrun._leave()
    assert len(found) == left


@pytest.mark.parametrize(("error", "ends_alone"), [(Interrupted(15), True), (Interrupted(15, is_agreed=True), False)])
def test_who_is_cut_by_a_signal_waits_for_nobody(error, ends_alone):
    first, _ = two()
    with pytest.raises(KeyboardInterrupt), first.ending_together():
        raise error
    assert first.has_failed == ends_alone
    if ends_alone:
        assert not first.part(LONG)
