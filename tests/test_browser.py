"The map and the notebooks in a real Chromium: no request leaves, nothing from data runs, hover, legend, layers, places and route work."
import io
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import matplotlib.image
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import LineString

from spacenet5_nb import maps

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"  # what was asked for has been drawn
PAYLOAD = '</script><script>alert(1)</script><img src=x onerror="alert(2)"><svg onload=alert(3)>{{ 7*7 }}'


def chromium():
    "Path of a Chromium, or None."
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra [dev])")
    if not (path := chromium()): pytest.skip("no Chromium: set $CHROMIUM or put chromium on PATH")
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=FLAGS)
        yield b
        b.close()


class Watched:
    "A page with everything that must not happen written down."
    def __init__(self, browser, *, offline=True, size=(1280, 800)):
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=offline)
        self.page = self.context.new_page()
        self.requests, self.errors, self.dialogs = [], [], []
        self.page.on("request", lambda r: self.requests.append(r.url) if not r.url.startswith(("data:", "blob:")) else None)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("dialog", lambda d: (self.dialogs.append(d.message), d.dismiss()))

    def open(self, path):
        self.page.goto(Path(path).as_uri())
        self.page.wait_for_function("typeof map_roads !== 'undefined' && map_roads.spacenet5")
        return self

    def at(self, layer, i, part=0.5):
        "Pixel of a point part of the way along a road's first segment."
        script = """([l, i, t]) => { const p = map_roads.spacenet5.layers[l].points[i], a = p[0], b = p[1];
            const q = map_roads.latLngToContainerPoint([a[0] + t*(b[0]-a[0]), a[1] + t*(b[1]-a[1])]); return [q.x, q.y]; }"""
        return self.page.evaluate(script, [layer, i, part])

    def hover(self, *xy):
        self.page.mouse.move(xy[0] + 40, xy[1] + 40); self.page.mouse.move(*xy)
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
    for w in pages: w.context.close()


def square(x=411000.0, y=6178000.0, crs="EPSG:32637", **edge):
    "A square of 300 m with two ways from corner 0 to corner 2: 0-1-2 at 60 km/h, 0-3-2 at 20 km/h; and an island."
    g, at = nx.MultiGraph(crs=crs), {0: (0, 0), 1: (300, 0), 2: (300, 300), 3: (0, 300), 4: (600, 0), 5: (600, 300)}
    for n, (dx, dy) in at.items(): g.add_node(n, x=x + dx, y=y + dy)
    for a, b, kph in ((0, 1, 60), (1, 2, 60), (0, 3, 20), (3, 2, 20), (4, 5, 90)):
        line = LineString([(x + at[n][0], y + at[n][1]) for n in (a, b)])
        g.add_edge(a, b, geometry=line, length=300.0, speed_kph=float(kph), travel_time=300/kph*3.6, speed_confidence=0.8, level=int(a == 4), **edge)
    return g


def a_map(text="Arbat", **kwargs):
    chips = {"AOI_7_Moscow_chip1": square(name=text, highway=text), "AOI_2_Vegas_chip2": square(662000.0, 4002000.0, "EPSG:32611")}
    boxes = maps.road_frame(chips).dissolve("chip").bounds
    pictures = {c: maps.Overlay(np.full((4, 60, 80), 120, np.uint8), tuple(boxes.loc[c])) for c in chips}
    scores = boxes.reset_index().assign(apls_length=[0.5, 0.7], apls_time=0.4)
    return maps.speed_map(chips, truth=chips, imagery=pictures, scores=scores, **kwargs)


