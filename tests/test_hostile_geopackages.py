"""GeoPackages that are programs: views without end, gigabytes of zeros, forged pages, columns that
are computed. Each is read in a child process, which must come to an end by itself."""

import json
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import networkx as nx
import pyarrow as pa
import pytest
import shapely
from pyarrow import parquet

from spacenet5_nb.base import geopackage

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
PATIENCE_S = 120  # a limit for a program that hangs, not a measure
VIEW = "CREATE VIEW {name} AS {what};"
LISTED = (
    "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) "
    "VALUES ('{name}', 'features', '{name}', 4326);"
    "INSERT INTO gpkg_geometry_columns VALUES ('{name}', 'geom', 'LINESTRING', 4326, 0, 0);"
)
UNLISTED = "DELETE FROM gpkg_geometry_columns; DELETE FROM gpkg_contents;"
COLUMNS = {  # what a table of GeoPackage's own is replaced by, as a view of it without end
    "gpkg_contents": "'roads' table_name, 'features' data_type, 'roads' identifier, '' description,"
    "'' last_change, 0 min_x, 0 min_y, 1 max_x, 1 max_y, 4326 srs_id FROM n",
    "gpkg_geometry_columns": "'roads' table_name, 'geom' column_name, "
    "'LINESTRING' geometry_type_name, 4326 srs_id, 0 z, 0 m FROM n",
    "gpkg_spatial_ref_sys": "'x' srs_name, i srs_id, 'EPSG' organization, "
    "4326 organization_coordsys_id, '' definition, '' description FROM n",
    "gpkg_extensions": "'roads' table_name, 'geom' column_name, 'gpkg_rtree_index' "
    "extension_name, '' definition, 'read-write' scope FROM n",
    "gpkg_ogr_contents": "'roads' table_name, i feature_count FROM n",
    "rtree_roads_geom": "i id, 0 minx, 1 maxx, 0 miny, 1 maxy FROM n",
}
READ, REFUSED = "read", "refused"
# name -> (statements on a sound file with two roads, what must come of it)
SCRIPTS = {
    "recursive-view-listed": (
        VIEW.format(name="endless", what=ENDLESS + "i fid, NULL geom FROM n")
        + LISTED.format(name="endless"),
        READ,
    ),
    "recursive-view-alone": (
        UNLISTED
        + VIEW.format(name="endless", what=ENDLESS + "i fid, NULL geom FROM n")
        + LISTED.format(name="endless"),
        REFUSED,
    ),
    "roads-are-a-view": (
        "ALTER TABLE roads RENAME TO rows_of_roads;"
        "UPDATE gpkg_contents SET table_name='roads', identifier='roads';"
        "UPDATE gpkg_geometry_columns SET table_name='roads';"
        + VIEW.format(name="roads", what=ENDLESS + "i fid, NULL geom FROM n"),
        REFUSED,
    ),
    "zeroblob": (
        VIEW.format(name="zeros", what="SELECT 1 fid, zeroblob(2000000000) geom")
        + LISTED.format(name="zeros"),
        READ,
    ),
    "product-of-itself": (
        VIEW.format(
            name="wide", what=f"SELECT a.* FROM {', '.join(f'roads {c}' for c in 'abcdefg')}"
        )
        + LISTED.format(name="wide"),
        READ,
    ),
    "nested-views": (
        "CREATE VIEW v0 AS SELECT * FROM roads;"
        + "".join(f"CREATE VIEW v{k + 1} AS SELECT a.* FROM v{k} a, v{k} b;" for k in range(40))
        + LISTED.format(name="v40"),
        READ,
    ),
    "computed-column": (
        "ALTER TABLE roads ADD COLUMN big AS (hex(zeroblob(400000000)));",
        READ,
    ),
    "trigger": (
        "CREATE TRIGGER grow AFTER INSERT ON roads BEGIN INSERT INTO roads (name) "
        f"SELECT 'x' FROM ({ENDLESS} i FROM n); END;",
        READ,
    ),
    "virtual-table": (
        "CREATE VIRTUAL TABLE places USING rtree(id, a, b);" + LISTED.format(name="places"),
        READ,
    ),
    "view-in-the-guise-of-a-table": (
        VIEW.format(name="endless", what=ENDLESS + "i fid, NULL geom FROM n")
        + LISTED.format(name="endless")
        + "PRAGMA writable_schema=ON; UPDATE sqlite_master SET type='table', rootpage=2 "
        "WHERE name='endless';",
        None,
    ),
    "table-in-the-guise-of-roads": (
        VIEW.format(name="other", what=ENDLESS + "i fid, NULL geom FROM n")
        + "PRAGMA writable_schema=ON; UPDATE sqlite_master SET name='roads', tbl_name='roads', "
        "type='table' WHERE name='other';",
        None,
    ),
    **{
        f"{name}-is-a-view": (
            f"DROP TABLE IF EXISTS {name};"
            + VIEW.format(name=name, what=f"{ENDLESS} {columns}")
            + "PRAGMA user_version=10300;",
            READ if name in ("gpkg_extensions", "gpkg_ogr_contents", "rtree_roads_geom") else None,
        )
        for name, columns in COLUMNS.items()
    },
}
READING = """
import json, sys
from spacenet5_nb.base.labels import read_rows
from spacenet5_nb.core import WorkspaceError
from spacenet5_nb.judge.chip_graphs import read_entry
from spacenet5_nb import graph
for path in sys.argv[1:]:
    for call in (read_rows, lambda p: read_entry(p, "chip"), graph.read):
        try:
            made = call(path)
            said = "read", len(made.lines) if hasattr(made, "lines") else made.number_of_edges()
        except WorkspaceError as e:
            said = "refused", str(e)
        print(json.dumps([path, *said]), flush=True)
"""


