"""How good the vectorizer's graphs are: reference chips, more noisy masks of real labels, generated
cities; APLS and crossings. `best` closes gaps by rules, `learned` is `best` with `joins: learned`;
networks' own outputs are scored by benchmarks/connections.py.

    .venv/bin/python benchmarks/vectorize_quality.py [--shared ../shared] [--seeds 2]
        [--cities 5] [--seed 3 5 8]

Every graph is scored by the same judge (protocol "spacenet"), the original's stored CSVs too.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from spacenet5_nb import demo, graph, masks, raster  # isort: skip
import numpy as np
import pandas as pd
import rasterio
import scipy.ndimage as ndi
import shapely
from affine import Affine

from spacenet5_nb.apls import apls_both
from spacenet5_nb.core import Channels, VectorizeConfig
from spacenet5_nb.roads.overpass_score import CrossingScore, score_crossings
from spacenet5_nb.speed import add_speeds
from spacenet5_nb.vectorize import vectorize

CHIPS = ("img0", "img99", "img990", "img991")
BINS = (7.5, 15, 18.75, 20, 25, 30, 35, 45, 55, 65)
TARGETS = {0.3: 0.97, 1.0: 0.95}  # APLS_length asked of generated cities, per metres a pixel
KEPT, SPLIT = 0.95, 0.01  # share of overpasses kept apart; of junctions split
PIXEL = 2.7e-6  # degrees, SpaceNet 3's Las Vegas chips


def truth_of(data: dict, crs: str = "EPSG:32611"):
    "A stored truth graph."
    g = graph.empty(crs)
    for n, x, y in data["nodes"]:
        g.add_node(n, x=x, y=y)
    for e in data["edges"]:
        line, mps = shapely.from_wkt(e["geometry"]), e["inferred_speed_mps"]
        g.add_edge(
            e["u"],
            e["v"],
            geometry=line,
            length=line.length,
            speed_kph=mps * 3.6,
            travel_time=line.length / mps,
        )
    return g


def both(truth, proposal) -> list[float]:
    return [s.score or 0.0 for s in apls_both(truth, proposal)]


OURS = ("selim_sef", "best", "learned")


def roads_of(probs, place: dict, config: str, channels: Channels = Channels.selim_sef()):
    speed = "best" if config == "learned" else config
    config = VectorizeConfig(joins="learned") if config == "learned" else config
    g = vectorize(probs, config=config, channels=channels, **place)
    return add_speeds(g, probs, config=speed, channels=channels, **place)


def reference_chips(folder: Path, configs: Sequence[str] = OURS) -> pd.DataFrame:
    "The four chips whose graphs the original left: its own, and ours."
    places, out = json.loads((folder / "reference.json").read_text()), []
    for name in CHIPS:
        full = f"AOI_2_Vegas_{name}"
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", rasterio.errors.NotGeoreferencedWarning
            )  # its place is in reference.json
            with rasterio.open(folder / f"{full}.tif") as source:
                probs = source.read()
        place = dict(
            transform=Affine.from_gdal(*places[full]["gdal_geotransform"]), crs="EPSG:4326"
        )
        truth = truth_of(json.loads((folder / f"{full}_truth.json").read_text()))
        stored = graph.from_wkt_rows(
            pd.read_csv(folder / f"{full}_solution_reference.csv"), **place
        )
        for who, g in (
            ("original", stored),
            *((c, roads_of(probs, place, c)) for c in configs),
        ):
            out.append((name, who, *both(truth, g)))
    return pd.DataFrame(out, columns=["chip", "graph", "length", "time"])


def disc(mask: np.ndarray, centre: np.ndarray, radius: float, value: float) -> None:
    "Write a value into a disc."
    low, high = (
        np.maximum(np.floor(centre - radius).astype(int), 0),
        np.ceil(centre + radius).astype(int) + 1,
    )
    window = mask[low[0] : high[0], low[1] : high[1]]
    r, c = np.ogrid[low[0] : low[0] + window.shape[0], low[1] : low[1] + window.shape[1]]
    window[(r - centre[0]) ** 2 + (c - centre[1]) ** 2 <= radius**2] = value


def degrade(target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A target as the reference's noisy masks are: gaps, holes, blobs, blur, brightness that
    wanders along the road.
    """
    shape, road = target.shape[1:], np.argwhere(target[10] > 0)
    keep, blobs = np.ones(shape, bool), np.zeros(shape)
    for _ in range(rng.integers(8, 14)):
        disc(keep, road[rng.integers(len(road))], rng.uniform(7, 16), False)
    for _ in range(rng.integers(5, 30)):
        disc(keep, road[rng.integers(len(road))], rng.uniform(1.5, 3), False)
    for _ in range(rng.integers(9, 16)):
        disc(blobs, rng.uniform(0, shape), rng.uniform(3, 12), rng.uniform(0.6, 1))
    wander = ndi.gaussian_filter(rng.standard_normal(shape), 16)
    light, fine, stray = (
        228 + 22 * wander / wander.std(),
        rng.standard_normal(shape) * 4,
        rng.integers(10),
    )
    soft = np.stack([ndi.gaussian_filter(((band > 0) & keep).astype(float), 2) for band in target])
    bleed, blobs = 7.5 * soft[10], ndi.gaussian_filter(blobs, 1.5)
    soft[10], soft[stray] = np.maximum(soft[10], blobs), np.maximum(soft[stray], 0.8 * blobs)
    noisy = soft * light + (soft > 0.02) * fine
    noisy[:10] += bleed
    return noisy.clip(0, 255).astype(np.uint8)