def test_the_map_asks_for_nothing_and_shows_speeds(watch, tmp_path):
    w = watch().open(maps.save(a_map(attribution="Imagery: generated"), tmp_path/"map.html"))
    go_to(w, "Moscow")
    tip = w.hover(*w.at(0, 0))
    assert "60 km/h" in tip and "300 m" in tip and "18 s" in tip and "80 %" in tip and "Arbat" in tip
    legend = w.page.inner_text(".s5-legend")
    assert w.page.is_visible(".s5-legend") and "km/h" in legend and "10 roads" in legend and "overpass" in legend
    w.page.mouse.click(*w.at(0, 0))
    popup = w.page.inner_text(".s5-popup")
    assert "37 mph" in popup and "AOI_7_Moscow_chip1" in popup
    w.page.screenshot(path=tmp_path/"map.png")
    w.clean()


def go_to(w, name): w.page.locator(".s5-places button", has_text=name).click()


def test_roads_are_drawn_where_they_are(watch, tmp_path):
    w = watch().open(maps.save(maps.speed_map({"AOI_7_Moscow_chip1": square()}), tmp_path/"map.html"))
    x, y = w.at(0, 0)
    image = (matplotlib.image.imread(io.BytesIO(w.page.screenshot()))[..., :3]*255).transpose(2, 0, 1)
    wanted = np.array([int(maps.speed_scale().colors[int(maps.class_of([60], maps.speed_scale())[0])][i:i+2], 16) for i in (1, 3, 5)])
    assert np.abs(image[:, int(y), int(x)].astype(int) - wanted).max() < 60, "the road's own colour, a little dimmed by its confidence"


def test_places_and_layers(watch, tmp_path):
    w = watch().open(maps.save(a_map(), tmp_path/"map.html"))
    assert [b.split("\n")[0] for b in w.page.locator(".s5-places button").all_inner_texts()] == ["Moscow", "Vegas"]
    go_to(w, "Vegas")
    assert w.page.evaluate("map_roads.getCenter().lng") == pytest.approx(-115.2, abs=0.3)
    names = w.page.locator(".leaflet-control-layers-overlays label").all_inner_texts()
    assert [n.strip() for n in names] == ["Predicted speed", "Truth", "Missed roads", "Extra roads", "Imagery", "Score per chip"]
    assert w.page.locator(".s5-scoreicon", has_text="AOI_2_Vegas_chip2").inner_text().split("\n")[0] == "AOI_2_Vegas_chip2"
    w.page.get_by_label("Predicted speed").uncheck(); w.page.get_by_label("Truth").check()
    assert "Truth" in w.hover(*w.at(1, 5))
    w.page.get_by_label("Truth").uncheck()
    w.page.wait_for_selector(".s5-tip", state="detached")   # it fades
    w.page.mouse.move(5, 700); w.page.mouse.move(*w.at(0, 5)); w.page.evaluate(TWO_FRAMES)
    assert not w.page.locator(".s5-tip").count(), "what is hidden does not answer"
    w.clean()


def test_the_route_takes_the_quicker_way(watch, tmp_path):
    w = watch().open(maps.save(maps.speed_map({"AOI_7_Moscow_chip1": square()}), tmp_path/"map.html"))
    w.page.get_by_text("Quickest route").click()
    corner = lambda i, t: w.page.mouse.click(*w.at(0, i, t))
    said = lambda: w.page.inner_text(".s5-say")
    corner(1, 0.02); corner(3, 0.98)        # from near corner 0 to near corner 2, both on the slow side
    assert said().startswith("38 s, 612 m"), said()  # back 6 m at 20, 600 m at 60, 6 m at 20
    corner(0, 0.25); corner(0, 0.75)
    assert said().startswith("9.0 s, 150 m, 60 km/h"), said()
    corner(0, 0.5); corner(4, 0.5)
    assert "no connection" in said()
    w.page.keyboard.press("Escape")
    assert not w.page.is_visible(".s5-say")
    w.clean()


