"Stored results of the originals: where they are, and how they are read."

import gzip
import json
import os
from pathlib import Path

import networkx as nx
import shapely

CHOICE = Path(__file__).parent / "data"  # a small choice of the reference cases, for everyone
SHARED = Path(
    os.environ.get("SPACENET5_SHARED") or Path(__file__).resolve().parents[1] / "../shared"
).resolve()


def read_json(path: Path):
    "A stored table, packed or not."
    if not path.exists():
        path = path.with_name(path.name + ".gz")
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def label_files(reference: Path) -> dict[str, Path]:
    "The label files whose speeds are known, by name."
    within = reference / "labels" if (reference / "labels").is_dir() else reference.parent / "data"
    names = read_json(reference / "targets/speeds_mph.json")
    return {name: next(within.rglob(name)) for name in names}


def graph_of(stored: dict) -> nx.MultiGraph:
    "A stored graph with its ids, and neighbours in the order on which the original depends."
    g = nx.MultiGraph(crs="EPSG:32611")
    for n, x, y in stored["nodes"]:
        g.add_node(n, x=x, y=y)
    for e in stored["edges"]:
        speed = e.get("inferred_speed_mps")
        drive = (
            {} if speed is None else dict(speed_kph=speed * 3.6, travel_time=e["length"] / speed)
        )
        line = shapely.from_wkt(e["geometry"])
        g.add_edge(e["u"], e["v"], key=e["key"], geometry=line, length=e["length"], **drive)
    for u, neighbours in stored["adj"]:
        order = {v: g.adj[u][v] for v in dict.fromkeys(v for v, _ in neighbours)}
        there = {v: g._adj[u][v] for v in order}
        g._adj[u].clear()
        g._adj[u].update(there)
    return g
