"""OpenStreetMap to labels: generated extracts for the grammar, real ones for scale, hostile ones
for safety; the command."""

import bz2
import gzip
import json
import math
import subprocess
import sys
from collections import Counter, defaultdict

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from spacenet5_nb import graph, masks, raster  # isort: skip
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from spacenet5_nb.acquire import osm
from spacenet5_nb.base.labels import read_labels
from spacenet5_nb.core import Channels, DataError, StageError
from spacenet5_nb.explore import find_chips
from spacenet5_nb.pipeline import app
from spacenet5_nb.raster import Grid

pytest.importorskip("osmium")
MOSCOW = Grid((400, 400), Affine(1, 0, 410000, 0, -1, 6190000), CRS.from_epsg(32637))


def lonlat(grid, *px):
    x, y = grid.transform * np.array(px, float).T
    return (
        np.c_[Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(x, y)]
        .round(7)
        .tolist()
    )


def extract(path, nodes, ways, *, grid=MOSCOW, bounds=True):
    "Write {id: (column, row)} and [(id, nodes, tags)] as an extract, packed as its name says."
    places = dict(zip(nodes, lonlat(grid, *nodes.values()), strict=True))
    lon, lat = zip(*places.values(), strict=True)
    text = (
        f'<bounds minlon="{min(lon)}" minlat="{min(lat)}" maxlon="{max(lon)}" maxlat="{max(lat)}"/>'
        if bounds
        else ""
    )
    text += "".join(
        f'<node id="{i}" version="1" lon="{x}" lat="{y}"/>' for i, (x, y) in places.items()
    )
    for i, refs, tags in ways:
        text += (
            f'<way id="{i}" version="1">'
            + "".join(f'<nd ref="{r}"/>' for r in refs)
            + "".join(f'<tag k="{k}" v="{v}"/>' for k, v in tags.items())
            + "</way>"
        )
    data = f'<osm version="0.6">{text}</osm>'.encode()
    path.write_bytes(
        gzip.compress(data)
        if path.suffix == ".gz"
        else bz2.compress(data)
        if path.suffix == ".bz2"
        else data
    )
    return path


def image(path, grid=MOSCOW):
    path.parent.mkdir(parents=True, exist_ok=True)
    return raster.write(path, np.ones((1, *grid.shape), "uint8"), grid=grid)


FRAME = {901: (-100, -100), 902: (500, 500)}  # so that the extract covers the image
CROSS = FRAME | {1: (-50, 200), 2: (450, 200), 3: (200, -50), 4: (200, 450), 5: (200, 200)}
OVER, UNDER = {"highway": "motorway", "bridge": "yes", "layer": "1"}, {"highway": "residential"}


@pytest.mark.parametrize("name", ["x.osm", "x.osm.gz", "x.osm.bz2"])
def test_every_packing_reads_alike(tmp_path, name):
    roads = osm.read_osm(
        extract(
            tmp_path / name,
            CROSS,
            [(1, [1, 2], OVER), (2, [3, 4], UNDER), (3, [901, 902], {"building": "yes"})],
        )
    )
    assert (
        roads["osm_id"].tolist() == [1, 2]
        and roads["bridge"].tolist() == ["yes", None]
        and roads.attrs["problems"] == []
    )


def test_a_bridge_passes_over_and_a_shared_node_joins(tmp_path):
    apart = osm.labels_from_osm(
        extract(tmp_path / "a.osm", CROSS, [(1, [1, 2], OVER), (2, [3, 4], UNDER)]), MOSCOW
    )
    for path, labels in (
        ("memory", apart),
        ("file", read_labels(osm.write_labels(apart, tmp_path / "a.geojson"))),
    ):
        g = graph.validate(graph.from_labels(labels))
        assert sorted(d for _, d in g.degree()) == [1, 1, 1, 1] and {
            d["level"] for *_, d in g.edges(data=True)
        } == {0, 1}, path
    joined = osm.labels_from_osm(
        extract(tmp_path / "b.osm", CROSS, [(1, [1, 5, 2], OVER), (2, [3, 5, 4], UNDER)]), MOSCOW
    )
    assert sorted(d for _, d in graph.from_labels(joined).degree()) == [1, 1, 1, 1, 4]
    assert (
        len(joined) == 4
        and joined["truncated"].tolist() == [1] * 4
        and np.allclose(joined["partialDec"], 0.4, atol=0.001)
    )


