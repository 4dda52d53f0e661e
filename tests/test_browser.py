"""The map in a real Chromium: no request leaves, nothing from data runs, hover, legend, units,
layers, places and route work."""

import io
import os
import shutil
from pathlib import Path

import geopandas as gpd
import matplotlib.image
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import LineString

from spacenet5_nb import maps

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
TWO_FRAMES = (
    "() => new Promise(done => requestAnimationFrame(() => "
    "requestAnimationFrame(done)))"
)  # what was asked for has been drawn
PAYLOAD = (
    '</script><script>alert(1)</script><img src=x onerror="alert(2)"><svg onload=alert(3)>{{ 7*7 }}'
)


def chromium():
    "Path of a Chromium, or None."
    names = [
        os.environ.get("CHROMIUM", ""),
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ]
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (extra [dev])"
    )
    if not (path := chromium()):
        pytest.skip("no Chromium: set $CHROMIUM or put chromium on PATH")
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=FLAGS)
        yield b
        b.close()


class Watched:
    "A page with everything that must not happen written down."

    def __init__(self, browser, *, offline=True, size=(1280, 800)):
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, offline=offline
        )
        self.page = self.context.new_page()
        self.requests, self.errors, self.dialogs = [], [], []
        self.page.on(
            "request",
            lambda r: (
                self.requests.append(r.url) if not r.url.startswith(("data:", "blob:")) else None
            ),
        )
        self.page.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("dialog", lambda d: (self.dialogs.append(d.message), d.dismiss()))

    def open(self, path):
        self.page.goto(Path(path).as_uri())
        self.page.wait_for_function("typeof map_roads !== 'undefined' && map_roads.spacenet5")
        return self

    def at(self, layer, i, part=0.5):
        "Pixel of a point part of the way along a road's first segment."
        script = """([l, i, t]) => {
            const p = map_roads.spacenet5.layers[l].line(i), a = p[0], b = p[1];
            const there = [a[0] + t*(b[0]-a[0]), a[1] + t*(b[1]-a[1])];
            const q = map_roads.latLngToContainerPoint(there); return [q.x, q.y]; }"""
        return self.page.evaluate(script, [layer, i, part])

    def hover(self, *xy):
        self.page.mouse.move(xy[0] + 40, xy[1] + 40)
        self.page.mouse.move(*xy)
        self.page.wait_for_selector(".s5-tip")
        return self.page.inner_text(".s5-tip")

    def clean(self):
        assert self.dialogs == [] and self.errors == [], (self.dialogs, self.errors)
        assert len(self.requests) == 1 and self.requests[0].startswith("file:"), self.requests


@pytest.fixture
def watch(browser):
    pages = []

    def make(**kwargs):
        pages.append(Watched(browser, **kwargs))
        return pages[-1]

    yield make
    for w in pages:
        w.context.close()


def square(x=411000.0, y=6178000.0, crs="EPSG:32637", **edge):
    """A square of 300 m with two ways from corner 0 to corner 2: 0-1-2 at 60 km/h, 0-3-2 at 20
    km/h; and an island."""
    g, at = (
        nx.MultiGraph(crs=crs),
        {0: (0, 0), 1: (300, 0), 2: (300, 300), 3: (0, 300), 4: (600, 0), 5: (600, 300)},
    )
    for n, (dx, dy) in at.items():
        g.add_node(n, x=x + dx, y=y + dy)
    for a, b, kph in ((0, 1, 60), (1, 2, 60), (0, 3, 20), (3, 2, 20), (4, 5, 90)):
        line = LineString([(x + at[n][0], y + at[n][1]) for n in (a, b)])
        g.add_edge(
            a,
            b,
            geometry=line,
            length=300.0,
            speed_kph=float(kph),
            travel_time=300 / kph * 3.6,
            speed_confidence=0.8,
            level=int(a == 4),
            **edge,
        )
    return g


