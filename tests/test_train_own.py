"benchmarks/train_own.py: arms get the same chips and differ only in what they begin with."

import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from spacenet5_nb.core import DataError, PresetError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def curve():
    "The program as a module."
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("train_own", BENCHMARKS / "train_own.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["train_own"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("train_own", None)


CHIPS = pd.DataFrame({"chip": [f"c{k}" for k in range(9)]})


def test_every_arm_of_a_draw_trains_on_the_same_chips(curve):
    todo = curve.trainings(list(curve.ARMS), [2, 4, 8], [2, 2, 3])
    assert len(todo) == 3 * (2 + 2 + 3) and len({t.name for t in todo}) == len(todo)
    assert [t.arm for t in todo[:3]] == list(curve.ARMS), "a short run has whole pairs"
    folds = {t.name: curve.dealt(CHIPS, t, 5).fold for t in todo}
    for t in todo:
        assert folds[t.name].sum() == t.chips
        assert folds[t.name].equals(folds[f"world-{t.chips}-{t.draw}"])
    assert not folds["world-4-0"].equals(folds["world-4-1"]), "another draw, other chips"
    few, more = folds["world-2-0"], folds["world-8-0"]
    assert (more[few == 1] == 1).all(), "more chips are the same ones and others"
    with pytest.raises(DataError, match="there are 9"):
        curve.dealt(CHIPS, curve.Training("world", 9, 0), 5)
    with pytest.raises(DataError, match="--draws"):
        curve.trainings(["world"], [2, 4], [1])


def test_arms_differ_only_in_the_weights_that_they_begin_with(curve):
    presets = {arm: asdict(curve.preset_of(arm, "small", 200, [])) for arm in curve.ARMS}
    starts = {arm: [f.pop("pretrained") for f in p["folds"]] for arm, p in presets.items()}
    assert presets["world"] == presets["imagenet"] == presets["fresh"]
    assert starts["imagenet"] == [True] * 2 and starts["fresh"] == [False] * 2
    assert {Path(p).parent.name for p in starts["world"]} == {"world"}


def test_differences_are_taken_chip_by_chip_within_a_draw(curve):
    rows = [
        dict(arm=arm, chips=2, draw=d, chip=c, dice=v, apls_length=v, apls_time=v)
        for arm, d, c, v in (
            ("world", 0, "a", 0.9),
            ("world", 0, "b", 0.5),
            ("fresh", 0, "a", 0.4),
            ("fresh", 1, "b", 0.1),
        )
    ]
    found = curve.differences(pd.DataFrame(rows), "world", "fresh")
    assert len(found) == 1 and found["dice"].iloc[0] == pytest.approx(0.5)


def test_leave_one_out_holds_out_what_is_named_and_begins_with_one_thing(curve):
    one = sys.modules["leave_one_out"]
    chips = pd.DataFrame({"chip": [f"AOI_2_Vegas_img{k}" for k in (0, 3, 14, 5)], "fold": 0})
    dealt = one.dealt_by_name(chips, ["img14"], ["img0"])
    assert dict(zip(dealt.chip.str[-4:], dealt.fold, strict=True)) == {
        "img3": 1,
        "mg14": 0,
        "img5": 1,
    }
    with pytest.raises(DataError, match="img4.*no such chip"):
        one.dealt_by_name(chips, ["img14"], ["img4"])
    with pytest.raises(PresetError, match="--begin-with world"):
        one.check_one_start(1500, "world")
    one.check_one_start(0, "world")
    one.check_one_start(1500, "")


def test_fine_tuning_learns_speeds_by_a_way_of_their_own(curve):
    "What the first chips teach of speeds must reach the members: docs/world-members.md."
    own = curve.preset_of("world", "finetune", 200, [])
    assert own.speed_stride == 16 and own.loss.speed_on_roads
    assert own.train.stages[0].head_rate > 1
