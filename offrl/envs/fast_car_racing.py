"""Gymnasium's CarRacing, drawn several times faster: the same frames, byte for byte.

What is saved: polygons are transformed all at once and skipped where they cannot touch the picture; the background
is a fill; the rows under the information bar are not drawn; surfaces and rendered scores are kept and shared. The
1000 x 800 picture is scaled down along x before it is turned upside down, which is the same as after (the scaling
works row by row) and moves a tenth of the bytes.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pygame
from gymnasium.envs.box2d.car_dynamics import SIZE, WHEEL_R, WHEEL_W, WHEEL_WHITE
from gymnasium.envs.box2d.car_racing import (
    GRASS_DIM,
    PLAYFIELD,
    SCALE,
    STATE_H,
    STATE_W,
    WINDOW_H,
    WINDOW_W,
    ZOOM,
    CarRacing,
)
from numpy.typing import NDArray
from pygame import gfxdraw

_BAR = WINDOW_H // 8  # height of the information bar, pixels of the large picture
_MARGIN = 2  # pixels that an antialiased edge may reach beyond its polygon
_LONGEST_INDICATOR = 3.9  # fortieths of the picture; a longer one leaves the bar
_REACH = math.hypot(WINDOW_W / 2, WINDOW_H * 3 / 4) + _MARGIN + 1  # from the car to the picture's farthest corner
_HALF_WIDTH, _HALF_HEIGHT = WINDOW_W / 2 + _MARGIN + 1, (WINDOW_H - _BAR) / 2 + _MARGIN + 1  # of the scene, and an edge
_SCORE_FORMAT = "%04i" if gymnasium.__version__.startswith("1.2.") else "%04.0f"  # 1.2 cuts where 1.4 rounds

Points = list[tuple[float, float]]


def _grass() -> NDArray[np.float64]:
    corners = np.array([(1, 0), (0, 0), (0, 1), (1, 1)])
    cells = [(x, y) for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
    patches: NDArray[np.float64] = GRASS_DIM * (np.array(cells)[:, None] + corners)
    return patches


@lru_cache(maxsize=4096)
def _score_picture(text: str) -> pygame.Surface:
    pygame.font.init()
    return pygame.font.Font(pygame.font.get_default_font(), 42).render(text, True, (255, 255, 255), (0, 0, 0))


def _picture(surface: pygame.Surface) -> NDArray[np.uint8]:
    """The colours of a surface. [H, W, 3]."""
    width, height = surface.get_size()
    # An array over a bytearray can be written to, as Gymnasium's can.
    pixels = np.frombuffer(bytearray(pygame.image.tobytes(surface, "RGB")), dtype=np.uint8)
    return pixels.reshape(height, width, 3)


class _View(NamedTuple):
    """From the world to the large picture, before it is turned upside down."""

    zoom: float
    cosine: float
    sine: float
    dx: float
    dy: float

    def project(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Pixels (x, y) of world coordinates, numbers or arrays; operation by operation as Gymnasium does it."""
        return (
            (x * self.cosine - y * self.sine) * self.zoom + self.dx,
            (x * self.sine + y * self.cosine) * self.zoom + self.dy,
        )

    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The lowest and the highest x and y of the world that the scene shows, with room for rounding."""
        right, up = (WINDOW_W / 2 - self.dx) / self.zoom, ((WINDOW_H + _BAR) / 2 - self.dy) / self.zoom
        x, y = right * self.cosine + up * self.sine, up * self.cosine - right * self.sine  # the scene's centre
        cosine, sine = abs(self.cosine) / self.zoom, abs(self.sine) / self.zoom
        reach_x = _HALF_WIDTH * cosine + _HALF_HEIGHT * sine
        reach_y = _HALF_WIDTH * sine + _HALF_HEIGHT * cosine
        return (x - reach_x, y - reach_y), (x + reach_x, y + reach_y)


class _Canvas(threading.local):
    """Where frames are drawn, one for each thread: environments that step in turn then share the memory near it.

    Attributes:
        large: the 1000 x 800 picture. The scene is drawn upside down: its first rows are those that the bar hides.
        scene: the rows of `large` that are seen of the scene.
        bar: its rows with the information bar.
        fills: `large` with a clip around the scene. Clipping a fill changes nothing inside the clip; clipping an
            antialiased line would move its pixels.
        narrow: the picture after the scaling along x.
    """

    def __init__(self) -> None:
        self.large = pygame.Surface((WINDOW_W, WINDOW_H))
        self.scene = self.large.subsurface((0, _BAR, WINDOW_W, WINDOW_H - _BAR))
        self.bar = self.large.subsurface((0, WINDOW_H - _BAR, WINDOW_W, _BAR))
        self.fills = self.large.subsurface((0, 0, WINDOW_W, WINDOW_H))
        self.fills.set_clip((0, _BAR, WINDOW_W, WINDOW_H - _BAR))
        self.narrow = pygame.Surface((STATE_W, WINDOW_H))


@lru_cache(maxsize=1)
def _canvas() -> _Canvas:
    return _Canvas()


class FastCarRacing(CarRacing):
    """CarRacing with a faster way to draw `state_pixels`; other render modes are Gymnasium's own."""

    car: Any
    road: Any

    def _create_track(self) -> bool:
        created = bool(super()._create_track())  # type: ignore[no-untyped-call]
        if created:
            self._prepare_polygons()
        return created

    def _prepare_polygons(self) -> None:
        grass = _grass()
        road = np.array([polygon for polygon, _ in self.road_poly], dtype=np.float64)
        # [2, 4, N]: x and y of the corners, world units. Rows as long as this are what numpy is fast at.
        self._corners = np.ascontiguousarray(np.concatenate([grass, road]).transpose(2, 1, 0))
        self._lowest, self._highest = self._corners.min(axis=1), self._corners.max(axis=1)  # [2, N]
        # Tiles change their colour when the car touches them: Gymnasium writes into `tile.color`. As rows of one
        # array, all colours are read at once.
        grass_colors = np.tile(np.asarray(self.grass_color, dtype=np.float64), (len(grass), 1))
        self._colors = np.concatenate([grass_colors, [color for _, color in self.road_poly]])
        row_of = {}
        for index, (polygon, color) in enumerate(self.road_poly, start=len(grass)):
            row_of[id(color)] = self._colors[index]
            self.road_poly[index - len(grass)] = (polygon, self._colors[index])
        for tile in self.road:
            tile.color = row_of[id(tile.color)]
        self._car_shapes: list[tuple[Any, list[Points]]] = []

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels" or "t" not in self.__dict__:
            return super()._render(mode)
        indicators = self._indicators()
        if any(length > _LONGEST_INDICATOR for _, _, length, _ in indicators):
            return super()._render(mode)
        canvas = _canvas()
        hull = self.car.hull
        zoom = 0.1 * SCALE * max(1 - self.t, 0) + ZOOM * SCALE * min(self.t, 1)
        scroll = pygame.math.Vector2(-hull.position[0] * zoom, -hull.position[1] * zoom).rotate_rad(-hull.angle)
        # pygame reduces the angle and has special cases near right angles: so cosine and sine are asked of it.
        cosine, sine = pygame.math.Vector2(1, 0).rotate_rad(-hull.angle)
        view = _View(zoom, cosine, sine, WINDOW_W / 2 + scroll[0], WINDOW_H / 4 + scroll[1])
        self._draw_field(canvas, view)
        self._draw_polygons(canvas, view)
        self._draw_car(canvas.large, view)
        scene = pygame.transform.smoothscale(canvas.scene, (STATE_W, WINDOW_H - _BAR))
        self._draw_bar(canvas, indicators)
        canvas.narrow.blit(pygame.transform.flip(scene, False, True), (0, 0))
        canvas.narrow.blit(pygame.transform.smoothscale(canvas.bar, (STATE_W, _BAR)), (0, WINDOW_H - _BAR))
        return _picture(pygame.transform.smoothscale(canvas.narrow, (STATE_W, STATE_H)))

    def _draw_field(self, canvas: _Canvas, view: _View) -> None:
        color = [int(c) for c in self.bg_color]
        x, y = self.car.hull.position
        if max(abs(x), abs(y)) + _REACH / view.zoom < PLAYFIELD:  # the field's border is out of sight
            canvas.fills.fill(color)
            return
        canvas.fills.fill((0, 0, 0))
        corners = [(PLAYFIELD, PLAYFIELD), (PLAYFIELD, -PLAYFIELD), (-PLAYFIELD, -PLAYFIELD), (-PLAYFIELD, PLAYFIELD)]
        field = [view.project(x, y) for x, y in corners]
        gfxdraw.aapolygon(canvas.large, field, color)
        gfxdraw.filled_polygon(canvas.fills, field, color)

    def _draw_polygons(self, canvas: _Canvas, view: _View) -> None:
        # Two rectangles meet unless their shadows are apart along a side of one of them: first those of the world's
        # axes, along which the grass lies, then, for the few that are left, those of the picture.
        (west, south), (east, north) = view.bounds()
        (left, low), (right, high) = self._lowest, self._highest
        indices = np.flatnonzero((right > west) & (left < east) & (high > south) & (low < north))
        corners = self._corners[:, :, indices]
        x, y = view.project(corners[0], corners[1])
        seen = np.flatnonzero(
            (x.max(axis=0) >= -_MARGIN)
            & (x.min(axis=0) <= WINDOW_W + _MARGIN)
            & (y.max(axis=0) >= _BAR - _MARGIN)
            & (y.min(axis=0) <= WINDOW_H + _MARGIN)
        )
        # gfxdraw cuts fractions off; integers, which have none, are faster to hand over.
        polygons = np.array([x[:, seen], y[:, seen]]).astype(np.int64).transpose(2, 1, 0).tolist()
        colors = self._colors[indices[seen]].astype(np.int64).tolist()
        large, fills, outline, fill = canvas.large, canvas.fills, gfxdraw.aapolygon, gfxdraw.filled_polygon
        for polygon, color in zip(polygons, colors, strict=True):
            outline(large, polygon, color)
            fill(fills, polygon, color)

    def _draw_car(self, large: pygame.Surface, view: _View) -> None:
        if not self._car_shapes:
            self._car_shapes = [(body, [f.shape.vertices for f in body.fixtures]) for body in self.car.drawlist]
        zoom, cosine, sine, dx, dy = view
        for body, shapes in self._car_shapes:
            transform = body.transform
            red, green, blue = (int(c * 255) for c in body.color)
            polygons = [(shape, (red, green, blue)) for shape in shapes]
            if "phase" in body.__dict__:  # a wheel
                polygons += [(stripe, WHEEL_WHITE) for stripe in _wheel_stripes(body.phase)]
            for vertices, color in polygons:
                points = [transform * vertex for vertex in vertices]
                # view.project, written out: some fifty points a frame
                points = [((x * cosine - y * sine) * zoom + dx, (x * sine + y * cosine) * zoom + dy) for x, y in points]
                pygame.draw.polygon(large, color, points)

    def _indicators(self) -> list[tuple[float, int, float, tuple[int, int, int]]]:
        """(value, place, length, colour) of the upright bars; place and length in fortieths of the picture."""
        vx, vy = self.car.hull.linearVelocity
        speed = math.sqrt(vx * vx + vy * vy)
        blue, violet = (0, 0, 255), (51, 0, 255)
        spins = zip(self.car.wheels, (7, 8, 9, 10), (blue, blue, violet, violet), strict=True)
        wheels = [(wheel.omega, place, 0.01 * wheel.omega, color) for wheel, place, color in spins]
        return [(speed, 5, 0.02 * speed, (255, 255, 255)), *wheels]

    def _draw_bar(self, canvas: _Canvas, indicators: list[tuple[float, int, float, tuple[int, int, int]]]) -> None:
        width, height = WINDOW_W / 40.0, WINDOW_H / 40.0
        canvas.bar.fill((0, 0, 0))
        boxes = [
            (value, color, place * width, (place + 1) * width, WINDOW_H - (height + height * length), WINDOW_H - height)
            for value, place, length, color in indicators
        ]
        steering, spin = self.car.wheels[0].joint.angle, self.car.hull.angularVelocity
        top, bottom = WINDOW_H - 4 * height, WINDOW_H - 2 * height
        boxes.append((steering, (0, 255, 0), 20 * width, (20 + -10.0 * steering) * width, top, bottom))
        boxes.append((spin, (255, 0, 0), 30 * width, (30 + -0.8 * spin) * width, top, bottom))
        for value, color, left, right, top, bottom in boxes:
            if abs(value) > 1e-4:
                pygame.draw.polygon(canvas.large, color, [(left, top), (right, top), (right, bottom), (left, bottom)])
        score = _score_picture(_SCORE_FORMAT % self.reward)
        rectangle = score.get_rect()
        rectangle.center = (60, WINDOW_H - WINDOW_H * 2.5 / 40.0)
        canvas.large.blit(score, rectangle)


def _wheel_stripes(phase: float) -> list[Points]:
    """The light stripe of a wheel that has turned by `phase`, in the wheel's coordinates; none on its far side."""
    sine_1, sine_2 = math.sin(phase), math.sin(phase + 1.2)
    cosine_1, cosine_2 = math.cos(phase), math.cos(phase + 1.2)
    if sine_1 > 0 and sine_2 > 0:
        return []
    if sine_1 > 0:
        cosine_1 = math.copysign(1.0, cosine_1)
    if sine_2 > 0:
        cosine_2 = math.copysign(1.0, cosine_2)
    half_width, radius_1, radius_2 = WHEEL_W * SIZE, WHEEL_R * cosine_1 * SIZE, WHEEL_R * cosine_2 * SIZE
    return [[(-half_width, radius_1), (half_width, radius_1), (half_width, radius_2), (-half_width, radius_2)]]
