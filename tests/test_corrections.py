"""Mended predictions as labels: their weights reach the target's file and the crops of training;
the command refuses what does not belong together."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from spacenet5_nb import core, graph, masks, raster
from spacenet5_nb.base.labels import read_rows
from spacenet5_nb.core import DataError
from spacenet5_nb.mapping.corrections import find_prediction, mended_labels
from spacenet5_nb.mapping.road_table import toy_town
from spacenet5_nb.targets.label_weights import MEMBER, painted, read_weights

GRID = raster.Grid(
    (400, 400), raster.Affine(1, 0, 411_800, 0, -1, 6_174_000), raster.CRS.from_epsg(32637)
)
LON, LAT = 37.5975, 55.7005  # a town of 270 m within the grid


@pytest.fixture(scope="module")
def mended(tmp_path_factory):
    "An image, its prediction, a mended copy without one road, and the western half as looked at."
    folder = tmp_path_factory.mktemp("mended")
    town = toy_town(LON, LAT, "EPSG:32637", n=4, step=80)
    pixels = np.random.default_rng(1).integers(1, 255, (3, 400, 400), dtype=np.uint8)
    raster.write(folder / "town.tif", pixels, grid=GRID)
    graph.write(town, folder / "roads.gpkg")
    raster.write(folder / "roads_probs.tif", pixels[:1], grid=GRID)
    edges = gpd.read_file(folder / "roads.gpkg", layer="edges")
    edges[["speed_kph", "geometry"]][1:].to_file(folder / "mended.gpkg", driver="GPKG")
    box = edges.to_crs(4326).total_bounds
    west = shapely.box(box[0] - 0.002, box[1] - 0.002, (box[0] + box[2]) / 2, box[3] + 0.002)
    gpd.GeoDataFrame(geometry=[west], crs=4326).to_file(folder / "area.gpkg", driver="GPKG")
    return folder, edges.geometry[0]


@pytest.fixture(scope="module")
def target(mended):
    "The image's target, from its mended labels."
    folder, config = mended[0], core.load_preset("small")
    label = mended_labels(
        folder / "mended.gpkg",
        folder / "town.tif",
        folder / "m.geojson",
        looked_at=folder / "area.gpkg",
        say=lambda text: None,
    )
    path, image = folder / "target.tif", str(folder / "town.tif")
    masks.make_chip_mask((image, str(label), str(path), None, config.channels, config.masks))
    return path


def test_a_deleted_road_counts_in_full_where_it_was(mended, target):
    _, road = mended
    with raster.open_raster(target) as source:
        weight = painted(source.tags(), raster.grid_in(source))
    assert set(np.unique(weight)) == {26, 128, 255}
    column, row = ~GRID.transform * road.interpolate(0.5, normalized=True).coords[0]
    assert weight[int(row), int(column)] == 255
    assert (weight == 255).mean() < 0.05


def test_crops_leave_out_what_counts_little(mended, target, tmp_path):
    "Of pixels of weight a tenth, about a tenth say something in a crop; another seed, others."
    from spacenet5_nb.training.dataset import Key, RoadDataset, unpack_target

    folder, _ = mended
    names = core.load_preset("small").channels.names
    chips = pd.DataFrame(
        [{"chip": "a", "city": "x", "image": str(folder / "town.tif"),
          "mask": str(target)}]
    )  # fmt: skip
    data = RoadDataset(chips, 3, names, crop=128, cache=tmp_path)
    data.weights = [np.full((400, 400), 26, np.uint8)]
    shares = []
    for seed in (1, 2):
        _, planes = data[Key(0, seed, -1)]
        shares.append(unpack_target(planes[None], names)[0, 0] >= 0)
    assert 0.05 < shares[0].float().mean() < 0.16
    assert (shares[0] != shares[1]).any()
    data.weights = [None]
    whole = unpack_target(data[Key(0, 1, -1)][1][None], names)[0, 0] >= 0
    assert whole.float().mean() > 4 * shares[0].float().mean()


def test_a_file_edited_in_place_has_no_original_beside_it(mended):
    folder, _ = mended
    assert find_prediction(folder / "mended.gpkg") == folder / "roads.gpkg"
    assert find_prediction(folder / "roads.gpkg") is None


def test_the_command_takes_mended_roads(mended, tmp_path, monkeypatch):
    "Weights are in the label that training gets; a label that does not change is left alone."
    from typer.testing import CliRunner

    from spacenet5_nb import extract, pipeline

    folder, took = mended[0], []
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(extract, "train_own", lambda image, labels, **k: took.append(labels))
    call = ["train-own", str(folder / "town.tif"), "--labels", str(folder / "mended.gpkg")]
    for _ in range(2):
        done = CliRunner().invoke(pipeline.app, [*call, "--looked-at", str(folder / "area.gpkg")])
        assert done.exit_code == 0, done.output
        assert "mended beside" in done.output
    label = took[0]
    assert read_weights(label).rest == 0.1 and took[0] == took[1]
    assert MEMBER in json.loads(open(label).read())
    assert len(read_rows(label).lines) == len(gpd.read_file(folder / "mended.gpkg"))


@pytest.mark.parametrize("option", ["--predicted", "--looked-at"])
def test_options_of_mended_roads_want_labels(mended, option):
    from typer.testing import CliRunner

    from spacenet5_nb import pipeline

    call = ["train-own", str(mended[0] / "town.tif"), "--osm", "x.osm", option, "y.gpkg"]
    done = CliRunner().invoke(pipeline.app, call)
    assert done.exit_code and "--labels" in str(done.exception)


def test_labels_of_another_image_are_refused(mended, tmp_path):
    folder, _ = mended
    away = GRID._replace(transform=raster.Affine(1, 0, 430_000, 0, -1, 6_174_400))
    raster.write(tmp_path / "other.tif", np.ones((3, 400, 400), np.uint8), grid=away)
    with pytest.raises(DataError, match="all lie outside"):
        mended_labels(folder / "mended.gpkg", tmp_path / "other.tif", tmp_path / "m.geojson")
    assert not (tmp_path / "m.geojson").exists()
