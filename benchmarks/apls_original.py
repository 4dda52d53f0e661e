"""The original's judge (`apls` 0.1.0 of PyPI) on stored graphs, timed: run by `apls.py --original`
in an environment of its own. Not a program for anything else.

    python apls_original.py CASES.json.gz NAME [NAME ...]

Says one line of JSON: for each case the processor seconds of its graphs with control points
and of its score, as the original's `execute` computes them by length, and the score. Libraries that
the original imports and scoring never calls (GDAL, OpenCV, fiona and the like) are stand-ins.
"""

import contextlib
import gzip
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
import types
from pathlib import Path

UNUSED = {"osgeo", "cv2", "fiona", "geopandas", "rasterio", "affine", "skimage", "rtree"}


class StandIn(types.ModuleType):
    "A module that has whatever is asked of it."

    __path__ = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in UNUSED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def graph_of(case: dict, speed_mps: float = 10.0):
    "A stored graph with the attributes that the original wants, neighbours in the stored order."
    import networkx as nx
    import shapely.wkt
    import utm

    g = nx.MultiGraph()
    for n, x, y in case["nodes"]:
        lat, lon = utm.to_latlon(x, y, 11, "S")
        g.add_node(n, x=x, y=y, utm_east=x, utm_north=y, lat=lat, lon=lon)
        g.nodes[n].update(utm_zone=11, utm_letter="S")
    for e in case["edges"]:
        speed, line = e.get("inferred_speed_mps") or speed_mps, shapely.wkt.loads(e["geometry"])
        drive = {"inferred_speed_mps": speed, "travel_time_s": e["length"] / speed}
        g.add_edge(
            e["u"], e["v"], key=e["key"], geometry=line, length=e["length"], **drive, osmid=0
        )
    for u, neighbours in case["adj"]:
        order = {v: g._adj[u][v] for v, _ in neighbours}
        g._adj[u].clear()
        g._adj[u].update(order)
    g.graph.update(crs={"init": "epsg:32611"}, name="stored")
    return g


def timed(judge, truth, proposal) -> dict:
    "Seconds and score of one pair."
    began = time.process_time()
    found = judge.make_graphs(
        truth,
        proposal,
        weight="length",
        speed_key="inferred_speed_mps",
        travel_time_key="travel_time_s",
    )
    middle = time.process_time()
    points_truth, points_proposal = found[4:6]
    score = judge.compute_apls_metric(
        *found[6:10], points_truth, points_proposal, min_path_length=0.001
    )
    return {"graphs_s": middle - began, "score_s": time.process_time() - middle, "score": score[0]}


def main() -> None:
    import random

    import matplotlib

    matplotlib.use("agg")
    sys.meta_path.append(StandIns())
    sys.path.pop(0)  # this folder has an apls.py, too
    sys.path.insert(0, str(Path(importlib.util.find_spec("apls").origin).parent))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        import apls as judge  # the module; its folder is first on the path

        cases = json.load(gzip.open(sys.argv[1]))["cases"]
        found = {}
        for name in sys.argv[2:]:
            random.seed(0)
            t, p = (graph_of(cases[name][k]) for k in ("truth", "proposal"))
            found[name] = timed(judge, t, p)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
