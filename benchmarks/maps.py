"""How long the map of a large road network takes to appear and to move, in a real Chromium, beside
the same roads as folium's own GeoJson layer.

    python benchmarks/maps.py [--edges 20000 60000] [--pages map folium]

Prints for each page: size, seconds from opening the file to the first drawn frame, and the frames
of a drag and of a zoom by wheel (median and worst, ms). The machine's figures move; the ratio to
folium's layer, measured in the same run, does not much. Needs playwright and a Chromium ($CHROMIUM,
or on PATH).
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import folium
import geopandas as gpd
import numpy as np
from shapely.geometry import LineString

from spacenet5_nb import maps
from spacenet5_nb.mapping.html_page import OfflineMap

FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
FRAMES = """() => { window.frames_ms = []; let last = performance.now();
    const tick = t => { frames_ms.push(t - last); last = t;
        if (window.frames_ms) requestAnimationFrame(tick); };
    requestAnimationFrame(tick); }"""
STOP = "() => { const f = window.frames_ms; window.frames_ms = null; return f.slice(1); }"
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def town(edges: int) -> gpd.GeoDataFrame:
    "A bent grid with about as many edges, five points each, ten speeds, five steps of confidence."
    n, rng = round((edges / 2) ** 0.5) + 1, np.random.default_rng(0)
    x, y = np.meshgrid(37.5 + 9e-4 * np.arange(n), 55.6 + 5e-4 * np.arange(n), indexing="ij")
    x, y = x + rng.normal(0, 6e-5, x.shape), y + rng.normal(0, 4e-5, y.shape)
    lines, ends = [], []
    for di, dj in ((1, 0), (0, 1)):
        for i in range(n - di):
            for j in range(n - dj):
                t = np.linspace(0, 1, 5)
                bend = rng.normal(0, 2e-5, 5) * (t > 0) * (t < 1)
                lines.append(
                    LineString(
                        np.c_[
                            x[i, j] + t * (x[i + di, j + dj] - x[i, j]) + bend,
                            y[i, j] + t * (y[i + di, j + dj] - y[i, j]) + bend,
                        ]
                    )
                )
                ends.append((n * i + j, n * (i + di) + j + dj))
    u, v = np.array(ends).T
    return gpd.GeoDataFrame(
        {
            "chip": "AOI_7_Moscow_chip1",
            "name": [f"Street {k % 997}" for k in range(len(lines))],
            "kind": "residential",
            "speed_kph": rng.choice(np.arange(20, 120, 10), len(lines)),
            "speed_confidence": rng.random(len(lines)).round(2),
            "u": u,
            "v": v,
        },
        geometry=lines,
        crs="EPSG:4326",
    )


def stock(roads: gpd.GeoDataFrame) -> folium.Map:
    """The same roads as folium draws them: GeoJSON, a style and a tooltip for each, on canvas,
    in a page without network.
    """
    m, scale = OfflineMap(title="folium.GeoJson"), maps.speed_scale()
    frame = maps.road_frame(roads)
    frame["color"] = [scale.colors[c] for c in maps.class_of(frame.speed_kph, scale)]
    layer = folium.GeoJson(
        frame[["geometry", "color", "speed_kph", "length", "travel_time", "kind"]].to_json(),
        smooth_factor=0.6,
        style_function=lambda f: {"color": f["properties"]["color"], "weight": 4},
        tooltip=folium.GeoJsonTooltip(["speed_kph", "length", "travel_time", "kind"]),
    )
    m.add_child(layer)
    m.fit_bounds([[b := frame.total_bounds][0][[1, 0]].tolist(), b[[3, 2]].tolist()])
    return m


def measure(browser, path: Path) -> dict[str, float]:
    "Open, drag and zoom one page."
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    start = time.perf_counter()
    page.goto(path.as_uri(), timeout=180_000)
    page.wait_for_function("typeof map_roads !== 'undefined' && map_roads._loaded !== false")
    page.evaluate(TWO_FRAMES)
    out = {"first frame, s": time.perf_counter() - start}
    out |= frames(page, "drag", lambda: drag(page))
    out |= frames(page, "zoom", lambda: wheel(page))
    out |= frames(page, "hover", lambda: sweep(page))
    page.close()
    return out


def frames(page, name: str, act) -> dict[str, float]:
    "Median and worst frame while something is done."
    page.evaluate(FRAMES)
    act()
    page.evaluate(TWO_FRAMES)
    ms = page.evaluate(STOP)
    return {f"{name}: frame, ms": statistics.median(ms), f"{name}: worst, ms": max(ms)}


def drag(page) -> None:
    page.mouse.move(700, 500)
    page.mouse.down()
    for i in range(40):
        page.mouse.move(700 - 8 * i, 500 - 4 * i)
    page.mouse.up()


def wheel(page) -> None:
    for step in (-120, -120, -120, 120, 120):
        page.mouse.wheel(0, step)
        page.wait_for_timeout(350)


def sweep(page) -> None:
    for i in range(60):
        page.mouse.move(500 + 6 * i, 300 + 3 * i)


PAGES = {"map": maps.speed_map, "folium": stock}


def main() -> None:
    "Make the pages, measure them, print a table."
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--pages", nargs="+", default=["map", "folium"])
    given = parser.parse_args()
    chromium = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
        for edges in given.edges:
            roads = town(edges)
            for name in given.pages:
                start = time.perf_counter()
                path = maps.save(PAGES[name](roads), Path(folder) / f"{name}{edges}.html")
                row = {
                    "made in, s": time.perf_counter() - start,
                    "MB": path.stat().st_size / 1e6,
                } | measure(browser, path)
                print(
                    f"{len(roads):,} roads, {name:8}"
                    + "".join(
                        f"  {k} {v:.2f}" if v < 10 else f"  {k} {v:.0f}" for k, v in row.items()
                    ),
                    flush=True,
                )
        browser.close()


if __name__ == "__main__":
    main()