def test_text_from_data_never_runs(watch, tmp_path):
    frame = maps.road_frame({f"AOI_7_Moscow_chip1{PAYLOAD}": square(name=PAYLOAD, highway=PAYLOAD)}).assign(city=PAYLOAD)
    other = maps.road_frame({f"AOI_2_Vegas_chip2{PAYLOAD}": square(662000.0, 4002000.0, "EPSG:32611")}).assign(city=PAYLOAD + "2")
    roads = pd.concat([frame, other], ignore_index=True)
    scores = roads.dissolve("chip").bounds.reset_index().assign(apls_length=0.5, apls_time=0.4)
    w = watch().open(maps.save(maps.speed_map(roads, truth=roads, scores=scores, title=PAYLOAD, attribution=PAYLOAD), tmp_path/"map.html"))
    w.page.locator(".s5-places button").first.click()
    assert PAYLOAD[:40] in w.page.locator(".s5-places").inner_text() and PAYLOAD in w.page.inner_text(".s5-legend")
    i = next(i for i in range(len(roads)) if all(0 < v < s for v, s in zip(w.at(0, i), (1280, 800), strict=True)))
    w.hover(*w.at(0, i)); w.page.mouse.click(*w.at(0, i))
    assert PAYLOAD in w.page.inner_text(".s5-popup") and PAYLOAD in w.page.inner_text(".leaflet-control-layers")
    for box in w.page.locator(".leaflet-control-layers input").all(): box.check()
    w.page.evaluate(TWO_FRAMES)
    assert not w.page.evaluate("document.querySelectorAll('img[src=x], svg[onload]').length")
    w.clean()


def test_even_an_injected_script_is_refused(watch, tmp_path):
    path = maps.save(a_map(), tmp_path/"map.html")
    path.write_text(path.read_text().replace("</body>", "<script>alert(1)</script><img src='http://127.0.0.1:9/x.png' onerror='alert(2)'></body>"))
    w = watch(offline=False).open(path)
    w.page.evaluate(TWO_FRAMES)
    assert w.dialogs == [] and any("Content Security Policy" in e for e in w.errors), "the policy stops what slipped in"


def test_no_roads_and_a_small_screen(watch, tmp_path):
    w = watch().open(maps.save(maps.speed_map({}), tmp_path/"empty.html"))
    assert "0 roads" in w.page.inner_text(".s5-legend")
    w.clean()
    w = watch(size=(390, 700)).open(maps.save(a_map(), tmp_path/"map.html"))
    assert w.page.is_visible(".s5-legend")
    w.clean()


@pytest.mark.slow
def test_twenty_thousand_roads_are_few_paths_and_one_graph(watch, tmp_path):
    n = 100
    g = nx.MultiGraph(crs="EPSG:32637")
    at = lambda i, j: (411000.0 + 90*i, 6178000.0 + 90*j)
    for i in range(n):
        for j in range(n): g.add_node(n*i + j, x=at(i, j)[0], y=at(i, j)[1])
    for i in range(n):
        for j in range(n):
            for a, b in ((i + 1, j), (i, j + 1)):
                if a == n or b == n: continue
                (x0, y0), (x1, y1) = at(i, j), at(a, b)
                line, kph = LineString([(x0, y0), ((x0 + x1)/2 + 4, (y0 + y1)/2 - 4), (x1, y1)]), 20.0 + 5*((i*j) % 17)
                g.add_edge(n*i + j, n*a + b, geometry=line, length=line.length, speed_kph=kph, travel_time=line.length/kph*3.6, speed_confidence=0.5)
    w = watch().open(maps.save(maps.speed_map(g), tmp_path/"map.html"))
    script = """() => { const s = map_roads.spacenet5, layer = s.layers[0]; let paths = 0; map_roads.eachLayer(l => { if (l._renderer) paths++; });
        const r = new s.Graph(layer).route({i: 0, part: 0, at: layer.points[0][0]}, {i: layer.n - 1, part: 0, at: layer.points[layer.n - 1][0]});
        return {roads: layer.n, paths: paths, seconds: r.seconds}; }"""
    found = w.page.evaluate(script)
    assert found["roads"] == 2*n*(n - 1) and found["paths"] < 100, "one path for each look, not one for each road"
    assert found["seconds"] > 300, "a route across the whole town"
    w.clean()