def a_map(text="Arbat", **kwargs):
    chips = {
        "AOI_7_Moscow_chip1": square(name=text, highway=text),
        "AOI_2_Vegas_chip2": square(662000.0, 4002000.0, "EPSG:32611"),
    }
    boxes = maps.road_frame(chips).dissolve("chip").bounds
    pictures = {
        c: maps.Overlay(np.full((4, 60, 80), 120, np.uint8), tuple(boxes.loc[c])) for c in chips
    }
    scores = boxes.reset_index().assign(apls_length=[0.5, 0.7], apls_time=0.4)
    return maps.speed_map(
        chips, truth=chips, imagery=pictures, probabilities=pictures, scores=scores, **kwargs
    )


def test_the_map_asks_for_nothing_and_shows_speeds(watch, tmp_path):
    w = watch().open(maps.save(a_map(attribution="Imagery: generated"), tmp_path / "map.html"))
    go_to(w, "Moscow")
    tip = w.hover(*w.at(0, 0))
    assert (
        "60 km/h" in tip and "300 m" in tip and "18 s" in tip and "80 %" in tip and "Arbat" in tip
    )
    assert "Class" in tip and "Speed class\t75–95 km/h" in card_of(w, "Vegas", 9)
    go_to(w, "Moscow")
    legend = w.page.inner_text(".s5-legend")
    assert (
        w.page.is_visible(".s5-legend")
        and "km/h" in legend
        and "10 roads" in legend
        and "overpass" in legend
    )
    w.page.mouse.click(*w.at(0, 0))
    popup = w.page.inner_text(".s5-popup")
    assert "37 mph" in popup and "AOI_7_Moscow_chip1" in popup
    w.page.screenshot(path=tmp_path / "map.png")
    w.clean()


def card_of(w, place, i):
    go_to(w, place)
    return w.hover(*w.at(0, i))


def go_to(w, name):
    w.page.locator(".s5-places button", has_text=name).click()


def test_roads_are_drawn_where_they_are(watch, tmp_path):
    w = watch().open(
        maps.save(maps.speed_map({"AOI_7_Moscow_chip1": square()}), tmp_path / "map.html")
    )
    x, y = w.at(0, 0)
    image = (matplotlib.image.imread(io.BytesIO(w.page.screenshot()))[..., :3] * 255).transpose(
        2, 0, 1
    )
    wanted = np.array(
        [
            int(
                maps.speed_scale().colors[int(maps.class_of([60], maps.speed_scale())[0])][
                    i : i + 2
                ],
                16,
            )
            for i in (1, 3, 5)
        ]
    )
    assert np.abs(image[:, int(y), int(x)].astype(int) - wanted).max() < 60, (
        "the road's own colour, a little dimmed by its confidence"
    )


def test_places_and_layers(watch, tmp_path):
    w = watch().open(maps.save(a_map(), tmp_path / "map.html"))
    assert [b.split("\n")[0] for b in w.page.locator(".s5-places button").all_inner_texts()] == [
        "Moscow",
        "Vegas",
    ]
    go_to(w, "Vegas")
    assert w.page.evaluate("map_roads.getCenter().lng") == pytest.approx(-115.2, abs=0.3)
    names = w.page.locator(".leaflet-control-layers-overlays label").all_inner_texts()
    assert [n.strip() for n in names] == [
        "Predicted speed",
        "Truth",
        "Missed roads",
        "Extra roads",
        "Imagery",
        "Road probability",
        "Score per chip",
    ]
    assert (
        w.page.locator(".s5-scoreicon", has_text="AOI_2_Vegas_chip2").inner_text().split("\n")[0]
        == "AOI_2_Vegas_chip2"
    )
    w.page.get_by_label("Predicted speed").uncheck()
    w.page.get_by_label("Truth").check()
    assert "Truth" in w.hover(*w.at(1, 5))
    w.page.get_by_label("Truth").uncheck()
    w.page.wait_for_selector(".s5-tip", state="detached")  # it fades
    w.page.mouse.move(5, 700)
    w.page.mouse.move(*w.at(0, 5))
    w.page.evaluate(TWO_FRAMES)
    assert not w.page.locator(".s5-tip").count(), "what is hidden does not answer"
    w.clean()


