import base64
import re
import struct
import zlib
from functools import partial

import numpy as np
import pytest

from offrl.collection import collect
from offrl.envs import RandomBehaviour, car_racing, make
from offrl.replay import ingest
from offrl.report import write_report
from offrl.report._markup import gray_png


def decoded(png):
    """The picture in a gray PNG without filters, chunk by chunk."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, rest = {}, png[8:]
    while rest:
        (size,) = struct.unpack(">I", rest[:4])
        kind, data, checksum = rest[4:8], rest[8 : 8 + size], rest[8 + size : 12 + size]
        assert struct.unpack(">I", checksum)[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        rest = rest[12 + size :]
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_a_png_holds_the_picture():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decoded(gray_png(image)), image)


def test_a_png_is_one_for_others_too(tmp_path):
    matplotlib_image = pytest.importorskip("matplotlib.image")
    image = np.array([[0, 255], [51, 102]], np.uint8)
    (tmp_path / "a.png").write_bytes(gray_png(image))
    np.testing.assert_allclose(matplotlib_image.imread(tmp_path / "a.png") * 255, image, atol=0.01)


def test_vectors_have_counts_returns_and_actions(run, tmp_path):
    cart_pole = partial(make, "CartPole-v1")
    collect(cart_pole, RandomBehaviour(), tmp_path / "data", transitions=50, workers=1, progress=False)
    store = ingest(tmp_path / "data", progress=False)
    page = write_report(run, dataset=store).read_text(encoding="utf-8")
    assert f'<th>transitions</th><td class="number">{len(store)}</td>' in page
    share = 100 * np.mean(store.actions == 1)
    assert '<div>action 1</div><div class="track"><div class="filled" style="width:' in page
    assert f'<div class="share">{share:.1f} %</div>' in page
    assert "What a policy sees" not in page
    assert "Against its data" in page


def test_pixels_show_what_a_policy_sees(run, tmp_path):
    frames = np.random.default_rng(0).integers(256, size=(6, 4, 96, 96), dtype=np.uint8)
    rows = {"states": frames[:-1], "next_states": frames[1:], "actions": [0, 1, 2, 3, 4], "rewards": np.ones(5)}
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "a.npz", **rows, dones=[False] * 4 + [True])
    store = ingest(tmp_path / "data", spec=car_racing.spec(), progress=False)
    page = write_report(run, dataset=store).read_text(encoding="utf-8")
    shown = [decoded(base64.b64decode(found)) for found in re.findall(r"data:image/png;base64,([\w+/=]+)", page)]
    assert len(shown) == 4
    known = {np.hstack(stack).tobytes() for stack in frames[:-1]}
    assert all(picture.tobytes() in known for picture in shown)
    assert '<div>full right, full brake</div><div class="track"><div class="filled" style="width:0.0%"' in page
    assert '<div class="share">never</div>' in page
    assert "actions never occur" in page