def test_clipping_neither_breaks_nor_makes_junctions(tmp_path):
    """A star of roads around a node near the border, an overpass across the border, and a ramp
    that crosses itself."""
    nodes = FRAME | {
        1: (398, 100),
        2: (450, 100),
        3: (300, 50),
        4: (300, 150),
        5: (390, 300),
        6: (450, 330),
        7: (390, 330),
        8: (450, 300),
        11: (100, 300),
        12: (180, 300),
        13: (180, 380),
        14: (140, 380),
        15: (140, -20),
    }
    labels = osm.labels_from_osm(
        extract(
            tmp_path / "x.osm",
            nodes,
            [
                (1, [1, 2], UNDER),
                (2, [3, 1], UNDER),
                (3, [4, 1], UNDER),
                (4, [5, 6], OVER),
                (5, [7, 8], UNDER),
                (6, [11, 12, 13, 14, 15], {"highway": "motorway_link"}),
            ],
        ),
        MOSCOW,
    )
    g = graph.from_labels(labels)
    assert sorted(d for _, d in g.degree()) == [1] * 9 + [3] and len(labels) == 6
    assert len(labels.loc[labels["osm_id"] == 6, "geometry"].item().coords) == 5
    px = [~MOSCOW.transform * p for line in labels.to_crs(32637).geometry for p in line.coords]
    assert -0.02 <= np.min(px) and np.max(px) <= 400.02


@given(
    st.lists(st.tuples(st.integers(-200, 600), st.integers(-200, 600)), min_size=2, max_size=8),
    st.floats(0, 360),
)
def test_clipping_agrees_with_geos_in_length_and_keeps_vertices(px, angle):
    grid = Grid(
        (300, 400),
        Affine.translation(410000, 6190000) * Affine.rotation(angle) * Affine.scale(1, -1),
        CRS.from_epsg(32637),
    )
    xy = np.array(lonlat(grid, *px))
    pieces = osm.clip_line(xy, grid)
    back = Transformer.from_crs("EPSG:4326", grid.crs.to_wkt(), always_xy=True)

    def pixels(c):
        return np.c_[~grid.transform * back.transform(c[:, 0], c[:, 1])]

    moved = pixels(xy)  # one segment after the other: GEOS counts what is driven twice once
    expected = sum(
        shapely.LineString(pair).intersection(shapely.box(0, 0, 400, 300)).length
        for pair in zip(moved, moved[1:], strict=False)
    )
    assert math.isclose(
        sum(shapely.LineString(pixels(p)).length for p in pieces), expected, abs_tol=0.05
    )
    mine = {tuple(p) for piece in pieces for p in piece.tolist()}
    inside = [
        tuple(p)
        for p, (a, b) in zip(xy.tolist(), pixels(xy), strict=True)
        if 0.1 < a < 399.9 and 0.1 < b < 299.9
    ]
    assert mine >= {p for p in inside if len(set(map(tuple, xy.tolist()))) > 1}


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32637"])
def test_any_crs_gives_the_same_roads(tmp_path, crs):
    path = extract(tmp_path / "x.osm", CROSS, [(1, [1, 5, 2], UNDER), (2, [3, 5, 4], UNDER)])
    move = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    west, south, east, north = shapely.transform(
        osm.footprint(MOSCOW), move.transform, interleaved=False
    ).bounds
    labels = osm.labels_from_osm(
        path,
        Grid(
            (300, 300),
            Affine((east - west) / 300, 0, west, 0, (south - north) / 300, north),
            CRS.from_string(crs),
        ),
    )
    assert np.isclose(labels.to_crs(32637).length.sum(), 800, atol=20) and sorted(
        d for _, d in graph.from_labels(labels).degree()
    ) == [1, 1, 1, 1, 4]


def test_masks_are_made_of_them(tmp_path):
    labels = osm.labels_from_osm(
        extract(tmp_path / "x.osm", CROSS, [(1, [1, 2], OVER), (2, [3, 4], UNDER)]),
        MOSCOW,
        country="RU",
    )
    bands = masks.make_masks(labels, MOSCOW, Channels.best())
    channels = Channels.best()
    assert (
        bands[channels.road].any()
        and bands[channels.crossing].any()
        and not bands[channels.junction].any()
    )
    assert not masks.make_masks(
        osm.labels_from_osm(
            extract(tmp_path / "y.osm", CROSS, [(1, [1, 5, 2], UNDER), (2, [3, 5, 4], UNDER)]),
            MOSCOW,
        ),
        MOSCOW,
        channels,
    )[channels.crossing].any()