def test_the_route_takes_the_quicker_way(watch, tmp_path):
    w = watch().open(
        maps.save(maps.speed_map({"AOI_7_Moscow_chip1": square()}), tmp_path / "map.html")
    )
    w.page.get_by_text("Quickest route").click()
    corner = lambda i, t: w.page.mouse.click(*w.at(0, i, t))
    said = lambda: w.page.inner_text(".s5-say")
    corner(1, 0.02)
    corner(3, 0.98)  # from near corner 0 to near corner 2, both on the slow side
    assert said().startswith("38 s, 612 m"), said()  # back 6 m at 20, 600 m at 60, 6 m at 20
    corner(0, 0.25)
    corner(0, 0.75)
    assert said().startswith("9.0 s, 150 m, 60 km/h"), said()
    corner(0, 0.5)
    corner(4, 0.5)
    assert "no connection" in said()
    w.page.keyboard.press("Escape")
    assert not w.page.is_visible(".s5-say")
    w.clean()


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", PAYLOAD], ids=["script", "everything"]
)
def test_text_from_data_never_runs(watch, tmp_path, evil):
    """In tooltip, popup, layer names, places, legend, attribution, scores and pictures: seen as
    the text it is."""
    frame = maps.road_frame({f"AOI_7_Moscow_chip1{evil}": square(name=evil, highway=evil)}).assign(
        city=evil
    )
    other = maps.road_frame(
        {f"AOI_2_Vegas_chip2{evil}": square(662000.0, 4002000.0, "EPSG:32611")}
    ).assign(city=evil + "2")
    roads = pd.concat([frame, other], ignore_index=True)
    boxes = roads.dissolve("chip").bounds
    pictures = {
        c: maps.Overlay(np.full((4, 6, 8), 120, np.uint8), tuple(boxes.loc[c])) for c in boxes.index
    }
    scores = boxes.reset_index().assign(apls_length=0.5, apls_time=0.4)
    m = maps.speed_map(
        roads,
        truth=roads,
        imagery=pictures,
        probabilities=pictures,
        scores=scores,
        title=evil,
        attribution=evil,
    )
    w = watch().open(maps.save(m, tmp_path / "map.html"))
    w.page.locator(".s5-places button").first.click()
    assert evil[:40] in w.page.locator(".s5-places").inner_text() and evil in w.page.inner_text(
        ".s5-legend"
    )
    assert evil in w.page.inner_text(".leaflet-control-attribution") and evil in w.page.inner_text(
        ".leaflet-control-layers"
    )
    i = next(
        i
        for i in range(len(roads))
        if all(0 < v < s for v, s in zip(w.at(0, i), (1280, 800), strict=True))
        and roads["name"][i] == evil
    )
    assert evil in w.hover(*w.at(0, i))
    w.page.mouse.click(*w.at(0, i))
    assert evil in w.page.inner_text(".s5-popup")
    for box in w.page.locator(".leaflet-control-layers input").all():
        box.check()
    w.page.get_by_role("button", name="mph").click()
    w.page.evaluate(TWO_FRAMES)
    assert not w.page.evaluate(
        "document.querySelectorAll('img[src=x], svg[onload], .leaflet-container script').length"
    )
    w.clean()


def test_even_an_injected_script_is_refused(watch, tmp_path):
    path = maps.save(a_map(), tmp_path / "map.html")
    path.write_text(
        path.read_text().replace(
            "</body>",
            "<script>alert(1)</script><img src='http://127.0.0.1:9/x.png' "
            "onerror='alert(2)'></body>",
        )
    )
    w = watch(offline=False).open(path)
    w.page.evaluate(TWO_FRAMES)
    assert w.dialogs == [] and any("Content Security Policy" in e for e in w.errors), (
        "the policy stops what slipped in"
    )


def test_no_roads_and_a_small_screen(watch, tmp_path):
    w = watch().open(maps.save(maps.speed_map({}), tmp_path / "empty.html"))
    assert "0 roads" in w.page.inner_text(".s5-legend")
    w.clean()
    w = watch(size=(390, 700)).open(maps.save(a_map(), tmp_path / "map.html"))
    assert w.page.is_visible(".s5-legend")
    w.clean()


