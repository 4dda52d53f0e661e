"""What the survey of disagreements must find: labels that were moved, lines that are no roads,
no-data; on generated chips and on real ones."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import shapely
from pyproj import Transformer

from spacenet5_nb.base.labels import read_labels
from spacenet5_nb.chips import label_quality
from spacenet5_nb.graph import utm_crs
from spacenet5_nb.raster import read_named, valid_pixels
from spacenet5_nb.speed_limits import add_speeds


def opened(image, label):
    "A chip's pixels, validity, grid and roads."
    pixels, grid, _ = read_named(image)
    return pixels, valid_pixels(pixels), grid, add_speeds(read_labels(label))


def moved(roads, east, north):
    "Labels beside where they were."
    metric = roads.to_crs(roads.estimate_utm_crs())
    return metric.set_geometry(metric.translate(east, north)).to_crs(roads.crs)


def shift_of(pixels, valid, grid, roads):
    small, kept, coarse = label_quality.thin(pixels, valid, grid)
    return label_quality.label_shift(
        label_quality._look(small, kept), kept, label_quality.along(roads, coarse)
    )[0]


def with_invented(roads, grid, n, seed):
    "n more lines of 25 to 60 m, at least nine metres from every road; `true` says which are roads."
    rng, lines = np.random.default_rng(seed), roads.to_crs(utm_crs(grid))
    to_utm, known, false = (
        Transformer.from_crs(grid.crs.to_wkt(), utm_crs(grid), always_xy=True).transform,
        lines.union_all(),
        [],
    )
    for _ in range(5000):
        if len(false) == n:
            break
        middle, turn = (
            np.array(to_utm(*(grid.transform * (rng.uniform(0.1, 0.9, 2) * grid.shape[::-1])))),
            rng.uniform(0, math.pi),
        )
        half = rng.uniform(12.5, 30) * np.array([math.cos(turn), math.sin(turn)])
        line = shapely.LineString([middle - half, middle + half])
        if line.distance(known) > 9:
            false.append(line)
            known = known.union(line)
    more = (
        lines.iloc[:0]
        .reindex(range(len(false)))
        .set_geometry(false, crs=lines.crs)
        .assign(inferred_speed_mph=25.0, true=False)
        .to_crs(roads.crs)
    )
    return pd.concat([roads.assign(true=True), more], ignore_index=True)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    "Chips of two cities, 400 m at a metre."
    from spacenet5_nb.demo import make_demo

    root = make_demo(
        tmp_path_factory.mktemp("demo") / "demo",
        seed=11,
        chip_m=400,
        gsd_m=1.0,
        grid=(2, 2),
        cities=["Mirage", "Altmark"],
        workers=1,
    )
    labels = sorted(root.glob("SN5_roads/train/*/geojson_roads_speed/*.geojson"))
    return [
        opened(str(p).replace("geojson_roads_speed", "PS-MS").replace(".geojson", ".tif"), p)
        for p in labels
    ]


@pytest.fixture(scope="module")
def vegas(shared):
    "The real Las Vegas chips by name."
    folder = shared / "data/spacenet3_vegas/AOI_2_Vegas"
    images = sorted((folder / "PS-RGB").glob("*.tif"))
    if not images:
        pytest.skip("no Las Vegas chips")
    return {
        p.stem.split("_")[-1]: (
            str(p),
            str(
                folder
                / "geojson_roads"
                / p.name.replace("PS-RGB", "geojson_roads").replace(".tif", ".geojson")
            ),
        )
        for p in images
    }


@pytest.mark.parametrize("move", [(0, 0), (6, -4), (-3, 7)])
def test_a_known_shift_is_recovered(generated, move):
    found = [
        shift_of(pixels, valid, grid, moved(roads, *move))
        for pixels, valid, grid, roads in generated
    ]
    clear = [s for s in found if not s.unclear]
    off = np.array([math.hypot(s.east_m + move[0], s.north_m + move[1]) for s in clear])
    assert len(clear) >= 5 and (off < 1.5).mean() >= 0.75 and off.max() < 3, off
    if move != (0, 0):
        assert all(s.fit_now < 0.75 * s.fit for s in clear), "and no shift fits clearly worse"


def test_only_moved_labels_are_reported(generated):
    def reports(move):
        return [
            label_quality.disagreements(
                [label_quality.survey_arrays(p, v, g, moved(r, *move)) | {"chip": "x"}]
            ).query("road == -1")
            for p, v, g, r in generated
        ]

    assert sum(map(len, reports((0, 0)))) == 0
    found = [r["reason"].iloc[0] for r in reports((6, -4)) if len(r)]
    assert len(found) >= 5 and all("west" in r and "north" in r for r in found)


def test_pixel_size_and_type_do_not_matter(generated):
    pixels, valid, grid, roads = generated[0]
    here = shift_of(pixels, valid, grid, moved(roads, 6, -4))
    from affine import Affine

    fine = grid._replace(shape=(1200, 1200), transform=grid.transform * Affine.scale(1 / 3))
    finer = shift_of(
        np.kron(pixels, np.ones((1, 3, 3), pixels.dtype)),
        np.kron(valid, np.ones((3, 3), bool)),
        fine,
        moved(roads, 6, -4),
    )
    real = pixels.astype("float32") / 1e4
    real[:, 5, 5] = np.nan
    floats = shift_of(real, valid, grid, moved(roads, 6, -4))
    for other in (finer, floats):
        assert (
            math.hypot(other.east_m - here.east_m, other.north_m - here.north_m) < 0.3
            and not other.unclear
        )


def test_a_survey_crosses_process_borders_unchanged(generated):
    one, two = (label_quality.survey_arrays(*generated[1]) for _ in range(2))
    for s in (two, pickle.loads(pickle.dumps(one))):  # noqa: S301
        assert (
            all(s[k].equals(one[k]) for k in ("roads", "points", "bands"))
            and repr(s["shift"]) == repr(one["shift"])
            and s["black"] == one["black"]
        )


@pytest.mark.shared
def test_real_labels_are_fine_and_moved_ones_are_not(vegas):
    now, then = {}, {}
    for name, files in vegas.items():
        pixels, valid, grid, roads = opened(*files)
        now[name], then[name] = (
            label_quality.survey_arrays(pixels, valid, grid, r) | {"chip": name}
            for r in (roads, moved(roads, 6, -4))
        )
    assert not (label_quality.disagreements(now.values())["road"] == -1).any(), (
        "SpaceNet's labels lie on their roads"
    )
    clear = {n: s["shift"] for n, s in then.items() if not s["shift"]["unclear"]}
    off = [math.hypot(s["east_m"] + 6, s["north_m"] - 4) for s in clear.values()]
    assert len(clear) >= 6 and np.median(off) < 1.5 and max(off) < 3, dict(
        zip(clear, off, strict=True)
    )
    assert (label_quality.disagreements(then.values())["road"] == -1).sum() >= 6
    black = label_quality.chip_table(now.values()).set_index("chip")
    assert (
        black.loc["img1454", "sides"] == "right, bottom, left"
        and 0.08 < black.loc["img1454", "edge"] < 0.12
        and black.loc["img734", "edge"] > 0.7
    )
    assert black["holes"].sum() == 0, "black cars and shadows are no holes"


@pytest.mark.shared
def test_invented_roads_on_real_chips_stand_out_from_true_ones(vegas):
    tables = []
    for k, files in enumerate(vegas.values()):
        pixels, valid, grid, roads = opened(*files)
        mixed = with_invented(roads, grid, 3, k)
        tables.append(
            label_quality.survey_arrays(pixels, valid, grid, mixed)["roads"].assign(
                true=mixed["true"].astype(bool)
            )
        )
    table = pd.concat(tables).query("metres > 20").dropna(subset=["evidence"])
    true, false = table[table["true"]], table[~table["true"]]
    assert (true["evidence"].to_numpy()[:, None] > false["evidence"].to_numpy()).mean() > 0.97
    assert (false["doubt_m"] >= 20).mean() > 0.7 and (true["doubt_m"] >= 20).mean() < 0.08


@pytest.mark.shared
def test_a_label_across_a_roof_is_found(vegas):
    s = label_quality.survey_chip(("img699", *vegas["img699"]))
    assert label_quality.disagreements([s])["road"].tolist() == [5], (
        "a driveway drawn on over the house at its end"
    )
