"""Training: clipping, accumulation, budget, kills at any moment, presets' schedules, and two
processes that train one network."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import affine
import numpy as np
import pandas as pd
import pytest
import torch
from rasterio.crs import CRS
from torch import nn

from spacenet5_nb import core, model, raster, train
from spacenet5_nb.core import Channels, StageError
from spacenet5_nb.losses import ComboLoss
from spacenet5_nb.training.dataset import Key, RoadDataset

ROOT = Path(__file__).parents[1]
STAGE = {"crop_px": 64, "batch": 4, "epochs": 2, "steps_per_epoch": 3, "lr": [[0, 0.003]]}
TINY = {
    "name": "tiny",
    "decoder": [8, 8, 8, 8],
    "decoder_norm": "batch",
    "folds": [{"encoder": "mobilenetv3_small_050", "pretrained": False}] * 2,
    "train": {"stages": [STAGE]},
}


def preset_with(stages=({},), **train_keys):
    return core.load_preset(TINY | {"train": {"stages": [STAGE | s for s in stages], **train_keys}})


def write_chips(folder, n=4, channels=Channels.selim_sef()) -> pd.DataFrame:  # noqa: B008 - a constant
    "Small chips with a road each, for folds 0 and 1."
    rows = []
    for k in range(n):
        chip, rng = f"AOI_1_Toy_chip{k}", np.random.default_rng(k)
        grid = raster.Grid((80, 80), affine.Affine(1, 0, 5e5, 0, -1, 4e6), CRS.from_epsg(32611))
        road = np.zeros((80, 80), bool)
        road[20 + 9 * k : 26 + 9 * k] = True
        raster.write(
            folder / f"{chip}.tif",
            (rng.integers(80, 120, (3, 80, 80)) + 100 * road).astype(np.uint8),
            grid=grid,
        )
        mask = np.zeros((len(channels), 80, 80), np.uint8)
        mask[channels.road][road], mask[0 if channels.continuous else 4][road] = (
            255,
            98 if channels.continuous else 255,
        )
        raster.write(folder / f"mask_{chip}.tif", mask, grid=grid, descriptions=channels.names)
        rows.append(
            dict(
                chip=chip,
                city="Toy",
                image=str(folder / f"{chip}.tif"),
                mask=str(folder / f"mask_{chip}.tif"),
                fold=k % 2,
            )
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    return write_chips(tmp_path_factory.mktemp("chips"))


def fit(preset, chips, out, **options):
    return train.fit(preset, 0, chips, out=out / "folds/0", device="cpu", **options)


def weights(out, name="last"):
    return model.load(out / f"folds/0/{name}.safetensors").state_dict()


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("clip", [0.01, 0.5, None])
def test_gradients_are_clipped_at_the_configured_value(tmp_path, chips, monkeypatch, clip):
    norms, step = [], torch.optim.Adam.step

    def spied(self, closure=None):
        loss = closure() if closure else None  # Lightning's closure: forward, backward, clipping
        norms.append(
            float(
                nn.utils.get_total_norm(
                    [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
                )
            )
        )
        step(self)
        return loss

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    fit(preset_with(clip=clip), chips, tmp_path)
    assert len(norms) == 6
    if clip is None:
        assert max(norms) > 0.5, "the test's losses are steep enough to be clipped"
    else:
        assert max(norms) <= clip * 1.0001 and max(norms) > clip * 0.999


def test_passes_add_up_to_the_gradient_of_the_whole_batch(tmp_path, chips, monkeypatch):
    """With a loss that is a mean over images and no batch statistics, two passes of two are one of
    four."""
    monkeypatch.setattr(
        ComboLoss,
        "forward",
        lambda self, logits, targets: nn.functional.binary_cross_entropy_with_logits(
            logits, targets.float()
        ),
    )
    plain = replace(preset_with([{"epochs": 1, "freeze_encoder_epochs": 1}]), decoder_norm="none")
    two = replace(plain, train=replace(plain.train, accumulate=2))
    rows = [fit(p, chips, tmp_path / str(k)) for k, p in enumerate((plain, two))]
    a, b = weights(tmp_path / "0"), weights(tmp_path / "1")
    moved = [(a[k] - b[k]).abs().max() for k in a if a[k].is_floating_point()]
    assert (
        max(moved) < 1e-5
        and abs(rows[0].loss[0] - rows[1].loss[0]) < 1e-6
        and rows[0].lr.equals(rows[1].lr)
    )
    with pytest.raises(
        StageError, match="batch of 4: cannot be shared evenly by 1 processes with 3 passes"
    ):
        fit(replace(plain, train=replace(plain.train, accumulate=3)), chips, tmp_path / "2")
    assert not (tmp_path / "2").exists(), "refused before anything is made"


@pytest.mark.parametrize("at", [1, 4, 7, 10])
def test_a_kill_within_accumulation_resumes_to_the_same_weights(tmp_path, chips, monkeypatch, at):
    preset = preset_with(
        [{}, {"schedule": "onecycle", "epochs": 1}], accumulate=2, ema=0.5, weight_decay=0.01
    )
    fit(preset, chips, tmp_path / "a")
    count, step = [0], train.RoadModule.training_step

    def killed(self, batch, index):
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as m:
        m.setattr(train.RoadModule, "training_step", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(preset, chips, tmp_path / "b")
    assert len(fit(preset, chips, tmp_path / "b")) == 3
    for name in ("last", "best_dice"):
        assert same(weights(tmp_path / "a", name), weights(tmp_path / "b", name)), name


def test_a_budget_of_time_stops_at_an_epochs_end_and_a_larger_one_goes_on(tmp_path, chips, capsys):
    endless = preset_with([{"epochs": 3, "validate_every": 3}, {"epochs": 1}])
    short = replace(endless, train=replace(endless.train, max_hours=1e-9))
    rows = fit(short, chips, tmp_path / "a")
    assert (
        list(rows.epoch) == [1]
        and rows.note[0] == "stopped: max_hours = 1e-09"
        and rows.dice.notna().all()
    ), "validated where it stopped"
    assert "raise it and run again" in capsys.readouterr().out
    assert {"last.safetensors", "best_dice.safetensors", "resume.ckpt", "metrics.csv"} <= {
        p.name for p in (tmp_path / "a/folds/0").iterdir()
    }
    assert "max_hours" in (tmp_path / "a/folds/0/metrics.csv").read_text()
    before = (tmp_path / "a/folds/0/resume.ckpt").stat().st_mtime_ns
    assert (
        fit(short, chips, tmp_path / "a").equals(rows)
        and (tmp_path / "a/folds/0/resume.ckpt").stat().st_mtime_ns == before
    ), "nothing to do within it"
    more = fit(replace(endless, train=replace(endless.train, max_hours=9.0)), chips, tmp_path / "a")
    assert list(more.epoch) == [1, 2, 3, 1] and not (tmp_path / "a/folds/replaced").exists()
    fit(endless, chips, tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b")), "as if it had never been stopped"


def test_stages_may_be_done_one_now_and_one_later(tmp_path, chips):
    preset = preset_with([{}, {"crop_px": 96, "epochs": 1}])
    fit(preset, chips, tmp_path / "a")
    assert list(fit(preset, chips, tmp_path / "b", until=1).stage) == [0, 0]
    assert list(fit(preset, chips, tmp_path / "b").stage) == [0, 0, 1] and same(
        weights(tmp_path / "a"), weights(tmp_path / "b")
    )


def test_a_head_with_its_own_rate_and_a_deep_feature_goes_on_as_one(tmp_path, chips):
    "Speeds see stride 16, on roads alone; the body learns as slowly as asked."
    stages = [{"epochs": 1, "head_rate": 20.0, "lr": [[0, 0.0005]]}, {"epochs": 1}]
    own = {"speed_stride": 16, "loss": {"speed": {"bce": 1.0}, "speed_on_roads": True}}
    preset = core.load_preset(TINY | own | {"train": {"stages": [STAGE | s for s in stages]}})
    fit(preset, chips, tmp_path / "whole")
    fit(preset, chips, tmp_path / "parts", until=1)
    first = weights(tmp_path / "parts")
    torch.manual_seed(2019 * 1000)  # what `fit` builds from
    begun = model.build(preset, 0).state_dict()
    moved = {k: (first[k] - begun[k]).abs().max() for k in first if k.endswith("weight")}
    body = max(v for k, v in moved.items() if not k.startswith(("head.", "shortcut.")))
    assert moved["shortcut.1.weight"] > 5 * body and moved["head.weight"] > 5 * body > 0
    fit(preset, chips, tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_resume_needs_no_pretrained_weights(tmp_path, chips, monkeypatch):
    preset = preset_with([{"epochs": 1}, {"epochs": 1}])
    named = replace(
        preset,
        folds=tuple(
            replace(f, pretrained=str(tmp_path / "weights.safetensors")) for f in preset.folds
        ),
    )
    from safetensors.torch import save_file

    save_file(
        model.make_encoder("mobilenetv3_small_050", 3).state_dict(),
        tmp_path / "weights.safetensors",
    )
    fit(named, chips, tmp_path, until=1)
    (tmp_path / "weights.safetensors").unlink()
    before = model.read_info(tmp_path / "folds/0/last.safetensors")
    assert len(fit(named, chips, tmp_path)) == 2
    after = model.read_info(tmp_path / "folds/0/last.safetensors")
    assert {k: v for k, v in before.items() if before[k] != after[k]}.keys() <= {
        "epoch",
        "stage",
        "metrics",
    } and before.keys() == after.keys()


def test_a_continuous_speed_is_learned(tmp_path):
    channels = Channels.of_speed(65)
    chips = write_chips(tmp_path, channels=channels)
    rows = fit(
        replace(
            preset_with([{"epochs": 2, "steps_per_epoch": 12, "lr": [[0, 0.01]]}]),
            channels=channels,
        ),
        chips,
        tmp_path,
    )
    assert rows.speed.iloc[-1] < rows.speed.iloc[0] and np.isfinite(rows.loss).all()
    assert model.load(tmp_path / "folds/0/last.safetensors").info["channels"]["continuous"]


def test_rare_classes_are_sought_in_training(tmp_path, chips, monkeypatch):
    keys, item = [], RoadDataset.__getitem__

    def spied(self, key):
        keys.append(key)
        return item(self, key)

    monkeypatch.setattr(RoadDataset, "__getitem__", spied)
    fit(preset_with(rare_share=0.5, rare_mph=25.0), chips, tmp_path)
    assert (
        4 < sum(k.rare == 4 for k in keys) < 20
        and {k.rare for k in keys} == {-1, 4}
        and isinstance(keys[0], Key)
    )


@pytest.mark.parametrize(
    "fold,encoder,bands,first_rate,frozen,bce,drop",
    [
        (0, "inception_resnet_v2", 3, 5e-4, 1, 1.0, 6),
        (1, "inception_resnet_v2", 3, 5e-4, 1, 1.0, 6),
        (2, "dpn92", 8, 1e-4, 0, 0.0, 4),
        (3, "dpn92", 3, 5e-4, 1, 1.0, 4),
    ],
)
def test_a_fold_of_faithful_takes_the_originals_table(
    fold, encoder, bands, first_rate, frozen, bce, drop
):
    p = train.fold_preset(core.load_preset("faithful"), fold)
    f, (one, two) = p.folds[fold], p.train.stages
    assert (f.encoder, f.bands) == (encoder, bands) and (
        p.train.clip,
        p.train.precision,
        p.train.weight_decay,
        p.train.data_multiplier,
    ) == (1.0, "32", 0.0, 8)
    assert (
        one.crop_px,
        one.batch,
        one.epochs,
        one.freeze_encoder_epochs,
        one.validate_every,
        one.sync_bn,
    ) == (384, 10, 38, frozen, 6, False)
    assert (
        two.crop_px,
        two.batch,
        two.epochs,
        two.freeze_encoder_epochs,
        two.validate_every,
        two.sync_bn,
    ) == (512, 16, 14, 0, 1, True)
    rates = [[train.learning_rate(s, e, 0, 1) for e in range(s.epochs)] for s in (one, two)]
    assert rates[0] == [first_rate] + [1e-4] * 19 + [5e-5] * 10 + [3e-5] * 5 + [1e-5] * 3
    assert rates[1] == [2e-5] * 2 + [1e-5] * (drop - 2) + [5e-6] * (8 - drop) + [3e-6] * 6
    assert (
        p.loss.speed.bce == bce
        and (p.loss.road.dice, p.loss.road.focal) == (0.5, 2.0)
        and (p.train.scale_range, p.train.shift) == ((0.8, 1.2), 0.2)
    )
    assert p.train.colour == ("shift", "contrast", "gamma") and not p.train.city_balanced


def test_a_log_gets_a_line_an_epoch_and_no_bar(tmp_path, chips, capsys, monkeypatch):
    monkeypatch.setenv("SPACENET5_PROGRESS", "0")
    fit(preset_with(), chips, tmp_path)
    told = capsys.readouterr()
    lines = [line for line in told.out.splitlines() if line.startswith("stage 1, epoch")]
    assert (
        len(lines) == 2
        and "epoch 2 of 2: loss" in lines[1]
        and "dice" in lines[1]
        and "\r" not in told.out + told.err
    )


WORKER = """
import json, os, sys
from pathlib import Path
import pandas as pd
import torch
from spacenet5_nb import core, model, train
from spacenet5_nb.training.dataset import RoadDataset, rank_now
torch.set_num_threads(1)
folder, name = Path(sys.argv[1]), sys.argv[2]
keys, item = [], RoadDataset.__getitem__
def spied(self, key): keys.append(list(key)); return item(self, key)
RoadDataset.__getitem__ = spied
kept, keep = [], train.Keeper.keep
def kept_too(self, row, *rest): kept.append(row["epoch"]); keep(self, row, *rest)
train.Keeper.keep = kept_too
def save(self): torch.save(dict(self.net.named_parameters()), folder/f"{name}-{rank_now()}.pt")
train.RoadModule.on_train_end = save
counted = lambda chip, probs: {"apls_length": float(probs[10].mean())/255, "apls_time": 0.5}
preset, chips = json.loads((folder/"preset.json").read_text()), pd.read_csv(folder/"chips.csv")
options = dict(out=folder/name/"folds/0", score=counted, device="cpu")
rows = train.fit(preset, 0, chips, **options, workers=0)
rank = int(os.environ.get("RANK", 0))
told = {"keys": keys, "kept": kept, "rows": rows.drop(columns="seconds").to_dict("records")}
(folder/f"{name}-{rank}.json").write_text(json.dumps(told))
"""


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path, chips):
    """torchrun on the CPU: disjoint samples, equal weights, one writer; the encoder is frozen in
    the first epoch."""
    stages = [
        STAGE | {"epochs": 2, "freeze_encoder_epochs": 1},
        STAGE | {"epochs": 1, "sync_bn": True},
    ]
    (tmp_path / "preset.json").write_text(json.dumps(TINY | {"train": {"stages": stages}}))
    (tmp_path / "worker.py").write_text(WORKER)
    chips.to_csv(tmp_path / "chips.csv", index=False)
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "SPACENET5_PROGRESS": "0",
        "SPACENET5_ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for n, name in ((2, "two"), (1, "one")):
        done = subprocess.run(
            [*launch, str(n), str(tmp_path / "worker.py"), str(tmp_path), name],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    told = {
        k: json.loads((tmp_path / f"{k}.json").read_text()) for k in ("two-0", "two-1", "one-0")
    }
    shares = [{tuple(k) for k in told[f"two-{r}"]["keys"]} for r in (0, 1)]
    assert not shares[0] & shares[1] and len(shares[0]) == len(shares[1]) == 18
    assert shares[0] | shares[1] == {tuple(k) for k in told["one-0"]["keys"]}, (
        "together what one would have seen"
    )
    assert told["two-0"]["kept"] == [1, 2, 1] and told["two-1"]["kept"] == [], "one writer"
    assert told["two-0"]["rows"] == told["two-1"]["rows"] and len(told["two-0"]["rows"]) == 3, (
        "all know the same losses and scores"
    )
    a, b = (torch.load(tmp_path / f"two-{r}.pt", weights_only=True) for r in (0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    saved = model.load(tmp_path / "two/folds/0/last.safetensors").state_dict()
    assert all(torch.equal(a[k], saved[k]) for k in a)
    assert not list((tmp_path / "two/folds/0").glob(".tmp-*"))


@pytest.mark.slow
def test_a_notebook_starts_its_own_processes(tmp_path, chips):
    """devices=2 in one program: forked processes train, and the program itself goes on with what
    they wrote."""
    (tmp_path / "worker.py").write_text(WORKER.replace("workers=0)", "workers=0, devices=2)"))
    (tmp_path / "preset.json").write_text(
        json.dumps(TINY | {"train": {"stages": [STAGE | {"epochs": 1}, STAGE | {"epochs": 1}]}})
    )
    chips.to_csv(tmp_path / "chips.csv", index=False)
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "SPACENET5_PROGRESS": "0",
        "SPACENET5_ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, str(tmp_path / "worker.py"), str(tmp_path), "own"],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "own-0.json").read_text())["rows"]
    assert [r["stage"] for r in rows] == [0, 1] and np.allclose(
        [r["loss"] for r in rows], pd.read_csv(tmp_path / "own/folds/0/metrics.csv").loss
    )
    a, b = (torch.load(tmp_path / f"own-{r}.pt", weights_only=True) for r in (0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("16", marks=pytest.mark.gpu)])
def test_lower_precision_trains_and_resumes(tmp_path, chips, precision):
    if precision == "16" and not torch.cuda.is_available():
        pytest.skip("fp16 needs a CUDA device; none is here")
    device = "cpu" if precision == "bf16" else "cuda"
    preset = preset_with([{"epochs": 1}, {"epochs": 1}], precision=precision)
    options = dict(out=tmp_path / "folds/0", device=device)
    train.fit(preset, 0, chips, until=1, **options)
    rows = train.fit(preset, 0, chips, **options)
    assert (
        len(rows) == 2
        and np.isfinite(rows.loss).all()
        and all(v.dtype != torch.bfloat16 for v in weights(tmp_path).values())
    ), "weights stay 32 bits"
    scaler = torch.load(tmp_path / "folds/0/resume.ckpt", weights_only=True)["scaler"]
    assert bool(scaler) == (precision == "16"), "fp16's scale is part of a resume"


def test_fp16_on_a_cpu_is_refused_with_its_cure(tmp_path, chips):
    with pytest.raises(StageError, match="train.precision = 16: needs a GPU. Use bf16"):
        fit(preset_with(precision="16"), chips, tmp_path)


@pytest.mark.slow
def test_ablations_go_on_where_they_ended(tmp_path, monkeypatch, capsys):
    from spacenet5_nb import ablations
    from spacenet5_nb.core import FoldConfig, Run, StageConfig

    small = dict(cities=["Terra", "Enigma"], grid=[2, 3], test_grid=[1, 2], chip_m=220.0, gsd_m=1.0)
    preset = core.load_preset({"name": "t", "base": "demo", "data": {"demo": small}})
    monkeypatch.setitem(
        ablations.SIZES,
        "cpu",
        lambda p: replace(
            p,
            folds=(FoldConfig("mobilenetv3_small_050", pretrained=False),) * 2,
            decoder=(8, 8, 8, 8),
            train=replace(p.train, stages=(StageConfig(64, 2, 1, 2, lr=((0, 0.003),)),)),
        ),
    )
    r = Run("t", tmp_path / "out", tmp_path / "data", replace(preset, folds=preset.folds[:2]), 3)
    cases = [
        c
        for c in ablations.CASES
        if c.name in ("base: 10 bins, RGB", "8 bands", "continuous speed", "7 bins")
    ]
    none = ablations.run_cases(r, cases=cases, seeds=2, minutes=-1, device="cpu")
    assert not len(none) and all(
        v.startswith("not measured here") for v in ablations.compare(none).verdict
    )
    part = ablations.run_cases(r, cases=cases[:2], seeds=1, minutes=60, device="cpu")
    assert set(part.case) == {"base: 10 bins, RGB", "continuous speed"} and set(part["where"]) == {
        "held-out",
        "mystery",
    }
    fits, real = [], ablations.fit
    monkeypatch.setattr(ablations, "fit", lambda *a, **k: (fits.append(k["out"]), real(*a, **k)))
    whole = ablations.run_cases(r, cases=cases, seeds=2, minutes=60, device="cpu")
    assert len(fits) == 6, "two of eight were there"
    assert (
        len(whole) == 16
        and whole[whole.seed == 0]
        .merge(part, on=["case", "where"])[["dice_x", "dice_y"]]
        .diff(axis=1)
        .abs()
        .max()
        .max()
        == 0
    )
    table = ablations.compare(whole).set_index("case")
    assert (
        table.loc["8 bands", "seeds"] == 2
        and table.loc["8 bands", "verdict"] in ("holds", "does not hold", "not resolved")
        and table.loc["clDice", "seeds"] == 0
    )
    lacking = replace(
        cases[0],
        name="lacks",
        needs="weights",
        change=lambda p: replace(
            p, folds=tuple(replace(f, pretrained=str(tmp_path / "none.pt")) for f in p.folds)
        ),
    )
    assert not len(ablations.run_cases(r, cases=[lacking], seeds=2, minutes=60, device="cpu"))
    assert capsys.readouterr().out.count("lacks: not measured here") == 1
