"""The score of anyone's roads: what a competitor's files look like, what is missing, what is
refused, and why a chip lost."""

import json
import re
from pathlib import Path

import geopandas as gpd
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from pyproj import Transformer
from typer.testing import CliRunner

from spacenet5_nb import graph, raster
from spacenet5_nb.apls import FolderScores, apls, explain_worst, score_folder, write_scores
from spacenet5_nb.core import DataError, StageError, WorkspaceError
from spacenet5_nb.judge.chip_graphs import find_entries, read_entry, read_solution
from spacenet5_nb.pipeline import app
from spacenet5_nb.topo import shortest_path_score, topo

ROOT = Path(__file__).parents[1]
SIDE = 300  # pixels of a metre
PLACES = {"AOI_7_Moscow": (37.6, 55.7), "AOI_8_Mumbai": (72.9, 19.1)}
CHIPS = ["AOI_7_Moscow_chip1", "AOI_7_Moscow_chip2", "AOI_8_Mumbai_chip1"]
BLOCK = [
    [(50, 50), (250, 50)],
    [(250, 50), (250, 250)],
    [(250, 250), (50, 250)],
    [(50, 250), (50, 50)],
    [(50, 250), (10, 290)],
]


def grid_of(chip: str, degrees: bool) -> raster.Grid:
    "The grid of a chip whose pixels are a metre."
    lon, lat = PLACES[chip.rsplit("_", 1)[0]]
    lat += 0.01 * int(chip[-1])
    if degrees:
        return raster.Grid(
            (SIDE, SIDE),
            Affine(1 / (111320 * np.cos(np.radians(lat))), 0, lon, 0, -1 / 111320, lat),
            raster.CRS.from_epsg(4326),
        )
    code = int(graph.utm_of(lon, lat).split(":")[1])
    x, y = Transformer.from_crs(4326, code, always_xy=True).transform(lon, lat)
    return raster.Grid(
        (SIDE, SIDE), Affine(1, 0, round(x), 0, -1, round(y)), raster.CRS.from_epsg(code)
    )


def collection(lines: list, properties: list[dict]) -> str:
    features = [
        dict(type="Feature", properties=p, geometry=dict(type="LineString", coordinates=line))
        for line, p in zip(lines, properties, strict=True)
    ]
    return json.dumps(dict(type="FeatureCollection", features=features))


def lonlat(lines: list, grid: raster.Grid) -> list:
    move = Transformer.from_crs(grid.crs.to_wkt(), 4326, always_xy=True)
    return [[list(move.transform(*(grid.transform * xy))) for xy in line] for line in lines]


def write_truth(
    root: Path,
    *,
    degrees: bool = True,
    roads: dict | None = None,
    product: str = "PS-RGB",
    speed: bool = True,
) -> Path:
    "AOI folders as SpaceNet 5 lays them out; 10 m/s on every road."
    for chip in CHIPS:
        aoi, number = chip.rsplit("_", 1)
        lines, grid = (roads or {}).get(chip, BLOCK), grid_of(chip, degrees)
        image, label = (
            root / aoi / kind / f"SN5_roads_train_{aoi}_{kind}_{number}"
            for kind in (product, "geojson_roads_speed")
        )
        raster.write(image.with_suffix(".tif"), np.full((3, SIDE, SIDE), 90, np.uint8), grid=grid)
        label.parent.mkdir(parents=True, exist_ok=True)
        label.with_suffix(".geojson").write_text(
            collection(
                lonlat(lines, grid),
                [{"inferred_speed_mps": 10.0}] * len(lines) if speed else [{}] * len(lines),
            )
        )
    return root


def wkt(line: list) -> str:
    return f'"LINESTRING ({", ".join(f"{x} {y}" for x, y in line)})"'


def csv_text(roads: dict, *, times: bool = True, name=lambda chip: chip) -> str:
    "A submission; lengths and times as from pixels of a metre."
    out = "ImageId,WKT_Pix" + ",length_m,travel_time_s" * times + "\n"
    for chip, lines in roads.items():
        metres = [
            sum(np.hypot(*np.subtract(a, b)) for a, b in zip(line, line[1:], strict=False))
            for line in lines
        ]
        for line, m in zip(lines, metres, strict=True):
            out += f"{name(chip)},{wkt(line)}" + f",{m},{m / 10}" * times + "\n"
        if not lines:
            out += f"{name(chip)},LINESTRING EMPTY" + ",0,0" * times + "\n"
    return out


def write_csv(path: Path, roads: dict | None = None, **options) -> Path:
    path.write_text(csv_text(dict.fromkeys(CHIPS, BLOCK) if roads is None else roads, **options))
    return path


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SPACENET5_PROGRESS", "0")
    return tmp_path / "outputs"


@pytest.fixture
def truth(tmp_path):
    return write_truth(tmp_path / "spacenet5")


def spacenet5_score(*arguments, fails: type[Exception] | None = None) -> str:
    "The command's words, or those of its error."
    found = CliRunner().invoke(app, ["score", *map(str, arguments)])
    if fails:
        assert isinstance(found.exception, fails), found.output
        return str(found.exception)
    assert found.exit_code == 0, repr(found.exception) + found.output
    return found.output


