"Targets for any labels, any grid, any bin table: properties that must hold whatever is drawn."

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacenet5_nb import core, explore, masks, raster  # isort: skip
import geopandas as gpd
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import LineString

from spacenet5_nb.base import labels
from spacenet5_nb.core import Channels
from spacenet5_nb.targets import reference_rules

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
UTM = "EPSG:32637"
LAYOUTS = [
    Channels.selim_sef(),
    Channels.cresi(),
    Channels.best(),
    Channels.bins((20, 40)),
    Channels.of_speed(65, has_crossing=True),
    Channels.bins((30,), orientations=9),
]

coordinate = st.one_of(st.integers(-20, 120), st.floats(-30, 130, allow_nan=False, width=32))
paths = st.lists(st.tuples(coordinate, coordinate), min_size=2, max_size=6).filter(
    lambda p: len(set(p)) > 1
)
tags = st.fixed_dictionaries(
    {},
    optional={
        "inferred_speed_mph": st.one_of(
            st.floats(1, 90), st.sampled_from(["25", "null", None, "fast", -3])
        ),
        "road_type": st.sampled_from([1, "2", "7", "9", None, "null"]),
        "highway": st.sampled_from(["residential", "motorway_link", "footway", "nonsense", None]),
        "lanes": st.sampled_from(["2", 3.0, "0", "13", "many", None, float("nan")]),
        "bridge": st.sampled_from(["yes", "no", "null", None, 1]),
        "layer": st.sampled_from(["-1", "0", "2", "x", None]),
        "paved": st.sampled_from(["1", "2", "3", "mud"]),
    },
)
roads = st.lists(st.tuples(paths, tags), max_size=7)


def utm_grid(pixel: float = 0.5, size: tuple[int, int] = (100, 120)) -> raster.Grid:
    return raster.Grid(size, Affine(pixel, 0, 400_000, 0, -pixel, 6_170_000), CRS.from_epsg(32637))


def frame(drawn, grid: raster.Grid, shift: tuple[int, int] = (0, 0)) -> gpd.GeoDataFrame:
    "Roads drawn in pixels as a table in the grid's CRS."
    place = grid.transform * Affine.translation(*shift)
    return gpd.GeoDataFrame(
        [t for _, t in drawn],
        index=range(len(drawn)),
        crs=grid.crs.to_wkt(),
        geometry=[LineString([place * (float(x), float(y)) for x, y in path]) for path, _ in drawn],
    )


@quick
@given(
    roads,
    st.sampled_from(LAYOUTS),
    st.sampled_from(["spacenet", "reference"]),
    st.sampled_from([0.3, 0.5, 1.24, 4.0]),
)
def test_random_labels_never_crash_and_masks_hold_only_0_and_255(drawn, channels, style, pixel):
    grid = utm_grid(pixel)
    made = masks.make_masks(frame(drawn, grid), grid, channels, style=style)
    assert made.shape == (len(channels), *grid.shape) and made.dtype == np.uint8
    bits = made[1:] if channels.continuous else made
    assert np.isin(bits, (0, 255)).all()
    road = made[channels.road] > 0
    assert ((made[channels.speed] > 0).sum(0) == road).all(), (
        "just one speed wherever there is road"
    )
    if channels.orientations and style == "spacenet":
        assert ((made[channels.orientation] > 0).any(0) == road).all(), "a road has a direction"


@quick
@given(roads, st.sampled_from([c for c in LAYOUTS]), st.integers(-15, 15), st.integers(-15, 15))
def test_a_road_shifted_by_k_pixels_shifts_its_mask_by_k(drawn, channels, dx, dy):
    grid = utm_grid()
    a, b = (
        masks.make_masks(frame(drawn, grid, shift), grid, channels) for shift in ((0, 0), (dx, dy))
    )
    height, width = grid.shape
    rows, columns = (
        slice(max(dy, 0), min(height, height + dy)),
        slice(max(dx, 0), min(width, width + dx)),
    )
    back_rows, back_columns = (
        slice(rows.start - dy, rows.stop - dy),
        slice(columns.start - dx, columns.stop - dx),
    )
    different = (b[:, rows, columns] != a[:, back_rows, back_columns]).sum()
    assert different <= 2, (
        "but for a pixel whose centre lies on an edge to a millionth"
    )  # the labels pass through longitude and latitude


@quick
@given(roads)
def test_higher_speeds_win_and_order_does_not_matter(drawn):
    grid = utm_grid()
    one, other = (
        masks.make_masks(frame(drawn, grid), grid),
        masks.make_masks(frame(drawn[::-1], grid), grid),
    )
    assert (one[:11] == other[:11]).all()
    bins, channels = one[:10] > 0, Channels.selim_sef()
    for path, t in drawn:
        mph = masks.speed_of(t).mph
        alone = masks.make_masks(frame([(path, t)], grid), grid)[10] > 0
        assert not bins[: channels.bin_of(mph)][:, alone].any(), "under a road no slower bin is set"


