"""Small valid files of every kind that is read, and what reads them."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spacenet5_nb import core, graph, raster  # isort: skip
import shapely

CRS, AT = raster.CRS.from_epsg(32637), raster.Affine(0.5, 0, 400_000, 0, -0.5, 6_170_000)


WIDE = raster.Grid((400, 400), raster.Affine(0.5, 0, 399_950, 0, -0.5, 6_170_100), CRS)


class Kind(NamedTuple):
    "A kind of file: its ending, a small valid one, and its readers."

    ending: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    is_text: bool = False


def small_graph():
    corner = np.array([400_000.0, 6_170_000.0])
    roads = [[(0, 0), (60, 0), (60, 30)], [(60, 30), (90, 30)]]
    lines = [shapely.LineString(corner + np.array(xy)) for xy in roads]
    return graph.from_lines(lines, [30.0, 50.0], crs="EPSG:32637")


def make_tiff(path: Path) -> None:
    pixels = np.random.default_rng(1).integers(1, 255, (3, 24, 24), dtype=np.uint8)
    raster.write(path, pixels, grid=raster.Grid((24, 24), AT, CRS), descriptions="rgb")


def read_tiff(path: Path) -> None:
    raster.read_named(path)
    raster.read_chip(path, 3)


def make_vrt(path: Path) -> None:
    make_tiff(path.parent / "tile.tif")
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{k}"><ColorInterp>Gray</ColorInterp><SimpleSource>'
        '<SourceFilename relativeToVRT="1">tile.tif</SourceFilename>'
        f'<SourceBand>{k}</SourceBand><SrcRect xOff="0" yOff="0" xSize="24" ySize="24"/>'
        '<DstRect xOff="0" yOff="0" xSize="24" ySize="24"/></SimpleSource></VRTRasterBand>'
        for k in (1, 2, 3)
    )
    place = ", ".join(map(str, AT.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="24" rasterYSize="24"><SRS>EPSG:32637</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )


def read_vrt(path: Path) -> None:
    from rasterio.windows import Window

    from spacenet5_nb.inference.vrt_mosaic import open_mosaic

    open_mosaic(path).read([1, 2, 3], Window(0, 0, 24, 24))


def make_labels(path: Path) -> None:
    line = {"type": "LineString", "coordinates": [[37.4, 55.66], [37.401, 55.661]]}
    said = {"highway": "primary", "lanes": "2", "maxspeed": "50 mph", "bridge": None}
    feature = {"type": "Feature", "properties": said, "geometry": line}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 2}))


def read_labels(path: Path) -> None:
    from spacenet5_nb import masks
    from spacenet5_nb.base.known_channels import read_known

    rows = masks.rows_of(path)
    read_known(path)
    masks.make_masks(rows, raster.Grid((24, 24), AT, CRS))


def make_frame(path: Path) -> None:
    import geopandas as gpd

    line = shapely.LineString([(37.4, 55.66), (37.401, 55.661)])
    frame = gpd.GeoDataFrame({"highway": ["primary"]}, geometry=[line], crs="EPSG:4326")
    if path.suffix == ".parquet":
        return frame.to_parquet(path)
    drivers = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
    frame.to_file(path, driver=drivers[path.suffix])


def read_graph(path: Path) -> None:
    from spacenet5_nb.mapping.road_table import road_frame

    for reader in (graph.read, lambda p: road_frame({"chip": p}), read_judged):
        within(reader, path)


def read_judged(path: Path) -> None:
    from spacenet5_nb.judge.chip_graphs import find_entries, read_entry

    for chip, entry in find_entries(path).items():
        read_entry(entry, chip, image=WIDE)


def make_area(path: Path) -> None:
    import geopandas as gpd

    frame = gpd.GeoDataFrame(geometry=[shapely.box(37.4, 55.6, 37.5, 55.7)], crs="EPSG:4326")
    drivers = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}
    frame.to_file(path, driver=drivers[path.suffix])


def read_area(path: Path) -> None:
    from spacenet5_nb.acquire import areas

    areas.read_area(path)


def make_weights(path: Path) -> None:
    from spacenet5_nb.targets.label_weights import MEMBER, Weights, weights_json

    member = weights_json(Weights(0.1, ((shapely.box(37.4, 55.6, 37.5, 55.7), 0.5),)))
    path.write_text(json.dumps({"type": "FeatureCollection", MEMBER: member, "features": []}))


def read_weights(path: Path) -> None:
    from spacenet5_nb.targets import label_weights

    found = label_weights.read_weights(path)
    if found is not None:
        label_weights.paint_weights(found, raster.Grid((24, 24), AT, CRS))


def make_osm(path: Path) -> None:
    from spacenet5_nb.roads.formats import write_osm

    write_osm(small_graph(), path)


def read_osm(path: Path) -> None:
    from spacenet5_nb.acquire.osm import each_way
    from spacenet5_nb.roads.formats import read_osm_graph

    within(read_osm_graph, path)
    within(read_labels, path)
    each_way(path, lambda way: None)


def make_solution(path: Path) -> None:
    rows = graph.to_wkt_rows(small_graph(), WIDE.transform, CRS, "AOI_7_Moscow_chip1")
    path.write_text(rows.to_csv(index=False))


def read_solution(path: Path) -> None:
    from spacenet5_nb.roads.formats import check_solution

    within(check_solution, path)
    read_judged(path)


def make_bins(path: Path) -> None:
    from spacenet5_nb.speed_limits import write_bin_csv

    write_bin_csv(path, (10.0, 25.0, 65.0))


def make_member(path: Path) -> None:
    from spacenet5_nb.model import RoadUNet, channels_info, save

    net = RoadUNet("test_resnet", 3, 12, decoder=(8, 8, 8))
    channels = channels_info(core.Channels.selim_sef())
    net.info = dict(channels=channels, gsd_m=0.5, stretch="chip", preset="small")
    save(net, path)


def read_member(path: Path) -> None:
    from spacenet5_nb.model import load

    load(path)


def make_resume(path: Path) -> None:
    import torch

    from spacenet5_nb.training.resume import State, write_resume

    net = torch.nn.Linear(2, 1)
    row = {"stage": 0, "epoch": 1, "loss": 0.5, "seconds": 1.0}
    write_resume(path, State("mine", rows=[row]), net, torch.optim.Adam(net.parameters()))


def read_resume(path: Path) -> None:
    import torch

    from spacenet5_nb.training.resume import check_optimizer, check_saved
    from spacenet5_nb.training.resume import read_resume as read

    net = torch.nn.Linear(2, 1)
    saved = read(path, "mine")
    if saved is not None:
        check_saved(path, saved, net)
        check_optimizer(path, saved["optimizer"], torch.optim.Adam(net.parameters()))


def make_preset(path: Path) -> None:
    path.write_text(
        "base: small\nname: mine\nchannels: selim_sef\ndata: {gsd_m: 0.5}\n"
        "folds:\n  - &a {encoder: resnet18, bands: 3, pretrained: false}\n  - *a\n"
        "train: {stages: [{crop_px: 96, batch: 4, epochs: 1, lr: [[0, 1.0e-3]]}]}\n"
    )


def make_settings(path: Path) -> None:
    path.write_text(
        "[workspace]\nworkers = 2\nlargest_read_gb = 1.5\nseed = 7\ndata_root = chips\n"
    )


def make_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(small_graph()))


def make_pixels(path: Path) -> None:
    from spacenet5_nb.acquire.pickled_graphs import write_pixel_graph

    nodes = np.array([(0.0, 0.0), (10.0, 5.0), (20.0, 5.0)])
    write_pixel_graph((nodes, np.array([(0, 1), (1, 2)])), path)


def read_pixels(path: Path) -> None:
    from spacenet5_nb.acquire.pickled_graphs import read_pixel_graph

    read_pixel_graph(path)


def within(reader: Callable[[Path], Any], path: Path) -> None:
    "Read; our own errors are what is wanted."
    try:
        reader(path)
    except core.WorkspaceError as e:
        check_words(e)


def check_words(error: core.WorkspaceError) -> None:
    "A message is one line of a person's size, without control characters or temporary names."
    text = str(error)
    assert len(text) < 3000, f"a message of {len(text)} characters"
    assert core.shown(text, len(text) + 1) == text, f"a message that is not printable: {text!r}"


KINDS = {
    "tiff": Kind(".tif", make_tiff, read_tiff),
    "vrt": Kind(".vrt", make_vrt, read_vrt, True),
    "geojson": Kind(".geojson", make_labels, read_labels, True),
    "gpkg": Kind(".gpkg", make_frame, read_labels),
    "fgb": Kind(".fgb", make_frame, read_labels),
    "shp": Kind(".shp", make_frame, read_labels),
    "parquet": Kind(".parquet", make_frame, read_labels),
    "graph": Kind(".gpkg", lambda p: graph.write(small_graph(), p), read_graph),
    "graphml": Kind(".graphml", lambda p: graph.write(small_graph(), p), read_graph, True),
    "osm": Kind(".osm", make_osm, read_osm, True),
    "area": Kind(".geojson", make_area, read_area, True),
    "area_gpkg": Kind(".gpkg", make_area, read_area),
    "weights": Kind(".geojson", make_weights, read_weights, True),
    "solution": Kind(".csv", make_solution, read_solution, True),
    "bins": Kind(".csv", make_bins, core.read_bins, True),
    "member": Kind(".safetensors", make_member, read_member),
    "resume": Kind(".ckpt", make_resume, read_resume),
    "preset": Kind(".yaml", make_preset, core.load_preset, True),
    "settings": Kind(".ini", make_settings, core.load_settings, True),
    "pickle": Kind(".gpickle", make_pickle, read_judged),
    "pixels": Kind(".p", make_pixels, read_pixels),
    "objects": Kind(".pkl", make_pickle, read_pixels),
    "pixels_json": Kind(".json", make_pixels, read_pixels, True),
}

for name in (
    "SPACENET5_WORKERS",
    "SPACENET5_LARGEST_READ_GB",
    "SPACENET5_DATA",
    "SPACENET5_OUTPUTS",
):
    os.environ.pop(name, None)  # settings come from the file alone
