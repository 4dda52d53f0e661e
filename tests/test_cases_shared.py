"""The small inputs that once failed, `cases` of the shared data: each case's own inputs are made by
its `make.py`, its commands are run, and the values that its README calls right are asserted."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spacenet5_nb import graph, raster  # before rasterio: sets what GDAL may open
from spacenet5_nb.base.labels import read_rows
from spacenet5_nb.chips.chip_files import find_chips
from spacenet5_nb.chips.integrity import scan_chips
from spacenet5_nb.core import Channels, DataError, StageError, open_run, parse_chip
from spacenet5_nb.extract import _check_owner, check_image, name_of
from spacenet5_nb.inference.tiled_inference import open_scene
from spacenet5_nb.inference.vrt_mosaic import open_mosaic
from spacenet5_nb.mapping.image_overlays import overlay
from spacenet5_nb.masks import hide_nodata, make_masks
from spacenet5_nb.speed_limits import is_bridge, level_of, speed_of

from rasterio.windows import Window  # isort: skip

pytestmark = [pytest.mark.shared, pytest.mark.slow]


@pytest.fixture
def case(shared, tmp_path, monkeypatch) -> Callable[[str], Path]:
    "A case's folder, in which its inputs have been made."

    def make(number: str) -> Path:
        (source,) = (shared / "cases").glob(f"{number}-*")
        for file in source.iterdir():
            shutil.copyfile(file, tmp_path / file.name)
        subprocess.run([sys.executable, "make.py"], cwd=tmp_path, check=True, capture_output=True)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def score(program: Callable, truth: str, proposal: str, out: str) -> list[float]:
    "Both scores of `spacenet5 score`."
    code, *_ = program("score", "--truth", truth, "--proposal", proposal, "--out", out)
    assert code == 0
    found = pd.read_csv(Path(out, "scores.csv"))
    return [round(found[k].mean(), 3) for k in ("apls_length", "apls_time")]


def test_01_our_own_geojson_has_its_speeds(case, program):
    folder = case("01")
    for truth, proposal in (("gpkg", "geojson"), ("geojson", "gpkg"), ("graphml", "geojson")):
        assert score(program, truth, proposal, f"{truth}-{proposal}") == [1, 1]
    program("node", "gpkg/town.gpkg", "-o", "noded.geojson", "--overwrite")
    for labels in ("geojson/town.geojson", "noded.geojson"):
        code, said, _ = program(
            "bins", "--labels", labels, "-n", 3, "--out", "bins.csv", "--overwrite"
        )
        speeds = {round(speed_of(t).mph, 1) for t in read_rows(folder / labels).tags}
        assert code == 0 and said and speeds == {18.6, 37.3, 55.9}


def test_02_osmnx_edges_are_the_same_network(case, program):
    pytest.importorskip("osmnx")
    case("02")
    for proposal in ("geojson", "gpkg"):
        assert score(program, "graphml", proposal, proposal) == [1, 1]


def test_03_our_own_overpass_is_no_crossing(case, program):
    case("03")
    for name in ("over.geojson", "over.gpkg"):
        code, *said = program("node", name, "-o", "noded.geojson", "--overwrite")
        assert code == 0 and "noded.geojson: 0 places" in "".join(said)
        rows = read_rows("noded.geojson")
        assert [len(line.coords) for line in rows.lines] == [2, 2]
        assert sorted(map(level_of, rows.tags)) == [0, 1]


def test_04_columns_of_geofabrik(case, program):
    case("04")
    rows = read_rows("roads.geojson")
    assert [round(speed_of(t).mph, 2) for t in rows.tags] == [45, 25, 20, 68.35, 35]
    assert [is_bridge(t) for t in rows.tags] == [False] * 4 + [True]
    code, said, more = program("bins", "--labels", "roads.geojson", "-n", 5, "--out", "b.csv")
    assert code == 0 and "speeds: 1 of 5 read from maxspeed, 4 by class" in said + more
    code, *said = program("node", "roads.geojson", "-o", "n.geojson")
    assert code == 0 and "n.geojson: 4 places have a common vertex now" in "".join(said)
    bridge = [line for line, t in zip(*read_rows("n.geojson")[:2], strict=True) if is_bridge(t)]
    assert [len(line.coords) for line in bridge] == [2], "nothing meets the bridge"
    code, *said = program("bins", "--labels", "capitals.geojson", "-n", 5, "--out", "c.csv")
    assert code == 0 and "speeds: 5 of 5 read from MAXSPEED" in "".join(said)
    limits = [round(speed_of(t).mph * 1.609344) for t in read_rows("capitals.geojson").tags]
    assert limits == [50, 50, 50, 110, 50]


def test_06_bands_are_those_that_the_file_names(case):
    case("06")
    want = raster.read_chip("rgbn.tif", 3)[0].astype(int)
    for name in ("rgbn", "bgrn", "bgr", "superdove"):
        found = raster.read_chip(f"{name}.tif", 3)[0]
        assert np.abs(found - want).mean((1, 2)).tolist() == [0, 0, 0], name


def test_07_alpha_and_masks_say_where_there_is_no_data(case):
    case("07")
    for kind in ("nodata", "alpha", "jpegmask"):
        scanned = scan_chips(find_chips(kind), workers=1)
        assert scanned["null_fraction"].round(2).tolist() == [0.4] * 6, kind
        for k in range(6):
            grid, valid = raster.read_valid(f"{kind}/c{k}.tif", 3)
            masks = hide_nodata(make_masks(f"{kind}/c{k}.geojson", grid), valid)
            road = masks[Channels.selim_sef().road]
            assert not road[:, :100].any() and road[:, 110:].any()


def test_08_lists_of_tiles_with_alpha(case):
    case("08")
    image = open_mosaic("town.vrt").read((1, 2, 3), Window(0, 0, 500, 300))
    a, b = (raster.read(f"{name}.tif")[:3] for name in "ab")
    assert (image[:, :, :300] == a).all(), "where tile b is transparent, tile a is seen"
    assert (image[:, :, 300:] == b[:, :, 100:]).all()


def test_09_windows_of_a_large_turned_image(case):
    case("09")
    scanned = scan_chips(find_chips("rot45"), bands_wanted=(3,), gsd_m=1.0, workers=1)
    assert len(scanned) == 16 and scanned["fatal"].tolist() == [""] * 16
    assert scanned["road_km"].to_numpy() == pytest.approx(0.1, abs=0.001)
    first = scanned.iloc[0]
    assert first.maxx - first.minx == pytest.approx(0.0056, abs=5e-5)
    assert first.maxy - first.miny == pytest.approx(0.0055, abs=1e-4)


def test_10_names_stay_apart(case, tmp_path):
    case("10")
    chips = find_chips("cjk")["chip"].str.rpartition("_")[0]
    assert sorted(set(chips)) == ["大阪", "東京"] and chips.value_counts().nunique() == 1
    tiles = sorted(tmp_path.glob("IMG*.TIF"))
    assert len({name_of(f) for f in tiles}) == len({parse_chip(f).id for f in tiles}) == 2
    own = replace(open_run("town", "small"), folder=tmp_path / "outputs")
    link = own.folder / "own" / "town" / "town.tif"
    link.parent.mkdir(parents=True)
    link.symlink_to(tiles[0])
    _check_owner(own, tiles[0])
    with pytest.raises(StageError, match=rf"belongs to .*{re.escape(tiles[0].name)}") as e:
        _check_owner(own, tiles[1])
    assert re.search(r"--run \S+-2", e.value.cure), "another name for this image's run"


def test_11_labels_that_hold_no_line(case):
    case("11")
    surfaces = scan_chips(find_chips("polygons"), workers=1)
    assert all("holds no line (1 Polygon)" in text for text in surfaces["fatal"])
    found = {f: scan_chips(find_chips(f), workers=1) for f in ("stac", "both")}
    assert {f: int((s["label"] != "").sum()) for f, s in found.items()} == {"stac": 3, "both": 6}
    for scanned in found.values():
        labelled = scanned["label"] != ""
        assert scanned["fatal"].tolist() == [""] * 6
        assert scanned["road_km"][labelled].to_numpy() == pytest.approx(0.256, rel=0.01)


def test_12_labels_as_geopackage_shapefile_and_geoparquet(case, program):
    case("12")
    for name in ("roads.gpkg", "roads.shp", "roads.parquet"):
        code, *said = program("bins", "--labels", name, "--out", "b.csv", "--overwrite")
        assert code == 0 and "speeds: 22 of 22 by class" in "".join(said), name
        code, *said = program("node", name, "-o", "n.geojson", "--overwrite")
        assert code == 0 and "n.geojson: 0 places" in "".join(said), name
    found = find_chips("folder")
    assert set(found["label"]) == {"folder/town.gpkg"} or all("town.gpkg" in v for v in found.label)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roads.gpkg", "roads.shp", "roads.parquet"])
def test_12_labels_of_any_kind_train(case, program, name):
    case("12")
    code, *said = program("train-own", "town.tif", "--labels", name, "--run", "x", "--dry-run")
    assert code == 0 and f"would read {name}: 22 lines" in "".join(said)


PROBABILITIES = {  # edges, km; or words of the message
    "stack_255": (4, 0.60),
    "stack_nodata255": (4, 0.54),
    "stack_nan": (4, 0.54),
    "stack_m9999": (4, 0.54),
    "stack_1": "bytes are probabilities of 0 to 255",
    "stack_100": "bytes are probabilities of 0 to 255",
    "one_255": (4, 0.60),
}


def test_13_no_data_in_probabilities_is_no_road(case, program):
    case("13")
    for name, want in PROBABILITIES.items():
        code, *said = program("vectorize", f"{name}.tif", "-o", f"{name}.gpkg")
        if isinstance(want, str):
            assert code != 0 and want in "".join(said) and not Path(f"{name}.gpkg").exists(), name
            continue
        g = graph.read(f"{name}.gpkg", speeds=name != "one_255")
        lines = [d["geometry"] for *_, d in g.edges(data=True)]
        km = sum(line.length for line in lines) / 1000
        assert (code, len(lines), round(km, 2)) == (0, *want), name
        west = min(line.bounds[0] for line in lines)
        assert west >= 500_000 + 59 * (name in ("stack_nodata255", "stack_nan", "stack_m9999"))


def test_14_reflectances_have_contrast(case):
    case("14")
    notes = check_image(open_scene("sr.tif", 3), [{}])
    assert not [note for note in notes if "contrast" in note]


def test_16_numbers_where_papermill_makes_them():
    assert open_run(2019, "small").name == "2019"


def test_17_across_the_180th_meridian(case):
    folder = case("17")
    (folder / "D").mkdir()
    for name in ("town.tif", "town.geojson"):
        shutil.copyfile(name, f"D/{name}")
    scanned = scan_chips(find_chips("D"), workers=1)
    assert scanned["fatal"].tolist() == [""] and 0 < scanned["maxx"][0] - scanned["minx"][0] < 0.01
    assert graph.from_labels("D/town.geojson").graph["crs"] in ("EPSG:32760", "EPSG:32701")
    assert (overlay("D/town.tif").rgba[3] > 0).mean() > 0.9


def test_18_cures_that_cure(case):
    case("18")
    assert raster.read_chip("gcps.tif", 3)[0].shape == (3, 256, 256), "an even grid of points"
    with pytest.raises(DataError, match=r"dop\.tfw lies beside it") as e:
        raster.read_chip("dop.tif", 3)
    assert "`rio edit-info dop.tif --crs EPSG:32636 --transform" in e.value.cure
    palette = raster.read_chip("palette.tif", 3)[0]
    assert len(palette) == 3 and palette.any(), "its colours are looked up"
    with pytest.raises(DataError, match="masks"):
        find_chips("two")
    scanned = scan_chips(find_chips("suffix"), bands_wanted=(3,), workers=1)
    masks = [
        text for text, image in zip(scanned.fatal, scanned.image, strict=True) if "_mask" in image
    ]
    assert all("is a mask by its name" in text and "from-masks" in text for text in masks)