def sound(path: Path) -> Path:
    "Two streets that meet."
    lines = shapely.from_wkt(["LINESTRING (0 0, 0.001 0)", "LINESTRING (0.001 0, 0.001 0.002)"])
    table = {"name": ["Arbat", None], "maxspeed": ["30 mph", "50"]}
    gpd.GeoDataFrame(table, geometry=lines, crs=4326).to_file(path, layer="roads", driver="GPKG")
    return path


def attacked(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(sound(path))) as db:
        for trigger in [
            n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type='trigger'")
        ]:
            db.execute(f'DROP TRIGGER "{trigger}"')
        db.executescript(script)
        db.commit()
    return path


def read_all(paths: list[Path]) -> dict[str, list[list]]:
    "What becomes of each file in a process of its own; the same names as the files."
    call = [sys.executable, "-c", READING, *map(str, paths)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    found: dict[str, list[list]] = {}
    for line in done.stdout.splitlines():
        path, *said = json.loads(line)
        found.setdefault(Path(path).stem, []).append(said)
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, list[list]]:
    folder = tmp_path_factory.mktemp("hostile")
    return read_all([attacked(folder / f"{n}.gpkg", s) for n, (s, _) in SCRIPTS.items()])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_geopackage_that_is_a_program(outcomes, name):
    """The road table is read, or the file is refused by name, by whoever reads it: there is no hang
    and no fault of the program."""
    as_lines, as_chip, as_graph = outcomes[name]
    wanted = SCRIPTS[name][1]
    assert wanted in (None, as_lines[0]) and as_chip[0] == as_lines[0]
    assert as_graph[0] == REFUSED, "it is no graph of ours"
    for said in (as_lines, as_chip):
        assert said[1] == 2 if said[0] == READ else f"{name}.gpkg" in said[1], said


def write_rows(path: Path, geometry: bytes) -> Path:
    "A sound file whose first geometry is replaced."
    header = b"GP\0\1" + struct.pack("<i", 4326)
    with closing(sqlite3.connect(path if path.exists() else sound(path))) as db:
        db.create_function("ST_IsEmpty", 1, lambda _: 0)
        for name in ("MinX", "MaxX", "MinY", "MaxY"):
            db.create_function(f"ST_{name}", 1, lambda _: 0.0)
        db.execute("UPDATE roads SET geom = ? WHERE fid = 1", (header + geometry,))
        db.commit()
    return path


