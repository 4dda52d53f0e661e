"CosmiQ's protocol, TOPO and SP against stored results of the original; our own on the same graphs."

import networkx as nx
import numpy as np
import pytest
import shapely
from reference_cases import graph_of, read_json

from spacenet5_nb.apls import apls
from spacenet5_nb.topo import shortest_path_score, topo

WEIGHTS = {"length": "length", "travel_time_s": "travel_time"}


@pytest.fixture(scope="module")
def stored(reference) -> dict:
    return read_json(reference / "apls/cosmiq_cases.json")


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


def test_every_case_with_every_parameter_set(stored):
    compared = 0
    for name, case in stored["cases"].items():
        for key, weights in case["scores"].items():
            for weight, expected in weights.items():
                got = scores(case, stored["params"][key], weight)
                assert np.abs(np.subtract(got, expected)).max() <= 1e-9, (name, key, weight)
                compared += 1
    assert compared > 10 * len(stored["cases"]), "seven parameter sets, mostly two weights"


def test_topo_and_sp(reference, stored):
    for name, expected in read_json(reference / "apls/topo_sp.json")["cases"].items():
        case = stored["cases"][name]
        truth, proposal = graph_of(case["truth"]), graph_of(case["proposal"])
        r, counts = topo(truth, proposal), expected["topo_all_nodes"]
        assert (r.tp, r.fp, r.fn) == tuple(counts[k] for k in ("tp", "fp", "fn")), name
        assert (r.precision, r.recall, r.f1) == pytest.approx(
            tuple(counts[k] for k in ("precision", "recall", "f1"))
        )
        assert shortest_path_score(truth, proposal) == pytest.approx(
            expected["sp_all_ordered_pairs"]["sp"], abs=1e-12
        )


def test_the_published_sample(stored):
    case = next(c for name, c in stored["cases"].items() if "gt_pkl_prop_pkl" in name)
    assert scores(case, stored["params"]["D_nomid"], "length") == pytest.approx(
        [0.7973714316363272, 0.683748882025442, 0.7362019410731923], abs=1e-9
    )


def side_by_side(graphs: list[nx.MultiGraph], apart_m: float = 2000.0) -> nx.MultiGraph:
    "One graph of many, none near another."
    whole = nx.MultiGraph(crs="EPSG:32611")
    for k, g in enumerate(graphs):
        for n, d in g.nodes(data=True):
            whole.add_node((k, n), x=d["x"] + k * apart_m, y=d["y"])
        for u, v, d in g.edges(data=True):
            line = shapely.affinity.translate(d["geometry"], k * apart_m)
            whole.add_edge((k, u), (k, v), geometry=line, length=line.length)
    return nx.convert_node_labels_to_integers(whole)


def test_large_truths_are_sampled_with_a_seed(stored):
    g = side_by_side([graph_of(c["truth"]) for c in stored["cases"].values()][:20])
    assert len(g) > 500, "the original samples from 500 nodes on"
    one, same, other = (
        apls(g, g, protocol="cosmiq", sources=100, seed=s).truth_routes for s in (0, 0, 1)
    )
    assert one == same != other


def test_our_protocol_on_real_graphs(stored):
    "Truth against itself is exactly one; ids and order do not matter; both protocols are close."
    gaps = []
    for name, case in stored["cases"].items():
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