@pytest.mark.parametrize(
    "tags, mph, rule",
    [
        ({"maxspeed": "30 mph"}, 30, "label: maxspeed"),
        ({"maxspeed": "RU:rural"}, 90 / 1.609344, "label: maxspeed, RU: rural 90 km/h"),
        ({"maxspeed:type": "RU:urban"}, 60 / 1.609344, "label: maxspeed:type, RU: urban 60 km/h"),
        (
            {"maxspeed:forward": "60", "maxspeed:backward": "40"},
            40 / 1.609344,
            "label: maxspeed:backward, lowest of 60, 40",
        ),
        ({"maxspeed": "30;50"}, 30 / 1.609344, "label: maxspeed, lowest of 30, 50"),
        ({"lanes": "4", "surface": "gravel"}, 35 * 0.75, "highway: tertiary, 3+ lanes, unpaved"),
        ({"maxspeed": "walk"}, 7 / 1.609344, "label: maxspeed, walk, taken as 7 km/h"),
        (
            {"maxspeed": "signals"},
            30,
            "highway: tertiary, 1-2 lanes, surface unknown (maxspeed 'signals' says no number)",
        ),
        (
            {"maxspeed": "999"},
            30,
            "highway: tertiary, 1-2 lanes, surface unknown (maxspeed '999' is out "
            "of range 1-160 km/h, ignored)",
        ),
    ],
)
def test_tags_become_speeds(tmp_path, tags, mph, rule):
    labels = osm.labels_from_osm(
        extract(tmp_path / "x.osm", CROSS, [(1, [1, 2], {"highway": "tertiary"} | tags)]), MOSCOW
    )
    assert (
        math.isclose(labels["inferred_speed_mph"].item(), mph, rel_tol=1e-9)
        and labels["speed_rule"].item() == rule
    )
    assert math.isclose(labels["inferred_speed_mps"].item(), mph * 0.44704, rel_tol=1e-9)


def test_tunnels_and_areas_and_footways(tmp_path):
    path = extract(
        tmp_path / "x.osm",
        CROSS,
        [
            (1, [1, 2], {"highway": "primary", "tunnel": "yes"}),
            (2, [3, 4], {"highway": "service", "tunnel": "building_passage"}),
            (3, [1, 5], {"highway": "footway"}),
            (4, [3, 1, 5, 3], {"highway": "service", "area": "yes"}),
        ],
    )
    labels = osm.labels_from_osm(path, MOSCOW)
    assert (
        labels["osm_id"].tolist() == [2]
        and labels.attrs["problems"][0] == "1 roads in tunnels left out"
        and len(labels.attrs["problems"]) == 3
    )  # and the two that are no roads
    kept = osm.labels_from_osm(path, MOSCOW, keep_tunnels=True)
    assert kept["osm_id"].tolist() == [1, 2] and sorted(
        d["level"] for *_, d in graph.from_labels(kept).edges(data=True)
    ) == [-1, 0]


