"""The two one-liners: an image and an ensemble to roads on a map, and imagery with a street map to
an ensemble of one's own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine

from spacenet5_nb import core, extract, graph, model, raster
from spacenet5_nb.core import CheckpointError, DataError, StageError
from spacenet5_nb.inference import tiled_inference
from spacenet5_nb.raster import CRS, Grid

UTM = CRS.from_epsg(32611)
PRESET = core.load_preset(
    {
        "name": "tiny",
        "decoder": [8, 8, 8, 8],
        "data": {"gsd_m": 1.0},
        "folds": [{"encoder": "test_resnet", "pretrained": False, "bands": b} for b in (3, 8)],
        "ensemble": {"tta": "none"},
        "vectorize": {"threshold": 0.5, "low_threshold": None, "min_component_m": 0.0},
    }
)
SEEN = {
    "gsd_m": [0.5, 0.5, 0.6],
    "bands": 8,
    "dtypes": ["uint16"],
    "limits": [[60, 800]] * 8,
    "chips": 9,
}


def members(folder: Path, p=PRESET, **info) -> Path:
    "A folder of two folds, one on eight bands, of fresh networks that say something."
    for k in range(len(p.folds)):
        torch.manual_seed(k)
        net = model.build(p, k)
        torch.nn.init.normal_(net.head.weight, std=0.5)
        torch.nn.init.zeros_(net.head.bias)
        for name in ("last", "best_dice", "best_apls"):
            model.save(net, folder / f"{k}/{name}.safetensors", **info)
    return folder


def town(path: Path, bands=8, pixel=0.5, shape=(480, 640), dtype=np.uint16, scale=1.0) -> Path:
    image = (
        (
            np.random.default_rng(0)
            .gamma(6, 60, (bands, shape[0] // 16, shape[1] // 16))
            .repeat(16, 1)
            .repeat(16, 2)
            * scale
        )
        .clip(1, 60000)
        .astype(dtype)
    )
    return raster.write(path, image, grid=Grid(shape, Affine(pixel, 0, 5e5, 0, -pixel, 4e6), UTM))


def lines(g):
    return sorted(
        (d["geometry"].wkt, round(d["speed_kph"], 6), d["level"]) for *_, d in g.edges(data=True)
    )


def test_an_image_becomes_roads_with_speeds_on_a_map(tmp_path):
    said = []
    done = extract.extract(
        town(tmp_path / "town.tif"),
        members(tmp_path / "folds", trained_on=SEEN),
        tmp_path / "roads.gpkg",
        preset=PRESET,
        devices="cpu",
        say=said.append,
    )
    assumed = "the file does not say what its 8 bands are: 5, 3, 2 are taken"
    assert all(n.startswith(assumed) for n in done.notes), "nothing else is strange"
    assert all(assumed in s for s in said if s.startswith("warning"))
    g = graph.validate(graph.read(done.roads))
    assert lines(g) == lines(done.graph) and g.number_of_edges() > 5
    probs, grid, names = raster.read_named(done.probabilities)
    assert (
        probs.shape == (12, 240, 320)
        and names == core.Channels.selim_sef().names
        and abs(raster.gsd_of(grid) - 1) < 0.01
    )
    page = done.map.read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "Roads of town" in page
    (x0, x1), (y0, y1) = (
        (min(v), max(v))
        for v in zip(*((d["x"], d["y"]) for _, d in g.nodes(data=True)), strict=True)
    )
    assert 5e5 <= x0 < x1 <= 5e5 + 320 and 4e6 - 240 <= y0 < y1 <= 4e6, "on the ground of the image"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "folds",
        "roads.gpkg",
        "roads.html",
        "roads_probs.tif",
        "town.tif",
    ]


def test_a_second_run_predicts_nothing_and_gives_the_same(tmp_path, monkeypatch):
    image, folds = town(tmp_path / "town.tif"), members(tmp_path / "folds")
    one = extract.extract(
        image, folds, tmp_path / "a.gpkg", preset=PRESET, devices="cpu", html=False
    )
    monkeypatch.setattr(
        tiled_inference, "mean_of_members", lambda *a, **k: pytest.fail("predicted again")
    )
    two = extract.extract(
        image, folds, tmp_path / "a.gpkg", preset=PRESET, devices="cpu", html=False, beside=True
    )
    assert lines(one.graph) == lines(two.graph)


@pytest.mark.slow
def test_roads_traced_beside_are_the_roads_traced_after(tmp_path, monkeypatch):
    "Four cores of a town, in two processes, from cells as they come."
    monkeypatch.setitem(extract._CORES, "window_px", 200)
    monkeypatch.setitem(extract._CORES, "margin_m", 40.0)
    monkeypatch.setenv("SPACENET5_WORKERS", "2")
    p = replace(PRESET, ensemble=replace(PRESET.ensemble, window_px=320))
    image, folds = town(tmp_path / "town.tif", shape=(800, 800)), members(tmp_path / "folds")
    after, beside = (
        extract.extract(
            image, folds, tmp_path / f"{b}.gpkg", preset=p, devices="cpu", beside=b, html=False
        )
        for b in (False, True)
    )
    assert lines(after.graph) == lines(beside.graph) and after.graph.number_of_edges() > 20


def test_devices_of_the_command_line_share_the_windows(tmp_path, monkeypatch):
    "Two copies of the members beside each other, as on two GPUs: the same probabilities and roads."
    from typer.testing import CliRunner

    from spacenet5_nb.pipeline import app

    opened, real = [], tiled_inference.open_everywhere
    monkeypatch.setattr(
        tiled_inference,
        "open_everywhere",
        lambda members, config, devices: (
            opened.append([str(d) for d in devices]) or real(members, config, devices)
        ),
    )
    image, folds = town(tmp_path / "town.tif"), members(tmp_path / "folds")
    (tmp_path / "own.yaml").write_text(
        "base: small\ndata: {gsd_m: 1.0}\nvectorize: {threshold: 0.5, "
        "low_threshold: null, min_component_m: 0.0}\nensemble: {tta: none, "
        "window_px: 320}\n"
    )
    for name, devices in (("one", "cpu"), ("two", "cpu,cpu")):
        done = CliRunner().invoke(
            app,
            [
                "extract",
                str(image),
                "--members",
                str(folds),
                "-o",
                str(tmp_path / f"{name}.gpkg"),
                "--preset",
                str(tmp_path / "own.yaml"),
                "--no-map",
                "--devices",
                devices,
            ],
        )
        assert done.exit_code == 0, done.output
    assert opened == [["cpu"], ["cpu", "cpu"]]
    assert (tmp_path / "one_probs.tif").read_bytes() == (tmp_path / "two_probs.tif").read_bytes()
    assert lines(graph.read(tmp_path / "one.gpkg")) == lines(graph.read(tmp_path / "two.gpkg"))


def test_an_image_unlike_the_training_chips_is_said(tmp_path):
    folds = members(tmp_path / "folds", trained_on=SEEN)
    for name, change, word in (
        ("coarse", dict(pixel=2.0), "2 m on the ground"),
        ("bytes", dict(dtype=np.uint8, scale=0.2), "uint8"),
        ("bright", dict(scale=20), "times as bright"),
        ("rgb", dict(bands=3), "3 of 6 members, which want 8, are left out"),
        ("four", dict(bands=4), "1, 2, 3 are taken as red, green, blue"),
    ):
        said = []
        done = extract.extract(
            town(tmp_path / f"{name}.tif", **change),
            folds,
            tmp_path / f"{name}.gpkg",
            preset=PRESET,
            devices="cpu",
            html=False,
            say=said.append,
        )
        assert any(word in s and s.startswith(f"warning: {name}.tif") for s in said), (name, said)
        assert done.notes


def test_what_cannot_be_done_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(tiled_inference, "predict_raster", lambda *a, **k: pytest.fail("computed"))
    image, folds = town(tmp_path / "town.tif"), members(tmp_path / "folds")
    go = dict(devices="cpu", preset=PRESET)
    with pytest.raises(DataError, match="no kind of road file.*gpkg"):
        extract.extract(image, folds, tmp_path / "roads.shp", **go)
    with pytest.raises(DataError, match="would overwrite"):
        extract.extract(town(tmp_path / "a_probs.tif"), folds, tmp_path / "a.gpkg", **go)
    with pytest.raises(DataError, match="no such file"):
        extract.extract(tmp_path / "none.tif", folds, tmp_path / "a.gpkg", **go)
    with pytest.raises(CheckpointError, match="no member.*Name `world`"):
        extract.extract(image, tmp_path / "nothing", tmp_path / "a.gpkg", **go)
    with pytest.raises(DataError, match="has 1 bands"):
        extract.extract(town(tmp_path / "pan.tif", bands=1), folds, tmp_path / "a.gpkg", **go)
    with pytest.raises(DataError, match="members want 8"):
        extract.extract(town(tmp_path / "rgb.tif", bands=3), folds / "1", tmp_path / "a.gpkg", **go)
    with pytest.raises(DataError, match="has 5 bands"):
        extract.extract(town(tmp_path / "five.tif", bands=5), folds, tmp_path / "a.gpkg", **go)
    with pytest.raises(core.PresetError):
        extract.extract(image, folds, tmp_path / "a.gpkg", devices="cpu", preset="nosuch")


def labels(path: Path) -> Path:
    road = (
        '{{"type": "Feature", "properties": {{"highway": "residential", "lanes": '
        '"2"}}, "geometry": {{"type": "LineString", "coordinates": [[{}, {}], [{}, '
        "{}]]}}}}"
    )
    features = ", ".join(
        road.format(-116.9995 + a, 36.143 + b, -116.997 + a, 36.144 + b)
        for a, b in ((0, 0), (0.0002, 0.0003))
    )
    path.write_text(f'{{"type": "FeatureCollection", "features": [{features}]}}')
    return path


class Pipeline:
    "Stands for pipeline.run: notes what it is asked, and leaves checkpoints."

    def __init__(self, outputs: Path):
        self.outputs, self.calls = outputs, []

    def __call__(self, preset, *, run, data_root, devices):
        self.calls.append((run, Path(data_root)))
        members(self.outputs / run / "folds")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "outputs"))
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "base: small\ndata: {gsd_m: 1.0}\nvectorize: {threshold: 0.5, "
        "low_threshold: null, min_component_m: 0.0}\nensemble: {tta: none}\n"
    )
    return tmp_path, str(preset)


def test_own_imagery_and_labels_give_an_ensemble_and_roads(workplace):
    from spacenet5_nb.explore import find_chips

    folder, preset = workplace
    image, train = town(folder / "my town.tif"), Pipeline(folder / "outputs")
    done = extract.train_own(
        image, train=train, labels=labels(folder / "roads.geojson"), preset=preset, devices="cpu"
    )
    ((run, root),) = train.calls
    own_name = core.parse_chip("my town.tif").id  # told apart from my_town.tif
    assert own_name.startswith("my_town-")
    assert (
        run == own_name
        and done.roads == folder / f"outputs/{own_name}/{own_name}.gpkg"
        and done.graph.number_of_edges() > 0
    )
    chips = find_chips(root)
    assert (
        (chips["city"] == own_name).all()
        and (chips["label"] != "").all()
        and (root / f"{own_name}.tif").resolve() == image
    )
    other = extract.train_own(
        image,
        train=train,
        labels=labels(folder / "more.geojson"),
        preset=preset,
        run="again",
        out=folder / "r.geojson",
        devices="cpu",
    )
    assert (
        other.roads.exists()
        and (folder / "outputs/again/own/again/again.geojson").resolve() == folder / "more.geojson"
    )


def test_own_imagery_and_openstreetmap(workplace):
    """The label file is made once, again where the extract is newer, and a user's own labels are
    never written over."""
    folder, preset = workplace
    image, train = town(folder / "town.tif"), Pipeline(folder / "outputs")
    lon, lat = (-117.0, 36.1446)
    osm = folder / "map.osm"
    osm.write_text(
        '<osm version="0.6">'
        + "".join(
            f'<node id="{k}" version="1" lat="{lat + dy}" lon="{lon + dx}"/>'
            for k, (dx, dy) in enumerate(
                ((0.0005, -0.0003), (0.003, -0.0018), (0.0005, -0.0018)), 1
            )
        )
        + (
            '<way id="9" version="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><tag '
            'k="highway" v="residential"/></way></osm>'
        )
    )
    own = labels(folder / "mine.geojson")
    before = own.read_bytes()
    extract.train_own(image, train=train, labels=own, preset=preset, devices="cpu")
    extract.train_own(image, train=train, osm=osm, preset=preset, devices="cpu")
    made = folder / "outputs/town/own/town/town.geojson"
    stamp = made.stat().st_mtime_ns
    assert (
        not made.is_symlink() and '"residential"' in made.read_text() and own.read_bytes() == before
    )
    extract.train_own(image, train=train, osm=osm, preset=preset, devices="cpu")
    assert made.stat().st_mtime_ns == stamp, (
        "nothing was newer, so the pipeline finds nothing changed"
    )


def test_training_goes_on_from_members_of_the_same_kind(tmp_path):
    "Folds 0 and 2 of the preset are this network; 1 and 3 are not."
    networks = ["test_resnet", "test_efficientnet"] * 2
    folds = [{"encoder": e, "bands": 3, "pretrained": False} for e in networks]
    path = tmp_path / "mixed.yaml"
    path.write_text(json.dumps({"base": "small", "name": "mixed", "folds": folds}))
    small = core.load_preset(str(path))
    folder, said = (
        members(
            tmp_path / "there",
            replace(small, folds=(small.folds[0], replace(small.folds[0], bands=8))),
        ),
        [],
    )
    p = core.load_preset(
        str(extract.begun_preset(str(path), folder, tmp_path / "run", said.append))
    )
    starts = [f.pretrained for f in p.folds]
    own = {
        str(m.resolve())
        for m in folder.rglob("*.safetensors")
        if model.read_info(m)["spec"]["in_channels"] == 3
    }
    assert (
        starts[1] is starts[3] is False
        and {starts[0], starts[2]} <= own
        and len(said) == 4
        and "begins with none" in said[1]
    )
    assert replace(p, folds=small.folds) == small, "all else is the preset's"
    assert torch.equal(model.build(p, 0).head.weight, model.load(starts[0]).head.weight)
    with pytest.raises(
        core.StageError, match="no member like a fold of preset 'best'.*same encoder"
    ):
        extract.begun_preset("best", folder, tmp_path / "run", said.append)


def test_train_own_needs_one_image_and_one_street_map(workplace):
    folder, preset = workplace
    image = town(folder / "town.tif")
    for wrong, error, word in (
        (dict(), StageError, "needs one street map"),
        (dict(osm="a.osm", labels="b.geojson"), StageError, "needs one street map"),
        (dict(labels=folder / "none.geojson"), DataError, "no such file of labels"),
    ):
        with pytest.raises(error, match=word):
            extract.train_own(image, train=pytest.fail, preset=preset, **wrong)
    with pytest.raises(DataError, match="list of tiles"):
        extract.train_own(folder / "a.vrt", train=pytest.fail, labels="x.geojson", preset=preset)


# --- an image without georeference


def bare(path: Path, bands: int = 3) -> Path:
    "A picture that says neither where it lies nor how large its pixels are."
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    pixels = np.random.default_rng(0).integers(30, 220, (bands, 12, 16)).repeat(16, 1).repeat(16, 2)
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, dtype="uint8", count=bands, height=192, width=256
        ) as file:
            file.write(pixels.astype("uint8"))
    return path


def asked(*arguments: object) -> tuple[int, str]:
    "Exit code and output of the command line."
    from typer.testing import CliRunner

    from spacenet5_nb.pipeline import app

    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, f"{done.output} {done.exception or ''}"


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_an_image_without_georeference_lies_on_a_local_grid(ending, tmp_path):
    image, folds = bare(tmp_path / f"town.{ending}"), members(tmp_path / "folds") / "0"
    command = ["extract", image, "--members", folds, "-o", tmp_path / "roads.gpkg", "--tta", "none"]
    before = sorted(p.name for p in tmp_path.iterdir())
    code, said = asked(*command, "--gsd", "0.5x0.6", "--dry-run")
    assert code == 0 and "256 x 192 px" in said and "roads_image.tif" in said, said
    assert sorted(p.name for p in tmp_path.iterdir()) == before, "a dry run writes nothing"
    code, said = asked(*command, "--gsd", "0.5x0.6", "--no-map", "--devices", "cpu")
    assert code == 0 and "no place on Earth" in said and "roads_image.tif" in said, said
    y_m, x_m = raster.ground_size(raster.grid_of(tmp_path / "roads_image.tif"))
    assert (round(x_m, 4), round(y_m, 4)) == (0.5, 0.6)
    g = graph.read(tmp_path / "roads.gpkg")
    assert str(g.graph["crs"]).upper() == "EPSG:32631"


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(
    ("gsd", "words"),
    [
        ((), ("--gsd 0.5", "town")),
        (("--gsd", "0.01"), ("0.01 x 0.01 m", "half a metre")),
        (("--gsd", "30"), ("30 x 30 m", "half a metre")),
        (("--gsd", "half"), ("--gsd half", "0.6x0.76")),
    ],
)
def test_a_pixel_size_that_lacks_or_cannot_be_is_an_error(gsd, words, ending, tmp_path):
    image = bare(tmp_path / f"town.{ending}")
    for dry in ((), ("--dry-run",)):
        code, said = asked("extract", image, "-o", tmp_path / "roads.gpkg", *gsd, *dry)
        assert code and all(word in said for word in words), said
    assert [p.name for p in tmp_path.iterdir()] == [image.name]


def test_somebody_elses_file_is_not_written_over(tmp_path):
    image, own = bare(tmp_path / "town.png"), town(tmp_path / "roads_image.tif")
    before = own.read_bytes()
    code, said = asked("extract", image, "-o", tmp_path / "roads.gpkg", "--gsd", "0.5")
    assert code and "in the way" in said and own.read_bytes() == before


def test_no_street_map_lies_on_an_image_without_georeference(workplace):
    folder, preset = workplace
    image = bare(folder / "town.png")
    with pytest.raises(DataError, match="no street map lies on it.*--gsd 0.5"):
        extract.train_own(image, train=pytest.fail, labels="x.geojson", preset=preset)
    code, said = asked("train-own", image, "--labels", "x.geojson", "--dry-run")
    assert code and "no street map lies on it" in said, said