@pytest.mark.parametrize(
    "crs,transform",
    [
        (4326, Affine(2.7e-6, 0, -115.17, 0, -2.7e-6, 36.24)),
        (32637, Affine(0.3, 0.1, 4e5, 0.1, -0.3, 6.17e6)),
        (3857, Affine(0.5, 0, 4e6, 0, -0.5, 7.5e6)),
    ],
)
def test_a_road_is_four_metres_wide_on_any_grid(crs, transform):
    grid = raster.Grid((400, 400), transform, CRS.from_epsg(crs))
    ends = gpd.GeoSeries(
        [LineString([transform * (50.0, 60.0), transform * (340.0, 290.0)])], crs=crs
    )
    made = masks.make_masks(gpd.GeoDataFrame({"inferred_speed_mph": [30]}, geometry=ends), grid)
    metres = ends.to_crs(ends.estimate_utm_crs()).length[0]
    area = (made[10] > 0).sum() * np.prod(raster.ground_size(grid))
    assert abs(area / (4 * metres + np.pi * 4) - 1) < 0.02


def test_labels_by_path_table_rows_and_source_give_the_same_target(tmp_path):
    grid = utm_grid()
    table = frame(
        [
            ([(5, 5), (90, 80)], {"highway": "primary"}),
            ([(10, 90), (100, 10)], {"highway": "residential", "bridge": "yes"}),
        ],
        grid,
    ).to_crs(4326)
    table.to_file(tmp_path / "a.geojson", driver="GeoJSON")
    by_path = masks.make_masks(tmp_path / "a.geojson", grid, Channels.best())
    assert (
        by_path == masks.make_masks(labels.read_rows(tmp_path / "a.geojson"), grid, Channels.best())
    ).all()
    west, south, east, north = table.total_bounds + (-1e-4, -1e-4, 1e-4, 1e-4)
    source = (
        f"{tmp_path / 'a.geojson'}#within={west} {south},{east} {south},{east} "
        f"{north},{west} {north}"
    )
    assert (by_path == masks.make_masks(source, grid, Channels.best())).all() and by_path[12].any()


# --- the reference -------------------------------------------------------------------------------


def test_reference_style_repeats_the_documented_rules():
    """Diamond ends, ascending order with higher speeds over lower ones, 275 clipped into the last
    bin."""
    grid = utm_grid(0.25, (80, 80))
    made = masks.make_masks(
        frame(
            [
                ([(10, 40), (70, 40)], {"inferred_speed_mph": 80}),
                ([(40, 10), (40, 70)], {"inferred_speed_mph": 7}),
            ],
            grid,
        ),
        grid,
        style="reference",
    )
    assert made[9].any() and made[0].any() and not made[1:9].any()
    assert made[9][40, 40] == 255 and made[0][40, 40] == 0
    tip = made[9][:, 3:10] > 0  # left of the line's end: a triangle
    assert (np.diff(tip.sum(0)) >= 0).all() and tip.sum(0)[-1] > tip.sum(0)[0]


def test_reference_junctions_are_the_originals_bars():
    paths = [
        np.array([(10.0, 60.0), (60.0, 60.0)]),
        np.array([(61.0, 61.0), (110.0, 60.0)]),
        np.array([(62.0, 62.0), (60.0, 110.0)]),
    ]
    made = reference_rules.reference_junctions(paths, (120, 120))
    assert made[60, 30] == 255 and made[60, 15] == 0, (
        "three ends in one cell of 5 px: bars of 32 px and a round end of 8"
    )
    assert not reference_rules.reference_junctions(paths[:2], (120, 120)).any()


# --- a thousand chips ----------------------------------------------------------------------------


def thousand(folder, n: int) -> None:
    "n tiny chips side by side, every one with a road."
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(1, 255, (3, 32, 32)).astype("uint8")
    first = raster.write(
        folder / "c0000.tif",
        pixels,
        grid=raster.Grid((32, 32), Affine(2, 0, 4e5, 0, -2, 6.17e6), CRS.from_epsg(32637)),
    ).read_bytes()
    for k in range(n):
        x, y = 4e5 + 64 * (k % 40), 6.17e6 - 64 * (k // 40)
        raster.write(
            folder / f"c{k:04}.tif",
            pixels,
            grid=raster.Grid((32, 32), Affine(2, 0, x, 0, -2, y), CRS.from_epsg(32637)),
        )
        lon, lat = labels.move_lines(
            np.array([LineString([(x, y - 32), (x + 64, y - 32)])], object), UTM, "EPSG:4326"
        )[0].xy
        (folder / f"c{k:04}.geojson").write_text(
            json.dumps(
                {
                    "type": "FeatureCollection",
                    "features": [
                        {
                            "type": "Feature",
                            "properties": {"highway": "primary"},
                            "geometry": {
                                "type": "LineString",
                                "coordinates": list(zip(lon, lat, strict=True)),
                            },
                        }
                    ],
                }
            )
        )
    assert len(first) > 100


@pytest.mark.slow
def test_a_thousand_chips_of_which_one_is_broken(tmp_path, monkeypatch):
    "The broken one is in the report, all others are done, the exit code says so."
    thousand(tmp_path / "chips", 1000)
    broken = tmp_path / "chips/c0500.tif"
    broken.write_bytes(broken.read_bytes()[:200])
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "out"))
    monkeypatch.setenv("SPACENET5_PROGRESS", "0")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from spacenet5_nb.pipeline import main; main()",
            "prepare",
            "--preset",
            "small",
            "--data-root",
            str(tmp_path / "chips"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    run = tmp_path / "out/small"
    report = json.loads((run / "report.json").read_text())
    assert [row["chip"] for row in report["left_out"]] == ["c0500"] and "truncated" in report[
        "left_out"
    ][0]["fatal"]
    assert len(list((run / "masks").glob("*.tif"))) == 999 and json.loads(
        (run / "masks.json").read_text()
    ) == {"made": 999, "failed": []}
    assert "c0500" in done.stdout and "c0500" in (run / "integrity.html").read_text()


@pytest.mark.slow
def test_without_skipping_the_stage_stops_and_the_page_is_there(tmp_path, monkeypatch):
    thousand(tmp_path / "chips", 12)
    (tmp_path / "chips/c0003.geojson").write_text("{")
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "out"))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from spacenet5_nb.pipeline import main; main()",
            "run",
            "01_explore",
            "-p",
            "preset",
            "small",
            "-p",
            "data_root",
            str(tmp_path / "chips"),
        ],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and "c0003.geojson" in done.stderr
        and not (tmp_path / "out/small/chips.parquet").exists()
    )
    assert "c0003" in (tmp_path / "out/small/integrity.html").read_text()