def test_a_route_goes_on_in_the_next_chip(watch, tmp_path):
    """Two chips whose roads end 2 m apart: one way, of both lengths; at 20 m: none, and the map
    says why."""

    def chips(gap):
        out = {}
        for k, (a, b) in enumerate(((0, 100), (100 + gap, 200 + gap))):
            g = nx.MultiGraph(crs="EPSG:32637")
            for node, x in ((0, a), (1, b)):
                g.add_node(node, x=411000.0 + x, y=6178000.0 + x)
            g.add_edge(
                0,
                1,
                geometry=LineString([(411000.0 + a, 6178000.0 + a), (411000.0 + b, 6178000.0 + b)]),
                length=100.0,
                speed_kph=36.0,
                travel_time=10.0,
            )
            out[f"AOI_7_Moscow_chip{k}"] = g
        return out

    for gap, says in ((2.0, "10 s, 100 m, 36 km/h"), (20.0, "different chips")):
        w = watch().open(maps.save(maps.speed_map(chips(gap)), tmp_path / f"{gap}.html"))
        w.page.get_by_text("Quickest route").click()
        w.page.mouse.click(*w.at(0, 0, 0.5))
        w.page.mouse.click(*w.at(0, 1, 0.5))
        assert says in w.page.inner_text(".s5-say")
        w.clean()


def test_the_reader_chooses_the_unit(watch, tmp_path):
    w = watch().open(
        maps.save(maps.speed_map({"AOI_7_Moscow_chip1": square()}), tmp_path / "map.html")
    )
    labels = lambda: w.page.locator(".s5-scale small").all_inner_texts()
    assert labels() == list(maps.speed_scale().labels) and "60 km/h" in w.hover(*w.at(0, 0))
    w.page.get_by_text("Quickest route").click()
    w.page.mouse.click(*w.at(0, 0, 0.25))
    w.page.mouse.click(*w.at(0, 0, 0.75))
    w.page.get_by_role("button", name="mph").click()
    assert labels() == list(maps.speed_scale("mph").labels) and w.page.inner_text(
        ".leaflet-control-scale-line"
    ).endswith("ft")
    assert w.page.inner_text(".s5-say").startswith("9.0 s, 0.09 mi, 37 mph")
    w.page.keyboard.press("Escape")
    assert "37 mph" in w.hover(*w.at(0, 0))
    kinds = w.page.evaluate("[...map_roads.spacenet5.layers[0].cls]")
    kph = maps.road_frame(square()).speed_kph
    assert kinds == maps.class_of(kph, maps.speed_scale("mph")).tolist(), (
        "page and Python sort speeds into the same classes"
    )
    w.page.get_by_role("button", name="km/h").click()
    assert (
        w.page.evaluate("[...map_roads.spacenet5.layers[0].cls]")
        == maps.class_of(kph, maps.speed_scale()).tolist()
    )
    w.clean()


def test_page_and_python_agree_on_every_limit(watch, tmp_path):
    """Whole miles and whole kilometres per hour lie on breaks: neither the page's rounding nor its
    arithmetic moves one."""
    kph = [None, *np.arange(0, 131, 5).tolist(), *(np.arange(0, 85, 5) * 1.609344).tolist()]
    lines = [
        LineString([(37.5 + i * 1e-3, 55.7), (37.5 + i * 1e-3, 55.701)]) for i in range(len(kph))
    ]
    roads = gpd.GeoDataFrame({"speed_kph": kph}, geometry=lines, crs="EPSG:4326")
    w = watch().open(maps.save(maps.speed_map(roads), tmp_path / "map.html"))
    for unit in ("mph", "km/h"):
        w.page.get_by_role("button", name=unit).click()
        assert (
            w.page.evaluate("[...map_roads.spacenet5.layers[0].cls]")
            == maps.class_of([np.nan, *kph[1:]], maps.speed_scale(unit)).tolist()
        )
    assert "speed unknown" in w.page.inner_text(".s5-legend") and "speed unknown" in w.hover(
        *w.at(0, 0)
    )
    w.clean()


def pixel(w, x, y):
    image = (matplotlib.image.imread(io.BytesIO(w.page.screenshot()))[..., :3] * 255).astype(int)
    return image[int(y), int(x)]


