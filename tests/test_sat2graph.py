"""The City-Scale papers' APLS and TOPO, against the results of their own programs (reference
cases), and what must not change a score."""

import json
import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from spacenet5_nb.judge.sat2graph_apls import VARIANTS, densify, one_way, scatter
from spacenet5_nb.judge.sat2graph_topo import topo_sat2graph

SHARED = Path(os.environ.get("SPACENET5_SHARED") or Path(__file__).parents[2] / "shared")
CASES = SHARED / "reference/sat2graph/cases.json"
pytestmark = pytest.mark.skipif(not CASES.is_file(), reason=f"no reference cases at {CASES}")
SIDES = {"gt_on_prop": ("gt", "prop"), "prop_on_gt": ("prop", "gt")}


@lru_cache
def cases():
    return {case["name"]: case for case in json.loads(CASES.read_text())}


def graph(case, side):
    return case[side]["nodes"], case[side]["edges"]


NAMES = list(cases()) if CASES.is_file() else []
# Exactly tied neighbours in several branches of an R-tree, in the order of Go's unstable sort.
TIED = {
    ("dense_prop__img990__int", "small_samroad"): 1e-4,
    ("city_original_pickle_order", "default_2048"): 1e-7,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_count_and_sum_is_the_original_s(name):
    "n_dense, n_cp, n_matched, cc and sum of each direction, all variants; also the mean."
    case = cases()[name]
    dense = {side: densify(graph(case, side)) for side in ("gt", "prop")}
    for variant, wanted in case["apls"].items():
        scores = []
        for way, (a, b) in SIDES.items():
            found = one_way(dense[a], dense[b], VARIANTS[variant])
            detail, score = wanted["sorted"]["detail"][way], wanted["sorted"][way]
            counts = len(dense[a].places), found.points, found.matched, found.routes
            assert counts == tuple(detail[k] for k in ("n_dense", "n_cp", "n_matched", "cc"))
            near = TIED.get((name, variant), 1e-12)
            assert found.cost == pytest.approx(detail["sum"], rel=near, abs=near * detail["cc"])
            if score is None or math.isnan(score):
                assert math.isnan(found.score)
            else:
                assert abs(found.score - score) < max(near, 1e-9)
            scores.append(found.score)
        both = wanted["sorted"]["apls"]
        nan = both is None or math.isnan(both)
        assert math.isnan(sum(scores)) if nan else abs(sum(scores) / 2 - both) < max(near, 1e-9)


def test_topo_is_the_original_s():
    "Starts, pairs, what is kept, precision and recall of every case that the original can score."
    # dense_prop: streets that are equally near to the last bit, in the order of libspatialindex.
    tied = {"dense_prop__img990__int": 1e-4}
    for name, case in cases().items():
        wanted = case["topo"]
        if wanted is None:
            continue  # two orders of one pair: scored once
        found = topo_sat2graph(graph(case, "gt"), graph(case, "prop"))
        assert found.starts == wanted["n_start"] and found.radius == wanted["r"], name
        if "error" in wanted:
            assert found.f1 == 0 and "stops" in found.note
            continue
        assert (found.paired, found.kept) == (wanted["n_paired"], wanted["n_kept"]), name
        near = tied.get(name, 1e-9)
        assert abs(found.precision - wanted["precision"]) < near, name
        assert abs(found.recall - wanted["overall_recall"]) < near, name
        assert abs(found.f1 - wanted["f1"]) < near, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_original_s_random_runs_are_about_where_scatter_says(variant):
    for name in ("mix__img990__int", "jit6__img990__float", "grid_shift4"):
        case = cases()[name]
        wanted = np.array(case["apls"][variant]["runs"])[:, 2]
        drawn = scatter(graph(case, "gt"), graph(case, "prop"), variant=variant, runs=12)[:, 2]
        room = 0.005 + 2 * np.ptp(wanted)
        assert wanted.min() - room < drawn.min() and drawn.max() < wanted.max() + room, name