# --- large images --------------------------------------------------------------------------------


def test_one_large_image_and_one_label_file_are_chips(tmp_path):
    grid = raster.Grid((390, 520), Affine(2, 0, 4e5, 0, -2, 6.17e6), CRS.from_epsg(32637))
    raster.write(
        tmp_path / "town.tif",
        np.random.default_rng(0).integers(1, 255, (3, *grid.shape)).astype("uint8"),
        grid=grid,
    )
    whole = frame(
        [
            ([(-5, 195), (525, 195)], {"highway": "primary"}),
            ([(195, -5), (195, 395)], {"highway": "residential"}),
        ],
        grid,
    ).to_crs(4326)
    whole.to_file(tmp_path / "roads.geojson", driver="GeoJSON")
    chips = explore.scan_chips(explore.find_chips(tmp_path, chip_m=260))
    assert len(chips) == 12 and (chips["fatal"] == "").all() and (chips["width"] == 130).all()
    out = np.zeros((12, *grid.shape), "uint8")
    for c in chips.itertuples():
        left, top, width, height = raster.window_of(c.image)
        if c.label:
            out[:, top : top + height, left : left + width] = masks.make_masks(c.label, c.image)
    direct = masks.make_masks(tmp_path / "roads.geojson", grid)
    assert (out[10] != direct[10]).mean() < 2e-4, (
        "the windows' roads together are the town's, but for ends at the cuts"
    )
    assert chips.set_index("chip").loc["town_r01c01", "road_km"] == pytest.approx(0.52, abs=0.01), (
        "both roads cross it"
    )


def test_a_window_without_data_is_left_out_and_a_half_one_is_kept(tmp_path):
    grid = utm_grid(2.0, (260, 390))
    image = np.random.default_rng(0).integers(1, 255, (3, *grid.shape)).astype("uint8")
    image[:, :, 195:] = 0
    raster.write(tmp_path / "town.tif", image, grid=grid)
    scanned = explore.scan_chips(explore.find_chips(tmp_path, chip_m=260))
    assert (
        len(scanned) == 6
        and len(explore.usable(scanned)) == 4
        and scanned["null_fraction"].round(2).tolist() == [0, 0.5, 1] * 2
    )


def test_broken_large_image_is_named(tmp_path):
    grid = utm_grid(2.0, (300, 300))
    raster.write(
        tmp_path / "town.tif",
        np.random.default_rng(0).integers(1, 255, (3, *grid.shape)).astype("uint8"),
        grid=grid,
    )
    data = (tmp_path / "town.tif").read_bytes()
    (tmp_path / "town.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(core.DataError, match="town.tif.*(truncated|damaged)"):
        explore.usable(explore.scan_chips(explore.find_chips(tmp_path, chip_m=260)))


def test_shapely_agrees_on_what_lies_within_two_metres():
    "The painter against geometry, where roads bend sharply and end inside the chip."
    grid = utm_grid(0.5, (120, 120))
    drawn = [([(20, 20), (100, 25), (22, 30), (60, 110)], {"inferred_speed_mph": 30})]
    made = masks.make_masks(frame(drawn, grid), grid)[10] > 0
    line = shapely.transform(LineString(drawn[0][0]), lambda xy: xy * 0.5)
    centres = shapely.points(
        *np.meshgrid((np.arange(120) + 0.5) * 0.5, (np.arange(120) + 0.5) * 0.5)
    )
    size = raster.ground_size(grid)
    assert np.allclose(size, 0.5, rtol=1e-3)
    near = shapely.distance(line, centres)
    assert made[near < 1.99].all() and not made[near > 2.01].any()