def label_masks(
    shared: Path, seeds: int, first: int = 100
) -> Iterator[tuple[str, np.ndarray, dict, object]]:
    "Noisy masks of every real label file with seeded speeds, at 0.3 m: name, mask, place, labels."
    for path in sorted(
        [
            *(shared / "data").glob("spacenet3_labels/*.geojson"),
            *(shared / "data").glob("spacenet3_vegas/*/geojson_roads/*.geojson"),
        ]
    ):
        roads = graph.read_labels(path)
        for seed in range(first, first + seeds):
            rng = np.random.default_rng([seed, len(roads)])
            labels = roads[["geometry"]].assign(inferred_speed_mph=rng.choice(BINS, len(roads)))
            west, south, east, north = labels.total_bounds
            grid = raster.Grid(
                (
                    min(1300, int((north - south) / PIXEL) + 1),
                    min(1300, int((east - west) / PIXEL) + 1),
                ),
                Affine(PIXEL, 0, west, 0, -PIXEL, north),
                raster.CRS.from_epsg(4326),
            )
            yield (
                f"{path.stem[-12:]}/{seed}",
                degrade(masks.make_masks(labels, grid), rng),
                dict(transform=grid.transform, crs="EPSG:4326"),
                labels,
            )


def noisy_labels(shared: Path, seeds: int, configs: Sequence[str] = OURS) -> pd.DataFrame:
    "Ours on noisy masks of all real labels."
    out = []
    for name, probs, place, labels in label_masks(shared, seeds):
        for who in configs:
            g = roads_of(probs, place, who)
            out.append((name, who, *both(graph.from_labels(labels, crs=g.graph["crs"]), g)))
    return pd.DataFrame(out, columns=["chip", "graph", "length", "time"])


def city_chips(
    gsd_m: float, seed: int, channels: Channels, cities: int = 5, chip_m: float = 400.0
) -> Iterator[tuple]:
    "Ground-truth masks of generated cities, nine chips each: name, mask, place, label file."
    with tempfile.TemporaryDirectory() as folder:
        for city in demo.CITIES[:cities]:
            world = demo.build_city(city, demo.Layout(3, 3, round(chip_m / gsd_m), gsd_m), seed)
            for k in range(9):
                labels = Path(folder) / f"{city.name}{k}.geojson"
                labels.write_text(demo.label_json(world, k))
                grid = demo.grid_of_chip(world.layout.window(k), city)
                yield (
                    f"{city.name}{k}",
                    masks.make_masks(labels, grid, channels),
                    dict(transform=grid.transform, crs=grid.crs),
                    labels,
                )


def score_cities(
    gsd_m: float, channels: Channels, seed: int = 3, cities: int = 5, config: str = "best"
) -> tuple[float, float, CrossingScore]:
    "Mean APLS by length and by time, and the crossings."
    scores, crossings = [], CrossingScore(0, 0, 0, 0)
    for _, mask, place, labels in city_chips(gsd_m, seed, channels, cities):
        g = roads_of(mask, place, config, channels)
        truth = graph.from_labels(labels, crs=g.graph["crs"])
        crossings = crossings + score_crossings(truth, g)
        if truth.number_of_edges():
            scores.append(both(truth, g))
    return *np.mean(scores, axis=0), crossings


def show(table: pd.DataFrame, title: str) -> None:
    "Chips by graphs, then the means."
    wide = table.pivot(index="chip", columns="graph", values=["length", "time"]).round(3)
    print(
        f"\n{title}\n{wide.to_string()}\nmean\n{wide.mean().round(4).unstack(0).to_string()}",
        flush=True,
    )
    for ours, other in (("best", "selim_sef"), ("learned", "best")):
        if not {ours, other} <= set(table["graph"]):
            continue
        difference = wide.xs(ours, axis=1, level=1) - wide.xs(other, axis=1, level=1)
        print(
            f"{ours} minus {other} over {len(wide)} chips: worst "
            f"{difference.min().round(3).to_dict()}, worse than 0.01 on "
            f"{(difference < -0.01).sum().to_dict()}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--shared", type=Path, default=Path(__file__).resolve().parents[1] / "../shared"
    )
    parser.add_argument("--seeds", type=int, default=2, help="noisy masks per label file")
    parser.add_argument("--cities", type=int, default=5, help="generated cities, nine chips each")
    parser.add_argument("--joins", choices=("rules", "learned"), default="rules", help="of cities")
    parser.add_argument("--seed", type=int, nargs="+", default=[3], help="of the generated cities")
    parser.add_argument("--graphs", choices=OURS, nargs="*", default=OURS, help="of masks")
    options = parser.parse_args()
    if (options.shared / "reference/vectorize").is_dir():
        folder, configs = options.shared / "reference/vectorize", options.graphs
        show(reference_chips(folder, configs), "reference chips, APLS")
        show(noisy_labels(options.shared, options.seeds, configs), "noisy masks of labels, APLS")
    else:
        print(f"no shared data at {options.shared}: only generated cities")
    print("\ngenerated cities, ground-truth masks" if options.cities else "")
    for seed in options.seed if options.cities else ():
        for gsd_m, wanted in TARGETS.items():
            for name, channels in (
                ("crossing channel", Channels.best()),
                ("junction channel", Channels.selim_sef()),
            ):
                config = "learned" if options.joins == "learned" else "best"
                length, time, c = score_cities(gsd_m, channels, seed, options.cities, config)
                print(
                    f"seed {seed}, {gsd_m} m, {name}: APLS_length {length:.4f} (asked "
                    f"{wanted}), APLS_time {time:.4f}; overpasses kept apart "
                    f"{c.kept} of {c.overpasses}, {c.kept_share:.1%} (asked {KEPT:.0%}); "
                    f"junctions split {c.split} of {c.junctions} (at most {SPLIT:.0%})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