def test_geometries_that_are_none(tmp_path):
    "Nested, cut off, of another kind: refused by name, and the process lives on; an arc is read."
    line = shapely.LineString([(0, 0), (1, 1)]).wkb
    blobs = {
        "nested": struct.pack("<BII", 1, 7, 1) * 300_000 + line,
        "nested-lines": struct.pack("<BII", 1, 5, 1) * 300_000 + line,
        "many-points": struct.pack("<BII", 1, 2, 2**31 - 1),
        "cut": line[:-3],
        "nested-curves": struct.pack("<BII", 1, 9, 1) * 300_000 + line,
        "curve": struct.pack("<BII6d", 1, 8, 3, 0, 0, 1, 1, 2, 0),
        "cut-curve": struct.pack("<BII6d", 1, 8, 3, 0, 0, 1, 1, 2, 0)[:-3],
        "nested-curve-lines": struct.pack("<BII", 1, 11, 1) * 300_000 + line,
        "text": b"LINESTRING (0 0, 1 1)",
    }
    outcomes = read_all([write_rows(tmp_path / f"{n}.gpkg", b) for n, b in blobs.items()])
    for name, said in outcomes.items():
        wanted = [READ, READ, REFUSED] if name == "curve" else [REFUSED] * 3
        assert [s[0] for s in said] == wanted, (name, said)
        assert all(f"{name}.gpkg" in s[1] for s in said if s[0] == REFUSED)


def test_nested_geometries_of_other_files(tmp_path):
    "GeoParquet, a table of DuckDB's and GraphML: refused by name, and the process lives on."
    blob = struct.pack("<BII", 1, 7, 1) * 300_000 + shapely.LineString([(0, 0), (1, 1)]).wkb
    text = "GEOMETRYCOLLECTION(" * 300_000 + "POINT(0 0)" + ")" * 300_000
    paths = [tmp_path / f"{name}.parquet" for name in ("geo", "bare", "words")]
    table = pa.table({"geometry": [blob], "highway": ["primary"]})
    about = {"encoding": "WKB", "geometry_types": []}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": about}}
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), paths[0])
    parquet.write_table(table, paths[1])
    parquet.write_table(table.set_column(0, "geometry", [[text]]), paths[2])
    paths.append(tmp_path / "deep.graphml")
    g = nx.MultiGraph(crs="EPSG:32637")
    g.add_node(0, x=0.0, y=0.0)
    g.add_node(1, x=1.0, y=1.0)
    g.add_edge(0, 1, geometry=text)
    nx.write_graphml(g, paths[-1])
    outcomes = read_all(paths)
    assert len(outcomes) == 4
    for name, said in outcomes.items():
        assert [s[0] for s in said] == [REFUSED] * 3 and all(name in s[1] for s in said), said


def test_other_sqlite_files(tmp_path):
    "Renamed, or of another kind: refused by name."
    plain = tmp_path / "tiles.gpkg"
    with closing(sqlite3.connect(plain)) as db:
        db.executescript("CREATE TABLE tiles (zoom_level, tile_data BLOB); CREATE TABLE roads (a);")
    paths = [plain]
    for ending in (".sqlite", ".mbtiles", ".db", ".shp", ".fgb", ".geojson", ".parquet"):
        paths.append(tmp_path / f"renamed{ending[1:]}{ending}")
        shutil.copy(sound(tmp_path / "sound.gpkg"), paths[-1])
        (tmp_path / "sound.gpkg").unlink()
    for name, said in read_all(paths).items():
        assert [s[0] for s in said] == [REFUSED] * 3, (name, said)


def test_ctrl_c_is_heard_while_sqlite_works(tmp_path, monkeypatch):
    "The signal comes while SQLite reports how far it is: there, sqlite3 drops what handlers raise."
    usual = geopackage.Limits.spent

    def interrupted(limits) -> bool:
        signal.raise_signal(signal.SIGINT)
        return usual(limits)

    with closing(sqlite3.connect(tmp_path / "many.gpkg")) as db:
        db.execute("CREATE TABLE roads (id INTEGER PRIMARY KEY)")
        db.executemany("INSERT INTO roads VALUES (?)", ((k,) for k in range(20_000)))
        db.commit()
    monkeypatch.setattr(geopackage.Limits, "spent", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            geopackage.open_tables(tmp_path / "many.gpkg") as t,
        ):
            list(geopackage.read_rows(t, "roads"))
    finally:
        signal.signal(signal.SIGINT, before)