def test_what_is_switched_on_is_seen(watch, tmp_path):
    """Roads, imagery and probabilities change the pixels under them; an overpass lies above a
    faster road it crosses."""
    g = square()
    x, y = g.nodes[0]["x"], g.nodes[0]["y"]
    for n, dx, dy in ((6, 150, -100), (7, 150, 100)):
        g.add_node(n, x=x + dx, y=y + dy)
    g.add_edge(
        6,
        7,
        geometry=LineString([(x + 150, y - 100), (x + 150, y + 100)]),
        length=200.0,
        speed_kph=20.0,
        travel_time=36.0,
        speed_confidence=1.0,
        level=1,
    )
    box = maps.road_frame(g).total_bounds
    green, red = (
        np.array([*c, 255], np.uint8)[:, None, None] * np.ones((1, 30, 30), np.uint8)
        for c in ((20, 120, 20), (230, 40, 40))
    )
    w = watch().open(
        maps.save(
            maps.speed_map(
                {"AOI_7_Moscow_chip1": g},
                imagery={"a": maps.Overlay(green, tuple(box))},
                probabilities={"a": maps.Overlay(red, tuple(box))},
            ),
            tmp_path / "map.html",
        )
    )
    middle = np.mean([w.at(0, 0), w.at(0, 3)], axis=0)  # inside the square, away from roads
    assert pixel(w, *middle)[1] == pixel(w, *middle).max()
    w.page.get_by_label("Road probability").check()
    w.page.evaluate(TWO_FRAMES)
    assert pixel(w, *middle)[0] == pixel(w, *middle).max()
    colors = [
        np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in maps.speed_scale().colors
    ]
    assert np.abs(pixel(w, *w.at(0, 5, 0.5)) - colors[0]).max() < 25, "slow, but above"
    w.page.get_by_label("Predicted speed").uncheck()
    w.page.evaluate(TWO_FRAMES)
    assert np.abs(pixel(w, *w.at(0, 5, 0.5)) - colors[0]).max() > 60
    w.clean()


@pytest.mark.slow
def test_twenty_thousand_roads_are_one_canvas_and_one_graph(watch, tmp_path):
    n = 100
    g = nx.MultiGraph(crs="EPSG:32637")
    at = lambda i, j: (411000.0 + 90 * i, 6178000.0 + 90 * j)
    for i in range(n):
        for j in range(n):
            g.add_node(n * i + j, x=at(i, j)[0], y=at(i, j)[1])
    for i in range(n):
        for j in range(n):
            for a, b in ((i + 1, j), (i, j + 1)):
                if a == n or b == n:
                    continue
                (x0, y0), (x1, y1) = at(i, j), at(a, b)
                line, kph = (
                    LineString([(x0, y0), ((x0 + x1) / 2 + 4, (y0 + y1) / 2 - 4), (x1, y1)]),
                    20.0 + 5 * ((i * j) % 17),
                )
                g.add_edge(
                    n * i + j,
                    n * a + b,
                    geometry=line,
                    length=line.length,
                    speed_kph=kph,
                    travel_time=line.length / kph * 3.6,
                    speed_confidence=0.5,
                )
    w = watch().open(maps.save(maps.speed_map(g), tmp_path / "map.html"))
    script = """() => { const s = map_roads.spacenet5, layer = s.layers[0];
        const end = i => ({i, part: 0, at: layer.line(i)[0]});
        return {roads: layer.n,
                canvases: document.querySelectorAll(".leaflet-predicted-pane canvas").length,
                paths: document.querySelectorAll("path").length,
                seconds: new s.Graph(layer).route(end(0), end(layer.n - 1)).seconds}; }"""
    found = w.page.evaluate(script)
    frame = maps.road_frame(g)
    roads = nx.MultiGraph(
        [
            (u, v, {"t": round(t, 2)})
            for u, v, t in zip(frame.u, frame.v, frame.travel_time, strict=True)
        ]
    )
    assert found["roads"] == 2 * n * (n - 1) and found["canvases"] == 1 and found["paths"] == 0
    assert found["seconds"] == pytest.approx(
        nx.dijkstra_path_length(roads, frame.u.iloc[0], frame.u.iloc[-1], weight="t"), abs=0.01
    ), "as networkx has it"
    w.clean()