# what a competitor brings ------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [True, False], ids=["degrees", "utm"])
def test_an_aoi_folder_and_a_csv_just_work(tmp_path, degrees):
    write_truth(tmp_path / "spacenet5", degrees=degrees)
    words = spacenet5_score(
        "--truth", tmp_path / "spacenet5", "--proposal", write_csv(tmp_path / "mine.csv")
    )
    table = pd.read_csv(tmp_path / "outputs/scores/mine/scores.csv")
    assert (
        table.chip.tolist() == CHIPS
        and table.city.tolist() == ["Moscow", "Moscow", "Mumbai"]
        and not table.missing.any()
    )
    assert table.apls_length.tolist() == pytest.approx(
        [1] * 3, abs=0.005
    ) and table.apls_time.tolist() == pytest.approx([1] * 3, abs=0.005)
    assert table.truth_km.tolist() == pytest.approx([0.8566] * 3, rel=0.004), (
        "800 m around a block and a stub of 57"
    )
    assert (
        re.search(r"Moscow: 2 chips  APLS_length 1\.000 \[1\.000, 1\.000\]", words)
        and "mean over 2 cities: 3 chips" in words
    )
    assert sorted(f.name for f in (tmp_path / "outputs/scores/mine").iterdir()) == [
        "scores.csv",
        "scores.json",
        "scores.png",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "SN5_roads_train_{}",
        "SN3_roads_train_{}",
        "SN5_roads_train_{}_PS-RGB",
        "{aoi}_PS-RGB_{number}",
        "{}.tif",
    ],
)
def test_image_ids_of_every_house(truth, tmp_path, name):
    def named(chip):
        return name.format(chip, aoi=chip.rsplit("_", 1)[0], number=chip.rsplit("_", 1)[1])

    done = score_folder(truth, write_csv(tmp_path / "theirs.csv", name=named))
    assert (
        done.summary["all"]["apls_length"] == pytest.approx(1, abs=0.005)
        and done.summary["missing"] == []
    )


def test_labels_alone_find_their_images_beside_them(truth, tmp_path):
    moscow = {chip: BLOCK for chip in CHIPS[:2]}
    labels = truth / "AOI_7_Moscow/geojson_roads_speed"
    assert score_folder(labels, write_csv(tmp_path / "a.csv", moscow)).summary["all"][
        "apls_length"
    ] == pytest.approx(1, abs=0.005)
    weighted = write_csv(
        truth / "AOI_7_Moscow/train_AOI_7_Moscow_geojson_roads_speed_wkt_weighted_simp.csv",
        moscow,
        name=lambda c: f"SN5_roads_train_{c}",
    )
    both = score_folder(weighted, tmp_path / "a.csv")
    assert both.table.apls_time.tolist() == [1, 1] and both.table.truth_km[0] == pytest.approx(
        0.8566, rel=0.004
    )


