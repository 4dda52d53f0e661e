"Speeds and masks against the original's own results on real SpaceNet labels."

import json
from collections import Counter

import geopandas as gpd
import numpy as np
import pytest
from reference_cases import label_files, read_json

from spacenet5_nb import graph, masks, raster, speed_limits  # isort: skip
import rasterio  # isort: skip
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import shape

CHIPS = ("AOI_2_Vegas_img0", "AOI_2_Vegas_img99", "AOI_2_Vegas_img990", "AOI_2_Vegas_img991")


def test_speeds_of_every_real_label_file(reference):
    expected = read_json(reference / "targets/speeds_mph.json")
    assert len(expected) >= 12
    for name, path in label_files(reference).items():
        # the original counts features, not the parts of MultiLineStrings
        features = json.loads(path.read_text())["features"]
        roads = gpd.GeoDataFrame(
            [f["properties"] for f in features],
            geometry=[shape(f["geometry"]) for f in features],
            crs=4326,
        )
        got = Counter(speed_limits.add_speeds(roads, keep_existing=False)["inferred_speed_mph"])
        assert got == {float(mph): n for mph, n in expected[name].items()}, name


@pytest.fixture(scope="module", params=CHIPS)
def case(request, reference):
    "Label file, grid and the original's 11 bands of one chip."
    place = read_json(reference / "vectorize/reference.json")[request.param]
    with rasterio.open(reference / f"targets/{request.param}.tif", driver="GTiff") as source:
        bands = source.read()
    grid = raster.Grid(
        bands.shape[1:],
        Affine.from_gdal(*place["gdal_geotransform"]),
        CRS.from_string(place["crs"]),
    )
    return reference / f"targets/{request.param}.geojson", grid, bands


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_reference_style_gives_the_original_masks(case):
    labels, grid, expected = case
    got = masks.make_masks(labels, grid, style="reference")[: len(expected)]
    for k, (a, b) in enumerate(zip(got > 0, expected > 0, strict=True)):
        both = (a & b).sum()
        assert both >= 0.999 * b.sum() and both >= 0.999 * a.sum(), (
            f"band {k}: {both} of {b.sum()} positives, {a.sum()} made"
        )


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_default_style_differs_by_rounded_ends_only(case):
    labels, grid, expected = case
    got = masks.make_masks(labels, grid)[: len(expected)] > 0
    assert (got[-1] & (expected[-1] > 0)).sum() >= 0.999 * (expected[-1] > 0).sum()
    assert got[-1].sum() <= 1.005 * (expected[-1] > 0).sum()
    assert (got[:-1].sum(0) == got[-1]).all(), "exactly one bin wherever there is road"


def test_label_graphs_keep_every_road(case):
    labels, _, _ = case
    g = graph.validate(graph.from_labels(labels))
    roads = graph.read_labels(labels).to_crs(g.graph["crs"])
    distinct = sum(d["length"] for *_, d in g.edges(data=True))
    assert np.isclose(distinct, roads.length.sum(), rtol=0.005), (
        "but for the few metres that are digitised twice"
    )
    assert {round(d["speed_kph"] / graph.MPH_TO_KPH, 6) for *_, d in g.edges(data=True)} == set(
        roads["inferred_speed_mph"].astype(float)
    )
