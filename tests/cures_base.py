"Cures of settings, presets, tables of bins, pictures without a place, graphs on pixels, files."

import re
from pathlib import Path

import numpy as np
import pytest
from cures import row
from cures_readers import GRID, N, geojson, picture

from spacenet5_nb import raster
from spacenet5_nb.base import files, known_channels, local_grid, pansharpen, parallel, pixel_graphs
from spacenet5_nb.base.run_folders import as_text, check_run_name, open_run
from spacenet5_nb.base.settings import load_settings
from spacenet5_nb.base.xml_prolog import refuse_document_type
from spacenet5_nb.core import Channels, load_preset, read_bins
from spacenet5_nb.speed_limits import write_bin_csv

INI = "[workspace]\n"


@row("base/settings", "in [DEFAULT]", "unknown section", "' are one", "unknown key '{}'")
@row("base/settings", "is not a valid ini file", "is not UTF-8", "must be {}", "is out of range")
@row("base/settings", "is no folder's name", "cannot be read")
def _(folder, fails):
    path = folder / "settings.ini"
    for text, cure in [
        ("[DEFAULT]\nseed = 1\n", "[workspace]"),
        ("[other]\nseed = 1\n", "[workspace]"),
        (INI + "memory_gb = 1\nlargest_read_gb = 2\n", "Keep the latter"),
        (INI + "sead = 1\n", "seed"),
        ("seed = 1\n", "docs/settings.md"),
        (INI + "seed = one\n", "remove it"),
        (INI + "seed = -1\n", "remove it"),
        (INI + "data_root = ~nobody-of-this-name/x\n", "Mend it"),
    ]:
        path.write_text(text)
        assert cure in fails(lambda: load_settings(path))
    path.write_bytes(INI.encode() + b"# \xff\n")
    assert "Save it as UTF-8" in fails(lambda: load_settings(path))
    path.write_text(INI + "# ÿ\nseed = 1\n", "utf-8")  # saved so, with one section and a known key
    assert load_settings(path).seed == 1
    path.unlink()
    path.mkdir()  # no file that could be read, whoever asks
    assert "rights" in fails(lambda: load_settings(path))
    path.rmdir()
    path.write_text(INI + "largest_read_gb = 2\n")
    assert load_settings(path).largest_read_gb == 2 and load_settings(path).seed == 2019
    assert (Path(__file__).parents[1] / "docs/settings.md").is_file()


@row("base/presets", "no such preset file", "is not a preset", "has the name '", "calls itself '")
@row("base/presets", "has a base that is no name", "channels '{}' are unknown")
@row("base/presets", '<f"{words}')
def _(folder, fails):
    good = folder / "mine.yaml"
    good.write_text("base: small\n")
    assert load_preset(good).name == "mine"
    for name in ("no.yaml", "smal"):
        named = re.search("Named presets: (.*?)[;.]", fails(lambda name=name: load_preset(name)))[1]
        assert [load_preset(n).name for n in named.split(", ")] == named.split(", ")
    small = {"base": "small", "name": "mine"}
    for change, mended in [
        ({"name": "a\nb"}, {"name": "ab1"}),
        ({"base": 7}, {"base": "small"}),
        ({"base": 7}, {"base": str(good)}),
        ({"channels": "selim"}, {"channels": "selim_sef"}),
        ({"vectorize": {"min_spur": 3}}, {"vectorize": {"min_spur_m": 3}}),
    ]:
        cure = fails(lambda change=change: load_preset(small | change))
        assert load_preset(small | mended)
        words = [str(w) for v in mended.values() for w in (v if isinstance(v, dict) else [])]
        assert all(word in cure for word in words)