# ---- JupyterLab ----

@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab on a loopback port in a copy of the workspace; (address, token, folder)."
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (extra [lab])")
    folder = tmp_path_factory.mktemp("lab")
    for name in ("nbs", "configs"): shutil.copytree(ROOT/name, folder/name, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "_proc"))
    shutil.copy(ROOT/"settings.ini", folder)
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    token = secrets.token_hex(16)
    env = os.environ | {"JUPYTER_CONFIG_DIR": str(folder/".jupyter"), "JUPYTER_DATA_DIR": str(folder/".data"), "JUPYTER_RUNTIME_DIR": str(folder/".run"),
                        "IPYTHONDIR": str(folder/".ipython"), "JUPYTER_TOKEN": token, "SPACENET5_PROGRESS": "0"}
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root", f"--ServerApp.root_dir={folder}",
               "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with open(folder/"lab.log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", process, folder/"lab.log")
            yield f"http://127.0.0.1:{port}", token, folder
        finally:
            process.terminate()
            try: process.wait(15)
            except subprocess.TimeoutExpired: process.kill(); process.wait()


def wait_for(url, process, log, seconds=60):
    for _ in range(seconds*4):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=2) as answer: return answer.status
        except OSError: time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def open_notebook(browser, lab, name):
    address, token, _ = lab
    w = Watched(browser, offline=False)
    w.page.goto(f"{address}/lab/tree/nbs/{name}?token={token}&reset")
    w.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=45_000)
    return w


@pytest.mark.slow
@pytest.mark.parametrize("name", ["00_core.ipynb", "08_maps.ipynb"])
def test_a_notebook_opens_in_jupyterlab(browser, lab, name, tmp_path):
    w = open_notebook(browser, lab, name)
    try:
        title = re.search(r"# (.+)", (ROOT/"nbs"/name).read_text().replace("\\n", "\n"))[1].rstrip('",')
        w.page.wait_for_selector(f".jp-RenderedMarkdown h1:has-text('{title.strip()}')", timeout=20_000)
        assert not w.page.locator(".jp-Dialog").count(), w.page.locator(".jp-Dialog").all_inner_texts()
        outside = [u for u in w.requests if not u.startswith((lab[0], lab[0].replace("http", "ws")))]
        assert outside == [] and w.dialogs == []
        w.page.screenshot(path=tmp_path/"lab.png")
    finally: w.context.close()


@pytest.mark.slow
def test_run_all_draws_the_map_in_jupyterlab(browser, lab, tmp_path):
    _, _, folder = lab
    shorten(folder/"nbs"/"08_maps.ipynb", folder/"nbs"/"_tour.ipynb")
    w = open_notebook(browser, lab, "_tour.ipynb")
    try:
        w.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=60_000)
        w.page.click("li.lm-MenuBar-item:has-text('Run')")
        w.page.click("li[data-command='runmenu:run-all']")
        w.page.wait_for_selector(".jp-OutputArea-output iframe", timeout=90_000, state="attached")
        frame = w.page.locator(".jp-OutputArea-output iframe").first
        frame.scroll_into_view_if_needed()
        assert frame.content_frame.locator(".s5-legend").inner_text(timeout=20_000).startswith("Predicted speed")
        assert not w.page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count()
        w.page.screenshot(path=tmp_path/"lab.png")
        assert w.dialogs == []
    finally: w.context.close()


def shorten(source, target):
    "The same notebook without the cells that need a finished run."
    import nbformat
    nb = nbformat.read(source, as_version=4)
    nb.cells = [c for c in nb.cells if not (c.cell_type == "code" and c.source.startswith("#| eval: false"))]
    nbformat.write(nb, target)