def test_the_pixels_are_those_of_the_pansharpened_image(truth, tmp_path):
    "MS has pixels four times as wide; roads drawn on PS must not be laid over it."
    for chip in CHIPS:
        aoi, number = chip.rsplit("_", 1)
        g = grid_of(chip, True)
        coarse = raster.Grid((SIDE // 4, SIDE // 4), g.transform * Affine.scale(4), g.crs)
        raster.write(
            truth / aoi / f"MS/SN5_roads_train_{aoi}_MS_{number}.tif",
            np.ones((8, SIDE // 4, SIDE // 4), np.uint16),
            grid=coarse,
        )
    csv = write_csv(tmp_path / "a.csv")
    assert score_folder(truth, csv).summary["all"]["apls_length"] == pytest.approx(1, abs=0.005)
    only_ms = {
        chip: truth
        / chip.rsplit("_", 1)[0]
        / f"MS/SN5_roads_train_{chip.rsplit('_', 1)[0]}_MS_{chip.rsplit('_', 1)[1]}.tif"
        for chip in CHIPS
    }
    with pytest.raises(
        DataError,
        match=(
            r"a\.csv: takes AOI_7_Moscow_chip1 to column 250, row 50, but "
            r".*MS_chip1.tif has 75 columns"
        ),
    ):
        score_folder(truth, csv, images=only_ms)


def test_files_of_every_kind_score_alike(truth, tmp_path):
    "Our graphs, osmnx's GraphML, GeoJSON with MultiLineStrings and a third dimension."
    part = {chip: BLOCK[:3] for chip in CHIPS}
    expected = score_folder(truth, write_csv(tmp_path / "a.csv", part)).table
    for chip in CHIPS:
        g = read_entry(find_entries(tmp_path / "a.csv")[chip], chip, image=grid_of(chip, True))
        graph.write(g, tmp_path / f"gpkg/{chip}.gpkg")
        graph.write(g, tmp_path / f"graphml/{chip}.graphml")
        osm = nx.MultiDiGraph(crs="epsg:4326")
        lines = lonlat(BLOCK[:3], grid_of(chip, True))
        for k, (x, y) in enumerate([lines[0][0], *(line[1] for line in lines)]):
            osm.add_node(k, x=str(x), y=str(y))
        for k in range(3):
            for u, v in ((k, k + 1), (k + 1, k)):
                osm.add_edge(u, v, speed_kph="36.0", osmid="1")
        (tmp_path / "osmnx").mkdir(exist_ok=True)
        nx.write_graphml(osm, tmp_path / f"osmnx/{chip}.graphml")
        text = dict(
            type="FeatureCollection",
            features=[
                dict(
                    type="Feature",
                    properties={"speed_mph": 36 / 1.609344},
                    geometry=dict(
                        type="MultiLineString",
                        coordinates=[[[*xy, 120.0] for xy in line] for line in lines],
                    ),
                )
            ],
        )
        (tmp_path / "geojson").mkdir(exist_ok=True)
        (tmp_path / f"geojson/roads_{chip}.geojson").write_text(json.dumps(text))
    for kind in ("gpkg", "graphml", "osmnx", "geojson"):
        got = score_folder(truth, tmp_path / kind).table
        assert got.apls_length.tolist() == pytest.approx(
            expected.apls_length.tolist(), abs=0.004
        ), kind
        assert got.apls_time.tolist() == pytest.approx(expected.apls_time.tolist(), abs=0.004), kind
    assert 0.5 < expected.apls_length[0] < 0.95
    assert (
        score_folder(truth / "AOI_8_Mumbai", tmp_path / f"gpkg/{CHIPS[2]}.gpkg").table.chip.tolist()
        == CHIPS[2:]
    ), "one file is one chip"


# the CSV -----------------------------------------------------------------------------------------


def dialect(kind: str) -> bytes:
    text = csv_text(dict.fromkeys(CHIPS, BLOCK))
    lines = text.splitlines()
    return {
        "byte-order mark": text.encode("utf-8-sig"),
        "windows": text.replace("\n", "\r\n").encode(),
        "header again": "\n".join([*lines[:6], lines[0], *lines[6:]]).encode(),
        "index": "\n".join(
            f"{'' if k == 0 else k},{line}" for k, line in enumerate(lines)
        ).encode(),
        "more columns": "\n".join(
            f"{line},{'note' if k == 0 else 'a b'}" for k, line in enumerate(lines)
        ).encode(),
        "all quoted": "\n".join(
            ",".join(
                f'"{cell}"'
                for cell in re.sub(r'"[^"]*"', lambda m: m[0].replace(",", ";"), line)
                .replace('"', "")
                .split(",")
            ).replace(";", ",")
            for line in lines
        ).encode(),
        "spaces and empty lines": text.replace(',"', ', "').replace("\n", "\n\n").encode(),
        "third dimension": re.sub(
            r"LINESTRING \(([^)]*)\)",
            lambda m: "LINESTRING Z (" + ", ".join(f"{p} 7" for p in m[1].split(", ")) + ")",
            text,
        ).encode(),
        "text file": text.encode(),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "byte-order mark",
        "windows",
        "header again",
        "index",
        "more columns",
        "all quoted",
        "spaces and empty lines",
        "third dimension",
        "text file",
    ],
)
def test_a_csv_in_another_dialect_says_the_same(truth, tmp_path, kind):
    (tmp_path / "other.csv").write_bytes(dialect(kind))
    if kind == "text file":
        (tmp_path / "other.csv").rename(tmp_path / "other.txt")
    assert score_folder(truth, next(tmp_path.glob("other.*"))).table.equals(
        score_folder(truth, write_csv(tmp_path / "plain.csv")).table
    )


HEAD, ONE = "ImageId,WKT_Pix\n", 'AOI_7_Moscow_chip1,"LINESTRING (0 0, 99 0)"\n'


@pytest.mark.parametrize(
    "text, words",
    [
        (
            HEAD + ONE + "AOI_7_Moscow_chip1,LINESTRING EMPTY\n",
            "line 3 says that AOI_7_Moscow_chip1 is empty",
        ),
        (HEAD + "AOI_7_Moscow_chip1,POINT (1 2)\n", r"line 2 \(AOI_7_Moscow_chip1\).*POINT"),
        (HEAD + ONE + "AOI_7_Moscow_chip2,NaN\n", "line 3 .* no WKT_Pix"),
        (HEAD + "AOI_7_Moscow_chip2\n", "line 2 .* no WKT_Pix"),
        (HEAD + "AOI_7_Moscow_chip2,LINESTRING (1 2)\n", "line 2 .* two points"),
        (HEAD + 'AOI_7_Moscow_chip1,"LINESTRING (0 0, nan 9)"\n', "not finite"),
        (HEAD + 'AOI_7_Moscow_chip1,"MULTILINESTRING ((0 0, 1 1))"\n', "a row each"),
        (HEAD + "AOI_7_Moscow_chip1,LINESTRING (0 0, 9 9)\n", "double quotes"),
        (HEAD, "no rows"),
        ("", "lacks the columns"),
        ("ImageId,wkt\n", "lacks the columns.*WKT_Pix"),
        ("ImageId,WKT_Pix,ImageId\n", "ImageId twice"),
        (HEAD + ',"LINESTRING (0 0, 9 9)"\n', "line 2 has no ImageId"),
        (
            HEAD + ONE + ONE.replace("AOI_7", "SN5_roads_test_public_AOI_7"),
            "two names for chip AOI_7_Moscow_chip1",
        ),
        ("\ufeffImageId\x00", "columns|CSV"),
    ],
)
def test_a_csv_that_cannot_be_meant_is_refused(truth, tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=f"bad.csv.*({words})"):
        score_folder(truth, tmp_path / "bad.csv")


def test_an_empty_proposal_is_given_and_a_missing_one_is_not(tmp_path):
    write_truth(tmp_path / "spacenet5", roads={CHIPS[1]: []})
    done = score_folder(
        tmp_path / "spacenet5",
        write_csv(tmp_path / "a.csv", {CHIPS[0]: [], CHIPS[1]: []}),
        topo=True,
    )
    assert (
        done.table.apls_length.tolist()
        == [0, 1, 0]
        == done.table.apls_time.tolist()
        == done.table.topo_f1.tolist()
        == done.table.sp.tolist()
    )
    assert (
        done.table.missing.tolist() == [False, False, True]
        and done.summary["missing"] == CHIPS[2:]
        and done.table.truth_km[0] == pytest.approx(0.8566, rel=0.004)
    )
    assert done.summary["all"]["apls_length"] == 0.25, "the mean of Moscow's 0.5 and Mumbai's 0"
    (tmp_path / "empty").mkdir()
    (tmp_path / f"empty/{CHIPS[0]}.geojson").write_text(collection([], []))
    nowhere = score_folder(tmp_path / "spacenet5", tmp_path / "empty").table.iloc[0]
    assert (
        nowhere.truth_km == pytest.approx(0.8566, rel=0.004)
        and nowhere.apls_length == 0
        and not nowhere.missing
    ), "a file without roads lies nowhere"


# times -------------------------------------------------------------------------------------------


def test_nobody_invents_the_speeds_that_are_judged(truth, tmp_path):
    words = spacenet5_score(
        "--truth",
        truth,
        "--proposal",
        write_csv(tmp_path / "sn3.csv", dict.fromkeys(CHIPS[1:], BLOCK), times=False),
        "--out",
        tmp_path / "out",
    )
    table, data = (
        pd.read_csv(tmp_path / "out/scores.csv"),
        json.loads((tmp_path / "out/scores.json").read_text()),
    )
    assert (
        table.apls_length.tolist() == pytest.approx([0, 1, 1], abs=0.005)
        and table.apls_time.isna().tolist() == [False, True, True]
        and table.apls_time[0] == 0
    )
    assert (
        data["cities"]["Moscow"]["apls_time"] is None is data["all"]["apls_time"]
        and data["all"]["apls_time_95"] == [None, None]
        and data["all"]["apls_length"] == pytest.approx(0.75, abs=0.005)
    )
    assert (
        "APLS_time not known" in words
        and "proposal of 2 chips have no travel times" in words
        and data["notes"][0] in words
    )
    assert (tmp_path / "out/scores.png").stat().st_size > 5000
    zeros = (
        (tmp_path / "sn3.csv")
        .read_text()
        .replace(')"', ')",0')
        .replace("WKT_Pix", "WKT_Pix,travel_time_s")
    )
    (tmp_path / "zeros.csv").write_text(zeros)
    assert score_folder(truth, tmp_path / "zeros.csv").table.untimed.tolist() == [
        "",
        "proposal",
        "proposal",
    ], "a column of zeros says nothing"


def test_a_truth_without_times_is_not_timed(tmp_path, truth):
    weighted = write_csv(tmp_path / "truth.csv", times=False)
    done = score_folder(weighted, write_csv(tmp_path / "a.csv"), images=truth)
    assert (
        done.table.apls_length.tolist() == [1] * 3
        and done.table.apls_time.isna().all()
        and set(done.table.untimed) == {"truth"}
    )
    both = score_folder(weighted, weighted, images=truth)
    assert set(both.table.untimed) == {"truth and proposal"}


@pytest.mark.parametrize(
    "value, words",
    [
        ("", "no travel_time_s, but other rows"),
        ("0", "no travel_time_s, but other rows"),
        ("nan", "no travel_time_s"),
        ("-1", "a travel_time_s that is no time"),
        ("fast", "a travel_time_s that is no time"),
        ("inf", "a travel_time_s that is no time"),
    ],
)
def test_some_rows_without_a_time_are_an_error_that_names_them(truth, tmp_path, value, words):
    lines = csv_text(dict.fromkeys(CHIPS, BLOCK)).splitlines()
    lines[7] = lines[7].rsplit(",", 1)[0] + f",{value}"
    (tmp_path / "holes.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"holes\.csv: line 8 \(AOI_7_Moscow_chip2\) has {words}"):
        score_folder(truth, tmp_path / "holes.csv")


def test_geojson_that_says_no_speed_has_none_as_a_proposal_and_inferred_ones_as_labels(tmp_path):
    silent, loud = write_truth(tmp_path / "silent", speed=False), write_truth(tmp_path / "loud")
    done = score_folder(loud, silent)
    assert (
        done.table.apls_length.tolist() == pytest.approx([1] * 3)
        and done.table.apls_time.isna().all()
        and set(done.table.untimed) == {"proposal"}
    )
    assert score_folder(silent, loud).table.apls_time.between(0, 0.999).all(), (
        "labels have inferred speeds: 20 mph is not 10 m/s"
    )
    label = next((tmp_path / "silent").rglob("*chip1.geojson"))
    data = json.loads(label.read_text())
    data["features"][1]["properties"]["speed_mph"] = 30
    label.write_text(json.dumps(data))
    with pytest.raises(DataError, match=f"{label.name}.*road 1 of 5"):
        score_folder(loud, silent)


def test_graphs_without_speeds(truth, tmp_path):
    for chip in CHIPS:
        g = read_entry(
            read_solution(write_csv(tmp_path / "a.csv", times=False))[chip],
            chip,
            image=grid_of(chip, True),
        )
        graph.write(g, tmp_path / f"ours/{chip}.gpkg", speeds=False)
    assert score_folder(truth, tmp_path / "ours").summary["all"]["apls_time"] is None
    next(iter(g.edges(data=True)))[2]["speed_kph"] = 30.0
    graph.write(g, tmp_path / f"ours/{CHIPS[2]}.gpkg", speeds=False)
    with pytest.raises(
        WorkspaceError, match=f"{CHIPS[2]}, proposal.*{CHIPS[2]}.gpkg.*no usable speed"
    ):
        score_folder(truth, tmp_path / "ours")


# images, or pixels alone -------------------------------------------------------------------------


def test_two_csvs_without_images_need_the_width_of_a_pixel(tmp_path):
    ours, theirs = (
        write_csv(tmp_path / "ours.csv"),
        write_csv(tmp_path / "truth.csv", name=lambda c: f"SN5_roads_train_{c}"),
    )
    error = spacenet5_score("--truth", theirs, "--proposal", ours, fails=DataError)
    assert "truth.csv" in error or "ours.csv" in error
    assert "--images" in error and "--pixel-m 0.3" in error and not (tmp_path / "outputs").exists()
    spacenet5_score(
        "--truth", theirs, "--proposal", ours, "--pixel-m", 0.3, "--out", tmp_path / "out"
    )
    table = pd.read_csv(tmp_path / "out/scores.csv")
    assert table.apls_length.tolist() == [
        1
    ] * 3 == table.apls_time.tolist() and table.truth_km.tolist() == pytest.approx(
        [0.3 * 0.8565685] * 3, rel=1e-6
    )
    near = write_csv(
        tmp_path / "near.csv",
        {chip: [[(x + 10, y) for x, y in line] for line in BLOCK] for chip in CHIPS},
    )
    assert (
        score_folder(theirs, near, pixel_m=0.3).table.apls_length[0]
        > 0.9
        > 0.5
        > score_folder(theirs, near, pixel_m=1).table.apls_length[0]
    ), "3 m are within the snap distance, 10 m are not"


def test_what_the_width_of_a_pixel_cannot_cure(truth, tmp_path):
    csv = write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="not in pixels on both sides.*--images"):
        score_folder(truth, csv, pixel_m=0.3)
    with pytest.raises(DataError, match="images are too"):
        score_folder(csv, csv, pixel_m=0.3, images=truth)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(DataError, match="pixel_m"):
            score_folder(csv, csv, pixel_m=wrong)
    next(truth.rglob("*PS-RGB_chip2.tif")).unlink()
    with pytest.raises(
        DataError,
        match=(
            r"a\.csv: is in pixels, and 1 chips have no image.*AOI_7_Moscow_chip2. "
            r".*\(--images\)\.$"
        ),
    ):
        score_folder(truth, csv)
    with pytest.raises(DataError, match="nowhere: does not exist"):
        score_folder(truth, csv, images=tmp_path / "nowhere")


# chips that are missing, extra, of another world -------------------------------------------------


def test_missing_chips_score_nothing_and_are_named(truth, tmp_path):
    words = spacenet5_score(
        "--truth",
        truth,
        "--proposal",
        write_csv(tmp_path / "a.csv", {CHIPS[0]: BLOCK}),
        "--out",
        tmp_path / "out",
    )
    data = json.loads((tmp_path / "out/scores.json").read_text())
    assert (
        data["missing"] == CHIPS[1:]
        and data["all"]["apls_length"] == pytest.approx(0.25, abs=0.005)
        and data["cities"]["Mumbai"]["apls_length"] == 0
    )
    assert f"2 of 3 chips have no proposal and score 0: {CHIPS[1]}, {CHIPS[2]}" in words


def test_extra_chips_are_an_error_unless_told_otherwise(truth, tmp_path):
    csv = write_csv(tmp_path / "a.csv", dict.fromkeys([*CHIPS, "AOI_7_Moscow_chip9"], BLOCK))
    assert "a.csv: has 1 chips that the truth does not have: AOI_7_Moscow_chip9" in spacenet5_score(
        "--truth", truth, "--proposal", csv, fails=DataError
    )
    assert "AOI_7_Moscow_chip9" in spacenet5_score(
        "--truth", truth, "--proposal", csv, "--ignore-extra", "--out", tmp_path / "out"
    )
    assert json.loads((tmp_path / "out/scores.json").read_text())["extra"] == ["AOI_7_Moscow_chip9"]
    with pytest.raises(ValueError, match="extra"):
        score_folder(truth, csv, extra="perhaps")


def test_errors_say_what_to_do(truth, tmp_path):
    other = write_csv(
        tmp_path / "other.csv", {"AOI_2_Vegas_img1": BLOCK, "AOI_2_Vegas_img2": BLOCK}
    )
    for extra in ([], ["--ignore-extra"]):
        error = spacenet5_score("--truth", truth, "--proposal", other, *extra, fails=DataError)
        assert (
            "no chip in common" in error
            and "AOI_2_Vegas_img1" in error
            and "AOI_7_Moscow_chip1" in error
        )
    (tmp_path / "nothing/PS-RGB").mkdir(parents=True)
    assert "nothing: holds no .gpkg" in spacenet5_score(
        "--truth", tmp_path / "nothing", "--proposal", other, fails=DataError
    )
    assert "nowhere.csv: does not exist" in spacenet5_score(
        "--truth", truth, "--proposal", tmp_path / "nowhere.csv", fails=DataError
    )
    (tmp_path / "nothing/solution.csv").write_text(HEAD + ONE)
    assert "solution.csv: name that file" in spacenet5_score(
        "--truth", truth, "--proposal", tmp_path / "nothing", fails=DataError
    )
    assert "--protocol cosmic: is unknown" in spacenet5_score(
        "--truth", truth, "--proposal", other, "--protocol", "cosmic", fails=StageError
    )
    assert not (tmp_path / "outputs").exists(), "an error leaves nothing"


def test_the_commands_error_is_one_line(truth, tmp_path, program):
    code, out, err = program("score", "--truth", truth, "--proposal", tmp_path / "nowhere.csv")
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1


def test_an_error_names_the_chip_and_the_file_from_any_process(truth, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / f"ours/{CHIPS[1]}.graphml").write_text("<graphml/>")
    label = next(truth.rglob("*Mumbai*chip1.geojson"))
    for proposal, words in (
        (tmp_path / "ours", f"{CHIPS[1]}, proposal, .*{CHIPS[1]}.graphml: is not GraphML"),
        (write_csv(tmp_path / "a.csv"), f"{CHIPS[2]}, truth, .*{label.name}.*not valid GeoJSON"),
    ):
        if "truth" in words:
            label.write_text('{"type": "FeatureCollection"')
        for workers in (1, 2):
            with pytest.raises(WorkspaceError, match=words):
                score_folder(truth, proposal, workers=workers)


def test_many_processes_find_the_same(truth, tmp_path):
    csv = write_csv(tmp_path / "a.csv", {CHIPS[0]: BLOCK[:2], CHIPS[2]: BLOCK[:3]}, times=False)
    one, two = (score_folder(truth, csv, topo=True, workers=n) for n in (1, 2))
    assert one.table.equals(two.table) and one.summary == two.summary


# the judge's parameters --------------------------------------------------------------------------


def test_protocol_and_parameters(truth, tmp_path):
    csv = write_csv(
        tmp_path / "a.csv",
        dict.fromkeys(CHIPS, [[(x + 3, y) for x, y in line] for line in BLOCK[:3]]),
    )
    place = grid_of(CHIPS[0], True)
    guess = read_entry(read_solution(csv)[CHIPS[0]], CHIPS[0], image=place)
    real = read_entry(find_entries(truth)[CHIPS[0]], CHIPS[0], crs=guess.graph["crs"])

    def score(*options):
        spacenet5_score("--truth", truth, "--proposal", csv, "--out", tmp_path / "out", *options)
        return pd.read_csv(tmp_path / "out/scores.csv").loc[0], json.loads(
            (tmp_path / "out/scores.json").read_text()
        )["parameters"]

    usual, parameters = score()
    assert parameters == dict(
        midpoint_spacing_m=50, snap_m=4, min_path_length_m=10, protocol="spacenet"
    ) and usual.apls_length == pytest.approx(apls(real, guess).score)
    close, parameters = score("--snap", 2, "--midpoint-spacing", 20, "--min-path-length", 30)
    assert parameters == dict(
        midpoint_spacing_m=20, snap_m=2, min_path_length_m=30, protocol="spacenet"
    )
    assert (
        close.apls_length
        == pytest.approx(apls(real, guess, snap=2, midpoint_spacing=20, min_path_length=30).score)
        and close.apls_length < usual.apls_length - 0.1
    )
    theirs, parameters = score("--protocol", "cosmiq")
    assert parameters["min_path_length_m"] == 0.001 and parameters["protocol"] == "cosmiq"
    for column, weight in (("apls_length", "length"), ("apls_time", "travel_time")):
        assert theirs[column] == pytest.approx(
            apls(real, guess, protocol="cosmiq", weight=weight, min_path_length=0.001).score
        )
    assert theirs.apls_length != pytest.approx(usual.apls_length, abs=1e-3)
    assert score("--protocol", "cosmiq", "--snap", 2)[1]["min_path_length_m"] == 0.001
    assert score_folder(truth, csv, config="demo").summary["parameters"]["snap_m"] == 4


def test_topo_and_sp(truth, tmp_path):
    csv = write_csv(tmp_path / "a.csv", dict.fromkeys(CHIPS, BLOCK[:3]))
    done = score_folder(truth, csv, topo=True)
    guess = read_entry(read_solution(csv)[CHIPS[0]], CHIPS[0], image=grid_of(CHIPS[0], True))
    real = read_entry(find_entries(truth)[CHIPS[0]], CHIPS[0], crs=guess.graph["crs"])
    t = topo(real, guess)
    assert done.table.loc[
        0, ["topo_precision", "topo_recall", "topo_f1", "sp"]
    ].tolist() == pytest.approx([t.precision, t.recall, t.f1, shortest_path_score(real, guess)])
    assert (
        0 < t.f1 < 1
        and "topo_f1_95" in done.summary["cities"]["Mumbai"]
        and "topo_f1" not in score_folder(truth, csv).table
    )
    words = spacenet5_score(
        "--truth", truth, "--proposal", csv, "--topo", "--out", tmp_path / "out"
    )
    assert re.search(r"TOPO F1 0\.\d{3} \[.*SP 0\.\d{3}", words) and "sp" in pd.read_csv(
        tmp_path / "out/scores.csv"
    )


def test_trained_cities(truth, tmp_path):
    csv = write_csv(tmp_path / "a.csv", {CHIPS[0]: BLOCK})
    words = spacenet5_score(
        "--truth",
        truth,
        "--proposal",
        csv,
        "--trained-cities",
        "Moscow, Paris",
        "--out",
        tmp_path / "out",
    )
    data = json.loads((tmp_path / "out/scores.json").read_text())
    assert (
        data["trained_cities"]["apls_length"] == pytest.approx(0.5, abs=0.005)
        and data["mystery_cities"]["apls_length"] == 0
        and data["cities"]["Mumbai"]["trained"] is False
    )
    assert (
        "trained cities, mean over cities: 2 chips" in words
        and "cities never trained on, mean over cities: 1 chip " in words
    )


# files -------------------------------------------------------------------------------------------


def test_scores_go_to_a_folder_of_their_own(truth, tmp_path, outputs, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for k in (1, 2):
        (tmp_path / f"run{k}").mkdir()
    csv, one, two = (
        write_csv(tmp_path / "team.csv"),
        write_csv(tmp_path / "run1/solution.csv"),
        write_csv(tmp_path / "run2/solution.csv", {CHIPS[0]: BLOCK}),
    )
    for proposal in (csv, one, two):
        spacenet5_score("--truth", truth, "--proposal", proposal)
    assert sorted(f.name for f in (outputs / "scores").iterdir()) == [
        "run1-solution",
        "run2-solution",
        "team",
    ] and not list(Path.cwd().iterdir())
    before = (outputs / "scores/team/scores.json").read_text()
    write_csv(csv, {CHIPS[0]: BLOCK})
    spacenet5_score("--truth", truth, "--proposal", csv)
    assert (outputs / "scores/team/scores.json").read_text() != before, (
        "scored again, written again"
    )
    (tmp_path / "elsewhere").mkdir()
    other = write_csv(tmp_path / "elsewhere/team.csv")
    assert "holds the scores of" in spacenet5_score(
        "--truth", truth, "--proposal", other, fails=StageError
    )
    spacenet5_score("--truth", truth, "--proposal", other, "--out", tmp_path / "mine")
    assert json.loads((tmp_path / "mine/scores.json").read_text())["proposal"] == str(other)


def test_all_or_nothing(truth, tmp_path, monkeypatch):
    from spacenet5_nb.judge import folder_scores

    done = score_folder(truth, write_csv(tmp_path / "a.csv"))

    def broken(*_):
        raise MemoryError("rehearsed")

    monkeypatch.setattr(folder_scores, "plot_scores", broken)
    with pytest.raises(MemoryError):
        write_scores(
            done,
            tmp_path / "out/scores.csv",
            tmp_path / "out/scores.json",
            plot=tmp_path / "out/scores.png",
        )
    assert not (tmp_path / "out").exists()


def test_what_the_scores_are_about_is_said_by_who_knows(truth, tmp_path):
    done = score_folder(truth, write_csv(tmp_path / "a.csv"))
    assert (
        isinstance(done, FolderScores)
        and "ensemble" not in write_scores(done, tmp_path / "a.csv", tmp_path / "a.json")["about"]
    )
    write_scores(done, tmp_path / "a.csv", tmp_path / "a.json", about="Mine.")
    assert json.loads((tmp_path / "a.json").read_text())["about"] == "Mine."
    cells = json.loads((ROOT / "nbs/07_apls.ipynb").read_text())["cells"]
    assert any(
        'about="Held-out chips, which no fold trained on' in "".join(c["source"]) for c in cells
    ), "stage 07 says what its scores are"


# why it lost -------------------------------------------------------------------------------------


def coloured(path: Path) -> dict[str, int]:
    "Pixels of the blame's colours in a picture's map."
    from matplotlib.image import imread

    rgb = (imread(path)[:, :, :3] * 255).astype(int)
    rgb = rgb[: int(0.74 * len(rgb))]  # without the legend and the histogram
    return dict(
        red=int(((rgb[..., 0] > 180) & (rgb[..., 1] < 60) & (rgb[..., 2] < 60)).sum()),
        orange=int(
            ((rgb[..., 0] > 200) & (abs(rgb[..., 1] - 155) < 30) & (rgb[..., 2] < 50)).sum()
        ),
    )


def test_the_worst_chips_are_explained(truth, tmp_path):
    roads = {
        CHIPS[0]: BLOCK,
        CHIPS[1]: BLOCK[:3] + BLOCK[4:],
        CHIPS[2]: BLOCK + [[(150, 50), (150, 250)]],
    }
    options = [
        "--truth",
        truth,
        "--proposal",
        write_csv(tmp_path / "a.csv", roads),
        "--out",
        tmp_path / "out",
    ]
    spacenet5_score(*options, "--explain", 3)
    scores, data = (
        pd.read_csv(tmp_path / "out/scores.csv").set_index("chip").apls_length,
        json.loads((tmp_path / "out/scores.json").read_text()),
    )
    assert (
        data["explained"] == scores.sort_values().index.tolist()
        and data["explained"][-1] == CHIPS[0]
    )
    for chip in CHIPS:
        assert sorted(f.name for f in (tmp_path / "out" / chip).iterdir()) == [
            "blame.gpkg",
            "explained.png",
            "routes.csv",
        ]
    blame = gpd.read_file(tmp_path / f"out/{CHIPS[1]}/blame.gpkg")
    worst = blame[blame.side == "truth"].sort_values("lost").iloc[-1]
    place = grid_of(CHIPS[1], True)
    x, y = ~place.transform * Transformer.from_crs(blame.crs, 4326, always_xy=True).transform(
        *worst.geometry.centroid.coords[0]
    )
    assert x == pytest.approx(50, abs=2) and 50 < y < 250, (
        "the side of the block that the proposal lacks"
    )
    routes = pd.read_csv(tmp_path / f"out/{CHIPS[1]}/routes.csv")
    assert 1 - routes.cost[routes.side == "truth"].mean() == pytest.approx(
        pd.read_csv(tmp_path / "out/scores.csv")
        .set_index("chip")
        .truth_to_proposal_length[CHIPS[1]]
    )
    pictures = {chip: coloured(tmp_path / "out" / chip / "explained.png") for chip in CHIPS}
    assert (
        pictures[CHIPS[1]]["red"] > 300
        and pictures[CHIPS[2]]["orange"] > 300
        and pictures[CHIPS[0]]["red"] < 100 > pictures[CHIPS[0]]["orange"]
    ), pictures
    spacenet5_score(*options, "--explain", 1)
    assert [f.name for f in (tmp_path / "out").iterdir() if f.is_dir()] == data["explained"][:1], (
        "pictures of an earlier scoring are gone"
    )


def test_pixels_alone_and_missing_chips_are_explained_as_far_as_they_go(tmp_path):
    truth, csv = (
        write_csv(tmp_path / "truth.csv"),
        write_csv(tmp_path / "a.csv", {CHIPS[0]: BLOCK[:2], CHIPS[1]: []}),
    )
    done = score_folder(truth, csv, pixel_m=1)
    assert explain_worst(done, 5, tmp_path / "out") == [CHIPS[1], CHIPS[0]], (
        "a missing chip has nothing to show"
    )
    assert (
        coloured(tmp_path / f"out/{CHIPS[0]}/explained.png")["red"] > 300
        and len(pd.read_csv(tmp_path / f"out/{CHIPS[0]}/routes.csv")) > 10
    )
    theirs = score_folder(truth, csv, pixel_m=1, protocol="cosmiq")
    with pytest.raises(DataError, match="cosmiq"):
        explain_worst(theirs, 1, tmp_path / "out")
    assert "cosmiq" in spacenet5_score(
        "--truth",
        truth,
        "--proposal",
        csv,
        "--protocol",
        "cosmiq",
        "--explain",
        1,
        "--pixel-m",
        1,
        fails=StageError,
    )


# real data ---------------------------------------------------------------------------------------


@pytest.mark.shared
def test_a_winners_csv_for_las_vegas(shared, tmp_path):
    "94 rows for img0 by a winner of SpaceNet 3, against the nine chips that are here."
    real, csv = (
        shared / "data/spacenet3_vegas",
        shared / "data/submissions/sn3_sample_submission_albu.csv",
    )
    words = spacenet5_score(
        "--truth", real, "--proposal", csv, "--out", tmp_path / "out", "--explain", 2
    )
    table, data = (
        pd.read_csv(tmp_path / "out/scores.csv").set_index("chip"),
        json.loads((tmp_path / "out/scores.json").read_text()),
    )
    assert (
        len(table) == 9 and len(data["missing"]) == 8 and data["explained"] == ["AOI_2_Vegas_img0"]
    )
    assert table.apls_length["AOI_2_Vegas_img0"] == pytest.approx(0.824, abs=0.01) and data["all"][
        "apls_length"
    ] == pytest.approx(0.0915, abs=0.002)
    assert (
        np.isnan(table.apls_time["AOI_2_Vegas_img0"])
        and data["all"]["apls_time"] is None
        and "APLS_time not known" in words
        and "8 of 9 chips" in words
    )
    assert table.truth_km["AOI_2_Vegas_img0"] == pytest.approx(
        4.46, abs=0.02
    ) and table.proposal_km["AOI_2_Vegas_img0"] == pytest.approx(4.69, abs=0.02)
    found = coloured(tmp_path / "out/AOI_2_Vegas_img0/explained.png")
    assert found["red"] > 500 and found["orange"] > 500
    labels = real / "AOI_2_Vegas/geojson_roads"
    assert score_folder(labels, csv).table.apls_length.tolist() == pytest.approx(
        table.apls_length.tolist()
    ), "the labels' own folder finds the images beside it"


@pytest.mark.shared
def test_four_thousand_rows_of_a_winner_are_read_whole(shared):
    csv = shared / "data/submissions/albu_sn3_test_4000rows.csv"
    rows = read_solution(csv)
    assert (
        len(rows) == 122
        and sum(map(len, rows.values())) == 3999
        and sum(r.WKT_Pix.tolist() == ["LINESTRING EMPTY"] for r in rows.values()) == 2
    )
    done = score_folder(csv, csv, pixel_m=0.3, workers=1)
    assert (
        (done.table.apls_length == 1).all()
        and done.table.apls_time.isna().sum() == 120
        and done.table.proposal_km.sum() == pytest.approx(298, abs=1)
    )