@row("base/presets", "calls itself '", "not found")
def _(folder, fails, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SPACENET5_ROOT", str(folder))
    monkeypatch.setattr("sys.prefix", str(folder))
    assert "SPACENET5_ROOT" in fails(lambda: load_preset("small"))
    (folder / "configs").mkdir()
    path, text = folder / "configs/small.yaml", "folds: []\n"
    path.write_text(text + "name: tiny\n")
    line = re.search("`(name: .*?)`", fails(lambda: load_preset("small")))[1]
    for mended in (f"{text}{line}\n", text):
        path.write_text(mended)
        assert load_preset("small").name == "small"


@row("base/presets", "is not valid YAML", "cannot be read", "has a value that cannot be")
@row(
    "base/presets", "must be a mapping", "inside itself", "twice, line", "takes itself as its base"
)
@row("base/presets", "others in a row")
def _(folder, fails):
    path = folder / "mine.yaml"
    for text, mended in [
        ("base: [small\n", "base: small\n"),
        ("base: small\nname: \\0\n".replace("\\0", '"\\0"'), "base: small\nname: text\n"),
        ("- base\n", "base: small\n"),
        ("base: small\nfolds: &a [*a]\n", "base: small\nfolds: []\n"),
        ("base: small\nfolds: []\nfolds: []\n", "base: small\nfolds: []\n"),
        (f"base: small\nfolds: {'[' * 40}{']' * 40}\n", "base: small\nfolds: []\n"),
        ("base: mine.yaml\n", "base: small\n"),
    ]:
        path.write_text(text)
        assert fails(lambda: load_preset(path))
        path.write_text(mended)
        assert load_preset(path).folds is not None
    path.unlink()
    path.mkdir()
    assert fails(lambda: load_preset(path))
    for k in range(12):
        (folder / f"b{k}.yaml").write_text(f"base: b{k + 1}.yaml\n" if k < 11 else "base: small\n")
    assert "Join some" in fails(lambda: load_preset(folder / "b0.yaml"))
    (folder / "b0.yaml").write_text("base: b8.yaml\n")
    assert load_preset(folder / "b0.yaml").name == "b0"


@row("base/channels", "continuous speed has one edge", "orientations is")
@row("base/channels", "no such file of speed bins", "has no column", "without a gap")
@row("base/channels", "do not rise from 0", "its burn_val is not")
def _(folder, fails):
    assert "of_speed(65)" in fails(lambda: Channels((20, 65), (20, 65), continuous=True))
    assert Channels.of_speed(65).n_bins == 1
    assert "at least 2" in fails(lambda: Channels.of_speed(65, orientations=1))
    assert len(Channels.of_speed(65, orientations=2).names) == 5
    path = folder / "bins.csv"
    assert "path" in fails(lambda: read_bins(path))
    good = write_bin_csv(path, (20, 30)).read_text()
    header, *rows = good.splitlines()
    for lines in (
        ["a,b", "1,2"],
        [header, rows[0].replace(rows[0][0], "x"), *rows[1:]],
        [header, *rows[:3], *rows[4:]],
        [header, *rows[20:], *rows[:20]],
        [header, rows[0]] + [re.sub(r",\d+,", ",7,", r, count=1) for r in rows[1:]],
    ):
        path.write_text("\n".join(lines))
        assert fails(lambda: read_bins(path))
    assert read_bins(write_bin_csv(path, (20, 30)))[1][0] == 20


@row("base/run_folders", "is no name of a file", "is missing", "is not a run name", ", not a text")
def _(folder, fails, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(folder))
    r = open_run("r", "small")
    assert "01_explore" in fails(lambda: r.graph("../x")) and r.graph("x").name == "x.gpkg"
    cure = fails(lambda: r.need(r.chips, "01_explore"))
    assert "spacenet5 run 01_explore -p run r -p preset small" in cure
    r.chips.parent.mkdir(parents=True)
    r.chips.write_text("")
    assert r.need(r.chips, "01_explore") == r.chips
    assert "letters" in fails(lambda: check_run_name("a b")) and check_run_name("Töwn-1.b_2")
    assert "-r run" in fails(lambda: as_text("run", 1.5)) and as_text("run", "1.5") == "1.5"


@row("base/files", "<problem>", "could not be written")
def _(folder, fails):
    assert "shorter name" in fails(lambda: files.check_name(folder / ("x" * 300)))
    long = folder / "/".join(["y" * 200] * 20)
    assert "shorter path" in fails(lambda: files.check_name(long / "x"))
    files.check_name(folder / "x")
    (folder / "there").mkdir()
    assert fails(lambda: files.write_text(folder / "there", "x"))
    assert files.write_text(folder / "another", "x").read_text() == "x"

    def take(name: str):
        with files.alone(folder / name, "run", "another process writes there", "another --run"):
            return True

    with files.alone(folder / "a.lock", "run", "taken", "another --run"):
        assert "another --run" in fails(lambda: take("a.lock")) and take("b.lock")
    assert take("a.lock"), "who waits for it"


@row("base/known_channels", "is no kind of channel", "no such label file", "is not valid GeoJSON")
@row("base/known_channels", "but has no such band")
def _(folder, fails):
    cure = fails(lambda: known_channels.parse_known("rode"))
    words = re.search("some of (.*) in known_channels", cure)[1]
    assert known_channels.parse_known(words) == known_channels.KINDS
    path = folder / "a.geojson"
    assert "path" in fails(lambda: known_channels.read_known(path))
    path.write_text('{"known_channels": ')
    assert "Make the label again" in fails(lambda: known_channels.read_known(path))
    assert known_channels.read_known(geojson(path)) == known_channels.KINDS
    tags = {known_channels.TAG: "speed_99"}
    fails(lambda: known_channels.is_known(tags, ["road"]))
    assert known_channels.is_known({}, ["road"]) == (True,), "as 02_masks writes it now"


@row("base/local_grid", "road pictures have", "times as long as wide", "is no size of a pixel")
@row("base/local_grid", "no such table", "is not a CSV", "stands there twice", "has no row in")
@row("base/local_grid", "has no georeference, so")
def _(folder, fails):
    for text in ("50000", "0.1x9", "half"):
        assert fails(lambda text=text: local_grid.parse_size(text))
    assert local_grid.parse_size("0.5") == (0.5, 0.5)
    cure = fails(lambda: local_grid.parse_size("half"))
    assert local_grid.parse_size(re.search(r"\d\.\d+x\d\.\d+", cure)[0]) == (0.6, 0.76)
    table, image = folder / "sizes.csv", folder / "1.png"
    assert "path" in fails(lambda: local_grid.read_sizes(table))
    for rows in ("gsd\n1.png,1", "gsd_m\n1.png,x", "gsd_m\n1.png,1\n1.png,1", 'gsd_m\n"""'):
        table.write_text(f"image,{rows}\n")
        assert fails(lambda: local_grid.read_sizes(table))
    assert "--gsd table.csv" in fails(lambda: local_grid.size_of(image, None))
    table.write_text("image,gsd_m\n2.png,0.5\n")
    assert "Add one" in fails(lambda: local_grid.size_of(image, local_grid.read_sizes(table)))
    table.write_text("image,gsd_m\n2.png,0.5\n1.png,0.3\n")
    assert local_grid.size_of(image, local_grid.read_sizes(table)) == (0.3, 0.3)
    assert local_grid.size_of(image, local_grid.sizes_from("0.5")) == (0.5, 0.5)


@row(
    "base/local_grid", "is no image that is read", "no such file", "is truncated or no", "is in the"
)
@row("base/local_grid", "band; a network wants", "<problem.problem>")
def _(folder, fails):
    assert ".png" in fails(lambda: local_grid.read_picture(folder / "a.bmp"))
    path, out = folder / "a.png", folder / "roads.tif"
    assert "path" in fails(lambda: local_grid.read_picture(path))
    bare = {"driver": "PNG", "crs": None, "transform": None}
    whole = picture(path, np.full((3, N, N), 7, "uint8"), **bare).read_bytes()
    for part in (whole[:-12], b"nothing"):
        path.write_bytes(part)
        assert "copy it again" in fails(lambda: local_grid.read_picture(path))
    path.write_bytes(whole)
    assert local_grid.read_picture(path).shape == (3, N, N)
    gsd = re.search(r"--gsd (\d\.\d+)[, ]", fails(lambda: local_grid.placed(path, "", out)))[1]
    picture(out)
    assert "another name" in fails(lambda: local_grid.placed(path, gsd, out))
    assert local_grid.placed(path, gsd, folder / "others.tif").is_file()
    grey, grid = folder / "g.png", raster.grid_of(folder / "others.tif")
    picture(grey, np.full((1, N, N), 7, "uint8"), **bare)
    assert "-b 1 -b 1 -b 1" in fails(lambda: local_grid.place_image(grey, out, grid))
    picture(grey, np.full((3, N, N), 7, "uint8"), **bare)  # what gdal_translate makes of it
    assert local_grid.place_image(grey, folder / "g.tif", grid).is_file()


@row("base/pansharpen", "method '{}' is unknown", "share no pixel with data")
def _(folder, fails):
    ms, pan = np.full((3, 16, 16), 9, "uint16"), np.full((1, 64, 64), 9, "uint16")
    fine = raster.Grid((64, 64), GRID, "EPSG:32636")
    coarse = raster.Grid((16, 16), GRID * GRID.scale(4), "EPSG:32636")
    cure = fails(lambda: pansharpen.pansharpen(ms, pan, coarse, fine, method="ihs"))
    for method in cure.removeprefix("Use ").rstrip(".").split(" or "):
        assert pansharpen.pansharpen(ms, pan, coarse, fine, method=method).shape == (3, 64, 64)
    away = coarse._replace(transform=GRID.translation(9e4, 0) * coarse.transform)
    assert "right CRS" in fails(lambda: pansharpen.pansharpen(ms, pan, away, fine))


@row("base/parallel", "is unknown")
def _(folder, fails):
    def run(errors: str) -> list:
        return parallel.parallel(abs, [-1], desc="", module="core", workers=1, errors=errors)

    cure = fails(lambda: run("skip"))
    assert [run(word) for word in cure.removeprefix("Use ").rstrip(".").split(" or ")] == [[1]] * 2


@row("base/pixel_graphs", "is no pair of nodes", "is no pair of numbers", "has two nodes at one")
@row("base/pixel_graphs", "that is no node", "but not the other way round", "reaches from")
@row("base/pixel_graphs", "lies beside its road mask")
def _(folder, fails):
    read = pixel_graphs.from_adjacency
    assert "(nodes, edges)" in fails(lambda: pixel_graphs.pixel_graph(7))
    assert "(row, column)" in fails(lambda: read({"a": []}))
    assert "Merge them" in fails(lambda: read({(0, 0): [], "00": []}))
    assert "key of its own" in fails(lambda: read({(0, 0): [(0, 9)]}))
    assert "both of its ends" in fails(lambda: read({(0, 0): [(0, 9)], (0, 9): []}))
    g = read({(0, 0): [(0, 9)], (0, 9): [(0, 0)]})
    assert pixel_graphs.pixel_graph((g.nodes, g.edges)).length == 9
    check = pixel_graphs.check_on_image
    assert "this image's pixels" in fails(lambda: check(read({(0, 99): []}), (20, 20), "g"))
    check(g, (20, 20), "g")
    mask = np.zeros((20, 20), bool)
    mask[:10, 0] = True
    assert "(row, column)" in fails(lambda: check(g, (20, 20), "g", mask))
    check(g._replace(nodes=g.nodes[:, ::-1]), (20, 20), "g", mask)


@row("base/xml_prolog", "<problem>")
def _(folder, fails):
    path = folder / "a.osm"
    path.write_text("<!DOCTYPE osm><osm/>")
    assert fails(lambda: refuse_document_type(path, "Save it without one.")).startswith("Save it")
    path.write_text("<osm/>")
    refuse_document_type(path, "")


@row("base/cluster", "is not there on worker", "does not answer", "has no workers")
@row("base/cluster", "is encrypted", slow=True)
def _(folder, fails, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from spacenet5_nb.base import cluster

    monkeypatch.setattr(cluster, "WAIT_S", 2)

    def there(address: str = "") -> bool:
        with cluster.connect(address):
            return True

    assert "same paths" in fails(lambda: cluster.check_there([folder / "a"]))
    (folder / "a").mkdir()
    cluster.check_there([folder / "a"])
    assert "dask scheduler" in fails(lambda: there("tcp://127.0.0.1:9"))
    assert "DASK_DISTRIBUTED__COMM__TLS__" in fails(lambda: there("tls://127.0.0.1:9"))
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as made:
        assert "dask worker" in fails(lambda: there(made.scheduler_address))
        made.scale(1)
        assert there(made.scheduler_address)
