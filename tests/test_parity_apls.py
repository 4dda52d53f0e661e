"CosmiQ's protocol, TOPO and SP against stored results of the original; sums of our own protocol on the same graphs."

import gzip
import json

import networkx as nx
import numpy as np
import pytest
import shapely

from spacenet5_nb.apls import apls
from spacenet5_nb.topo import shortest_path_score, topo

pytestmark = pytest.mark.shared
WEIGHTS = {"length": "length", "travel_time_s": "travel_time"}


@pytest.fixture(scope="module")
def reference(shared) -> dict:
    return json.load(gzip.open(shared / "reference/apls/cosmiq_cases.json.gz"))


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
        g.add_edge(
            e["u"],
            e["v"],
            key=e["key"],
            geometry=shapely.from_wkt(e["geometry"]),
            length=e["length"],
            **drive,
        )
    for u, neighbours in stored["adj"]:
        order = {v: g.adj[u][v] for v in dict.fromkeys(v for v, _ in neighbours)}
        there = {v: g._adj[u][v] for v in order}
        g._adj[u].clear()
        g._adj[u].update(there)
    return g


def scores(case: dict, params: dict, weight: str) -> list[float]:
    q = params
    r = apls(
        graph_of(case["truth"]),
        graph_of(case["proposal"]),
        protocol="cosmiq",
        weight=WEIGHTS[weight],
        midpoint_spacing=q["linestring_delta"],
        snap=q["max_snap_dist"],
        min_path_length=q["min_path_length"],
        is_curved_eps=q["is_curved_eps"],
        allow_renaming=q["allow_renaming"],
    )
    return [r.truth_to_proposal, r.proposal_to_truth, r.score]


def check(reference: dict, chosen) -> int:
    "Scores of the chosen (case, parameter set) pairs against the stored ones; how many were compared."
    n = 0
    for name, key in chosen:
        for weight, expected in reference["cases"][name]["scores"][key].items():
            got = scores(reference["cases"][name], reference["params"][key], weight)
            assert np.abs(np.array(got) - expected).max() <= 1e-9, (
                name,
                key,
                weight,
                got,
                expected,
            )
            n += 1
    return n


def test_every_case_with_one_parameter_set_each(reference):
    pairs = [
        (name, list(case["scores"])[i % len(case["scores"])])
        for i, (name, case) in enumerate(reference["cases"].items())
    ]
    assert check(reference, pairs) > 150


@pytest.mark.slow
def test_every_case_with_every_parameter_set(reference):
    assert (
        check(
            reference,
            [(name, key) for name, case in reference["cases"].items() for key in case["scores"]],
        )
        > 1000
    )


def test_topo_and_sp(shared, reference):
    for name, stored in json.loads((shared / "reference/apls/topo_sp.json").read_text())[
        "cases"
    ].items():
        truth, proposal = (
            graph_of(reference["cases"][name]["truth"]),
            graph_of(reference["cases"][name]["proposal"]),
        )
        r, expected = topo(truth, proposal), stored["topo_all_nodes"]
        assert (r.tp, r.fp, r.fn) == (expected["tp"], expected["fp"], expected["fn"]), name
        assert (r.precision, r.recall, r.f1) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1"])
        )
        assert shortest_path_score(truth, proposal) == pytest.approx(
            stored["sp_all_ordered_pairs"]["sp"], abs=1e-12
        )


def test_the_published_sample(reference):
    case = next(c for name, c in reference["cases"].items() if "gt_pkl_prop_pkl" in name)
    assert scores(case, reference["params"]["D_nomid"], "length") == pytest.approx(
        [0.7973714316363272, 0.683748882025442, 0.7362019410731923], abs=1e-9
    )


def test_large_truths_are_sampled_with_a_seed(reference):
    g = graph_of(reference["cases"]["mosaic__gt_gt"]["truth"])
    one, same, other = (
        apls(g, g, protocol="cosmiq", sources=100, seed=s).truth_routes for s in (0, 0, 1)
    )
    assert one == same != other


def test_our_protocol_on_real_graphs(reference):
    "Truth against itself is exactly one; ids and order do not matter; where nothing odd happens both protocols are close."
    gaps = []
    for name, case in reference["cases"].items():
        if name.startswith("mosaic") or "sample" in name:
            continue
        truth, proposal = graph_of(case["truth"]), graph_of(case["proposal"])
        ours = apls(truth, proposal)
        renamed = nx.relabel_nodes(proposal, {n: f"p{n}" for n in proposal})
        assert apls(truth, renamed).score == pytest.approx(ours.score, abs=1e-9)
        if case["family"].startswith("gt_gt"):
            assert ours.score == 1
        gaps.append(ours.score - case["scores"]["B_mpl10"]["length"][2])
    assert abs(np.median(gaps)) < 0.01