def test_a_missing_package_says_how_to_get_it(tmp_path, monkeypatch):
    path = extract(tmp_path / "x.osm", CROSS, [(1, [1, 2], UNDER)])
    monkeypatch.setitem(sys.modules, "osmium", None)
    with pytest.raises(StageError, match="pip install osmium"):
        osm.read_osm(path)
    code = (
        "import sys\nsys.modules['osmium'] = None\nimport spacenet5_nb.acquire.osm, "
        "spacenet5_nb.pipeline"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


HOSTILE = {
    "laughs.osm": (
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
        b'<osm version="0.6"><node id="1" lon="0" lat="0"><tag k="a" v="&b;"/></node>'
        b"</osm>"
    ),
    "external.osm": (
        b'<!DOCTYPE x SYSTEM "file:///etc/hostname" [<!ENTITY a SYSTEM '
        b'"file:///etc/hostname">]><osm version="0.6">&a;</osm>'
    ),
    "noise.osm.pbf": np.random.default_rng(1).bytes(20000),
    "empty.osm.pbf": b"",
    "length.osm.pbf": b"\xff\xff\xff\xff",
    "huge.osm.pbf": b"\x00\x00\x00\x0d\x0a\x07OSMData\x18\xff\xff\xff\xff\x07",
    "varints.osm.pbf": b"\x00\x00\x00\x0e\x0a\x09OSMHeader\x18\xff" + b"\xff" * 4000,
    "deep.osm": b"<osm version='0.6'>" + b"<way id='1'>" * 20000,
    "ids.osm": b"<osm version='0.6'><node id='99999999999999999999' lon='1' lat='1'/></osm>",
    "gzip.osm.gz": gzip.compress(b"<osm")[:-4],
    "bzip.osm.bz2": bz2.compress(b"<osm version='0.6'/>")[:-4],
    "other.osm": b"PK\x03\x04",
    "json.osm": b"{}",
}


def test_hostile_files_are_data_errors(tmp_path):
    """In a process of its own with limits on time and memory: a crash of the library must not be
    ours."""
    for name, data in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import resource, sys\nfrom spacenet5_nb.acquire import osm\nfrom "
        "spacenet5_nb.core import DataError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "for path in sys.argv[1:]:\n    try: osm.read_osm(path)\n    except "
        "DataError as e: print(e)\n    else: print('accepted', path)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *(str(tmp_path / name) for name in HOSTILE)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr[-2000:]
    said = out.stdout.splitlines()
    assert [line.split(": ")[0] for line in said] == [str(tmp_path / name) for name in HOSTILE]


def test_unpacking_without_end_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACENET5_LARGEST_READ_GB", "0.01")
    (tmp_path / "bomb.osm.gz").write_bytes(gzip.compress(bytes(30_000_000)))
    (tmp_path / "big.osm").write_bytes(b" " * 20_000_000)
    for name in ("bomb.osm.gz", "big.osm"):
        with pytest.raises(
            DataError, match="largest_read_gb = 0.01.*osmium extract -b 1.0000,2.0000,3.0000,4.0000"
        ):
            osm.read_osm(tmp_path / name, bounds=(1, 2, 3, 4))


def test_an_image_elsewhere_is_an_error_with_both_places(tmp_path):
    path = extract(tmp_path / "x.osm", CROSS, [(1, [1, 2], UNDER)])
    with pytest.raises(DataError, match=r"does not reach .*37\.5.*39\.1"):
        osm.labels_from_osm(path, MOSCOW._replace(transform=Affine(1, 0, 510000, 0, -1, 6190000)))
    labels = osm.labels_from_osm(path, MOSCOW._replace(shape=(400, 1000)))
    assert "the extract covers only 5" in labels.attrs["problems"][0]


def test_label_files_hold_finite_numbers_and_nulls_only(tmp_path):
    labels = osm.labels_from_osm(
        extract(
            tmp_path / "x.osm",
            CROSS,
            [(1, [1, 2], OVER), (2, [3, 4], {"highway": "residential", "lanes": "2"})],
        ),
        MOSCOW,
    )

    def refuse(text):
        raise AssertionError(text)

    data = json.loads(
        osm.write_labels(labels, tmp_path / "x.geojson").read_text(), parse_constant=refuse
    )
    first, second = (f["properties"] for f in data["features"])
    assert (
        list(first) == osm.LABEL_COLUMNS
        and first["OBJECTID"] == 1
        and first["bridge"] == "yes"
        and second["bridge"] is None
        and second["lanes"] == "2"
        and first["lanes"] is None
    )
    assert (
        "OpenStreetMap" in data["attribution"]
        and 0 < first["partialDec"] < 1
        and first["truncated"] == 1
        and 0.007 < first["origlen"] < 0.009
    )
    (tmp_path / "keep.geojson").write_text("old")
    with pytest.raises(DataError, match="infinite"):
        osm.write_labels(labels.assign(inferred_speed_mph=math.inf), tmp_path / "keep.geojson")
    assert (tmp_path / "keep.geojson").read_text() == "old" and not list(tmp_path.glob(".tmp*"))


def command(*arguments):
    found = CliRunner().invoke(app, ["labels", *map(str, arguments)])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command_labels_one_image_where_find_chips_looks(tmp_path):
    path = extract(tmp_path / "x.osm", CROSS, [(1, [1, 2], OVER), (2, [3, 4], UNDER)])
    image(tmp_path / "town" / "centre.tif")
    said = command("--osm", path, "--image", tmp_path / "town/centre.tif", "--country", "RU")
    assert find_chips(tmp_path / "town")["label"].tolist() == [
        str((tmp_path / "town/centre.geojson").resolve())
    ]
    assert (
        "1 of them bridges" in said
        and "km  motorway" in said
        and "law: RU: residential 60 km/h" in said
        and "ODbL" in said
        and "surface" in said
    )
    with pytest.raises(DataError, match="is there already"):
        command("--osm", path, "--image", tmp_path / "town/centre.tif")
    before = (tmp_path / "town/centre.geojson").read_bytes()
    assert (tmp_path / "town/centre.geojson").read_bytes() == before
    command("--osm", path, "--image", tmp_path / "town/centre.tif", "--overwrite")
    assert (tmp_path / "town/centre.geojson").read_bytes() != before, (
        "without the country other speeds"
    )
    command(
        "--osm",
        path,
        "--image",
        tmp_path / "town/centre.tif",
        "--out",
        tmp_path / "else/where.geojson",
        "--keep-tunnels",
    )
    assert len(read_labels(tmp_path / "else/where.geojson")) == 2
    with pytest.raises(DataError, match="NARNIA"):
        command(
            "--osm",
            path,
            "--image",
            tmp_path / "town/centre.tif",
            "--country",
            "Narnia",
            "--out",
            tmp_path / "never.geojson",
        )
    assert not (tmp_path / "never.geojson").exists()


def test_the_command_labels_folders_of_chips(tmp_path):
    path, aoi = (
        extract(tmp_path / "x.osm", CROSS, [(1, [1, 2], OVER), (2, [3, 4], UNDER)]),
        tmp_path / "data/AOI_7_Moscow",
    )
    image(aoi / "PS-RGB/SN5_roads_train_AOI_7_Moscow_PS-RGB_chip1.tif")
    image(
        aoi / "PS-RGB/SN5_roads_train_AOI_7_Moscow_PS-RGB_chip2.tif",
        MOSCOW._replace(transform=Affine(1, 0, 410210, 0, -1, 6190000)),
    )
    image(
        aoi / "PS-RGB/SN5_roads_train_AOI_7_Moscow_PS-RGB_chip3.tif",
        MOSCOW._replace(transform=Affine(1, 0, 510000, 0, -1, 6190000)),
    )
    said = command("--osm", path, "--image", tmp_path / "data")
    chips = find_chips(tmp_path / "data").set_index("chip")["label"]
    label = (
        aoi / "geojson_roads_speed/SN5_roads_train_AOI_7_Moscow_geojson_roads_speed_chip1.geojson"
    )
    assert (
        chips["AOI_7_Moscow_chip1"] == str(label.resolve())
        and chips["AOI_7_Moscow_chip2"]
        and not chips["AOI_7_Moscow_chip3"]
    )
    assert "no label: " in said and "chip3.tif" in said
    with pytest.raises(StageError, match="is the label of AOI_7_Moscow_chip1 already"):
        command("--osm", path, "--image", tmp_path / "data")
    with pytest.raises(StageError, match="is one file for 3 images"):
        command("--osm", path, "--image", tmp_path / "data", "--out", tmp_path / "one.geojson")
    command("--osm", path, "--image", tmp_path / "data", "--out", tmp_path / "labels")
    assert (tmp_path / "labels" / label.name).read_bytes() == label.read_bytes()
    shifted, first = read_labels(chips["AOI_7_Moscow_chip2"]), read_labels(label)
    assert len(shifted) == 1 and len(first) == 2, "each chip has its own part"


BALTIMORE = Grid(
    (1300, 1300), Affine(0.3, 0, 365597.5, 0, -0.3, 4348282), CRS.from_epsg(32618)
)  # 22 crossings of bridges within 390 m


@pytest.fixture(scope="module")
def baltimore(shared):
    return osm.read_osm(shared / "data/osm/baltimore.osm.pbf")


@pytest.mark.shared
def test_baltimore_is_read_whole(baltimore):
    classes = Counter(baltimore["highway"].str.removesuffix("_link"))
    assert (
        classes["motorway"] == 190
        and baltimore["bridge"].notna().sum() == 102
        and len(baltimore) == 3279
    )
    assert set(baltimore["layer"].dropna()) == {"-1", "0", "1", "2", "3"}
    west, south, east, north = baltimore.attrs["extent"]
    assert (round(west, 4), round(north, 4)) == (-76.6081, 39.3065)


@pytest.mark.shared
def test_baltimore_is_read_in_part(shared, baltimore):
    bounds = osm.footprint(BALTIMORE).bounds
    near = osm.read_osm(shared / "data/osm/baltimore.osm.pbf", bounds=bounds)
    assert (
        set(near["osm_id"])
        == set(
            baltimore["osm_id"][
                shapely.intersects(
                    shapely.box(*bounds), shapely.box(*baltimore.bounds.to_numpy().T)
                )
            ]
        )
        and len(near) < 100
    )
    assert near.attrs["extent"] == baltimore.attrs["extent"]


@pytest.mark.shared
@pytest.mark.parametrize("place", ["interchange", "downtown", "all"])
def test_the_graph_of_labels_is_the_graph_of_osm(shared, baltimore, place):
    "Judged by the node numbers in the file, which the labels do not have."
    if place == "interchange":
        grid = BALTIMORE
    elif place == "downtown":
        grid = Grid((1300, 1300), Affine(0.8, 0, 362500, 0, -0.8, 4350500), CRS.from_epsg(32618))
    else:
        grid = Grid((3000, 4000), Affine(2, 0, 361000, 0, -2, 4352500), CRS.from_epsg(32618))
    labels = osm.labels_from_osm(baltimore, grid, keep_tunnels=True)
    g = graph.validate(graph.from_labels(labels))
    ways = []
    osm.each_way(shared / "data/osm/baltimore.osm.pbf", ways.append)
    kept, where, links = set(baltimore["osm_id"]), {}, defaultdict(set)
    for way in ways:
        if way.id not in kept:
            continue
        where |= dict(zip(way.nodes, map(tuple, way.xy.tolist()), strict=True))
        for a, b in zip(way.nodes, way.nodes[1:], strict=False):
            if a != b:
                links[a].add(b)
                links[b].add(a)
    inner = osm.footprint(grid).buffer(-2e-5)

    def points(xy):
        return {tuple(p) for p in np.round(xy, 7).tolist() if inner.contains(shapely.Point(p))}

    truth = points([where[n] for n, to in links.items() if len(to) >= 3])
    move = Transformer.from_crs(g.graph["crs"], "EPSG:4326", always_xy=True)
    found = points(
        [move.transform(g.nodes[n]["x"], g.nodes[n]["y"]) for n, d in g.degree() if d >= 3]
    )
    assert len(truth) > 1 and truth == found, (
        len(truth),
        sorted(truth - found)[:5],
        sorted(found - truth)[:5],
    )
    lines = [d["geometry"] for *_, d in g.edges(data=True)]
    a, b = shapely.STRtree(lines).query(lines, predicate="crosses")
    if place != "downtown":
        assert len({tuple(sorted(p)) for p in zip(a.tolist(), b.tolist(), strict=True)}) >= 20, (
            "roads pass over each other"
        )


@pytest.mark.shared
def test_baltimore_interchange_makes_masks(baltimore):
    labels = osm.labels_from_osm(baltimore, BALTIMORE)
    channels = Channels.best()
    bands = masks.make_masks(labels, BALTIMORE, channels)
    assert (
        bands.shape == (13, 1300, 1300)
        and 0.005 < (bands[channels.road] > 0).mean() < 0.2
        and (bands[channels.crossing] > 0).sum() > 3000
    )
    assert any("bridges" in line and "12 of" in line for line in osm.summary([labels]))


@pytest.mark.shared
def test_moscow_has_hardly_a_limit(shared):
    grid = Grid((1600, 1600), Affine(1, 0, 411700, 0, -1, 6187300), CRS.from_epsg(32637))
    table, law = (
        osm.labels_from_osm(shared / "data/osm/moscow.osm.gz", grid, country=c) for c in ("", "RU")
    )
    assert (
        len(table) > 100
        and (table["speed_rule"].str.startswith("label").sum() <= 1)
        and not table["speed_rule"].str.contains("law").any()
    )
    main = law[law["highway"].isin(["secondary", "tertiary", "residential"])]
    assert (
        len(main)
        and np.allclose(main["inferred_speed_mph"], 60 / 1.609344)
        and main["speed_rule"].str.contains("RU: (?:urban|residential) 60 km/h").all()
    )
    assert (law.loc[law["highway"] == "service", "inferred_speed_mph"] <= 20).all()
    assert (
        isinstance(law, gpd.GeoDataFrame)
        and graph.validate(graph.from_labels(law)).number_of_edges() > 100
    )


@pytest.mark.shared
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_real_extract_cut_short_is_an_error(shared, tmp_path, share):
    for name in ("baltimore.osm.pbf", "moscow.osm.gz"):
        data = (shared / "data/osm" / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match="truncated"):
            osm.read_osm(tmp_path / name)
