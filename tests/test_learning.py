"Networks, losses, dataset, training and ensemble on tiny inputs."

import json
import struct

import affine
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from rasterio.crs import CRS

from spacenet5_nb import core, ensemble, model, raster, train
from spacenet5_nb.core import Channels, CheckpointError, StageError
from spacenet5_nb.losses import ComboLoss, dice_loss, focal_loss

TINY = {
    "name": "tiny",
    "decoder": [8, 8, 8, 8],
    "decoder_norm": "batch",
    "folds": [
        {"encoder": "mobilenetv3_small_050", "pretrained": False, "bands": 3},
        {"encoder": "mobilenetv3_small_050", "pretrained": False, "bands": 8},
    ],
    "train": {
        "ema": 0.5,
        "stages": [
            {
                "crop_px": 64,
                "batch": 2,
                "epochs": 1,
                "steps_per_epoch": 2,
                "lr": [[0, 0.003]],
                "freeze_encoder_epochs": 1,
            },
            {
                "crop_px": 64,
                "batch": 2,
                "epochs": 2,
                "steps_per_epoch": 2,
                "lr": [[0, 0.003]],
                "schedule": "onecycle",
            },
        ],
    },
}


@pytest.fixture(scope="module")
def preset():
    return core.load_preset(TINY)


@pytest.fixture(scope="module")
def chips(tmp_path_factory, preset) -> pd.DataFrame:
    "Three 8-band chips with a road each."
    folder, rows = tmp_path_factory.mktemp("chips"), []
    for k in range(3):
        chip, rng = f"AOI_1_Toy_chip{k}", np.random.default_rng(k)
        grid = raster.Grid((80, 80), affine.Affine(1, 0, 5e5, 0, -1, 4e6), CRS.from_epsg(32611))
        road = np.zeros((80, 80), bool)
        road[20 + 9 * k : 26 + 9 * k] = True
        raster.write(
            folder / f"{chip}.tif",
            (rng.integers(200, 300, (8, 80, 80)) + 200 * road).astype(np.uint16),
            grid=grid,
        )
        mask = np.where(np.isin(np.arange(12), [4, 10])[:, None, None], 255 * road, 0).astype(
            np.uint8
        )
        raster.write(
            folder / f"mask_{chip}.tif", mask, grid=grid, descriptions=preset.channels.names
        )
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


def counted(chip, probs):
    "A score that needs no judge."
    return {"apls_length": float(probs[10].mean() / 255), "apls_time": 0.5}


@pytest.mark.parametrize("bands", range(1, 9))
def test_any_size_and_band_count_comes_out_exactly(bands):
    net = model.RoadUNet("mobilenetv3_small_050", bands, 5, decoder=(8, 8, 8, 8)).eval()
    for size in [(64, 64), (33 + bands, 71)]:
        with torch.no_grad():
            assert net(torch.zeros(1, bands, *size)).shape == (1, 5, *size)


def test_inception_resnet_sizes_halve():
    encoder = model.make_encoder("inception_resnet_v2", 3)
    assert model.feature_shapes(encoder, 3) == [(64, 2), (192, 4), (320, 8), (1088, 16), (1536, 32)]


def test_members_round_trip_and_name_what_differs(tmp_path, preset):
    net = model.build(preset, 1)
    path = model.save(net, tmp_path / "m.safetensors", epoch=4)
    again = model.load(path, channels=preset.channels, encoder="mobilenetv3_small_050", bands=8)
    x = torch.randint(0, 255, (1, 8, 40, 50), dtype=torch.uint8)
    assert (
        torch.equal(model.probabilities(again, x), model.probabilities(net, x))
        and again.info["epoch"] == 4
    )
    for kwargs, word in [
        (dict(encoder="resnet18"), "encoder"),
        (dict(channels=Channels.cresi()), "channels"),
        (dict(bands=3), "bands"),
    ]:
        with pytest.raises(CheckpointError, match=f"m.safetensors: has {word} .*Train it again"):
            model.load(path, **kwargs)


def test_a_header_that_lies_about_its_weights_is_refused(tmp_path, preset):
    data = model.save(model.build(preset, 0), tmp_path / "m.safetensors").read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    header["__metadata__"]["info"] = header["__metadata__"]["info"].replace(
        "mobilenetv3_small_050", "resnet10t"
    )
    text = json.dumps(header).encode()
    (tmp_path / "lie.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n :])
    with pytest.raises(CheckpointError, match="other weights than its header says"):
        model.load(tmp_path / "lie.safetensors")
    torch.save({"x": 1}, tmp_path / "pickle.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        model.load(tmp_path / "pickle.safetensors")


def test_losses_are_least_at_the_truth():
    channels = Channels.selim_sef()
    targets = (torch.rand(2, 12, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    loss = ComboLoss({"road": {"dice": 1, "focal": 1, "bce": 1, "cldice": 1}}, channels=channels)
    right, wrong = (loss(s * (20 * targets - 10), targets) for s in (1, -1))
    assert right < 0.01 < 5 < wrong and set(loss.parts) == {"speed", "road", "junction"}
    logits = torch.full((1, 1, 8, 8), 100.0, dtype=torch.bfloat16, requires_grad=True)
    (
        focal_loss(logits, torch.zeros(1, 1, 8, 8)) + dice_loss(logits, torch.zeros(1, 1, 8, 8))
    ).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("tta", ensemble.VIEWS)
def test_views_invert_exactly(tta):
    x = torch.rand(2, 5, 7)
    for v in ensemble.VIEWS[tta]:
        assert torch.equal(ensemble.unview(ensemble.view(x, v), v), x)


def test_prediction_is_the_plain_mean_and_repeats(tmp_path, preset):
    torch.manual_seed(0)
    paths = [model.save(model.build(preset, k), tmp_path / f"{k}.safetensors") for k in (0, 1)]
    paths.append(model.save(model.load(paths[0]), tmp_path / "again.safetensors", epoch=9))
    image = np.random.default_rng(0).integers(0, 255, (8, 40, 40)).astype(np.uint8)
    p = ensemble.predict(paths, image, device="cpu")
    a, b = (ensemble.predict(paths[k : k + 1], image, device="cpu") for k in (0, 1))
    assert np.allclose(p, (2 * a + b) / 3, atol=1e-6) and np.array_equal(
        p, ensemble.predict(paths, image, device="cpu")
    )
    assert len(ensemble.open_members(paths, device="cpu")) == 2
    assert np.array_equal(
        ensemble.predict(paths, image, device="cpu", as_bytes=True),
        np.round(p * 255).astype(np.uint8),
    )


def test_training_resumes_to_the_same_weights(tmp_path, preset, chips):
    straight = train.fit(preset, 0, chips, out=tmp_path / "a/folds/0", score=counted, device="cpu")
    assert list(straight.stage) == [0, 1, 1] and list(straight.epoch) == [1, 1, 2]
    for kill_at in (1, 2, 3):  # validations: two chips each
        calls = []

        def killed(chip, probs, calls=calls, kill_at=kill_at):
            calls.append(chip)
            if len(calls) > 2 * kill_at - 1:
                raise KeyboardInterrupt
            return counted(chip, probs)

        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train.fit(
                preset, 0, chips, out=tmp_path / f"{kill_at}/folds/0", score=killed, device="cpu"
            )
        resumed = train.fit(
            preset, 0, chips, out=tmp_path / f"{kill_at}/folds/0", score=counted, device="cpu"
        )
        assert len(resumed) == 3
        for name in ("last", "best_dice", "best_apls"):
            a, b = (
                model.load(tmp_path / f"{x}/folds/0/{name}.safetensors").state_dict()
                for x in ("a", kill_at)
            )
            assert all(torch.equal(a[k], b[k]) for k in a), (kill_at, name)
        assert not list((tmp_path / f"{kill_at}/folds/0").glob(".tmp-*"))


def test_a_finished_fold_is_not_trained_again(tmp_path, preset, chips):
    once, out = (
        core.load_preset(TINY | {"train": {"stages": TINY["train"]["stages"][:1]}}),
        tmp_path / "folds/0",
    )

    def fit(p=once, **options):
        return train.fit(p, 0, chips, out=out, score=counted, device="cpu", **options)

    def times(folder):
        return {f.name: f.stat().st_mtime_ns for f in folder.iterdir() if f.is_file()}

    rows, before = fit(), times(out)
    assert (
        fit().equals(rows) and times(out) == before and not (tmp_path / "folds/replaced").exists()
    )
    assert (
        len(fit(fresh=True)) == 1
        and times(out) != before
        and times(tmp_path / "folds/replaced/0-1") == before
    )
    faster = core.load_preset(
        TINY | {"train": {"stages": [TINY["train"]["stages"][0] | {"lr": [[0, 0.01]]}]}}
    )
    before = times(out)
    assert fit(faster).lr[0] == 0.01 and times(tmp_path / "folds/replaced/0-2") == before, (
        "other inputs: set aside, not overwritten"
    )
    (out / "best_dice.safetensors").unlink()
    fit(faster)
    assert (out / "best_dice.safetensors").is_file() and (
        tmp_path / "folds/replaced/0-3"
    ).is_dir(), "a checkpoint was lost: trained again"


def test_a_folder_without_a_training_is_used_as_it_is(tmp_path, preset, chips):
    once = core.load_preset(TINY | {"train": {"stages": TINY["train"]["stages"][:1]}})
    core.write_text(tmp_path / "folds/0/notes.txt", "mine")
    train.fit(once, 0, chips, out=tmp_path / "folds/0", device="cpu")
    assert (tmp_path / "folds/0/notes.txt").is_file() and not (tmp_path / "folds/replaced").exists()


def test_a_frozen_encoder_keeps_its_weights_and_statistics(tmp_path, preset, chips):
    only_first = core.load_preset(
        TINY | {"train": {"ema": 0.5, "stages": TINY["train"]["stages"][:1]}}
    )
    train.fit(only_first, 0, chips, out=tmp_path / "folds/0", device="cpu", seed=5)
    torch.manual_seed(5000)
    fresh, trained = (
        model.build(preset, 0).state_dict(),
        model.load(tmp_path / "folds/0/last.safetensors").state_dict(),
    )
    moved = {k.split(".")[0] for k in fresh if not torch.equal(fresh[k], trained[k])}
    assert moved == {"decoder", "head"}
    assert not (tmp_path / "folds/0/best_apls.safetensors").exists(), (
        "no score, no checkpoint by score"
    )


def test_a_loss_that_is_not_a_number_stops_training(tmp_path, preset, chips, monkeypatch):
    monkeypatch.setattr(
        ComboLoss, "forward", lambda self, logits, targets: logits.sum() * float("nan")
    )
    with pytest.raises(StageError, match="not a number.*nan_batch"):
        train.fit(preset, 0, chips, out=tmp_path / "folds/0", device="cpu")
    assert (tmp_path / "folds/0/nan_batch.safetensors").exists()


def test_folds_out_of_range_and_missing_members_are_named(tmp_path, preset, chips):
    with pytest.raises(StageError, match="fold=7: preset 'tiny' has folds 0 to 1"):
        train.fit(preset, 7, chips, out=tmp_path)
    with pytest.raises(StageError, match=r"folds.csv has folds \[1\]"):
        train.fit(preset, 0, chips[chips.fold == 1], out=tmp_path)
    r = core.Run("t", tmp_path, tmp_path, preset, 1)
    with pytest.raises(StageError, match="lacks folds/0/last.safetensors.*04_train -p fold 0"):
        ensemble.member_paths(r)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        model.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "change,words",
    [
        (
            {"folds": [TINY["folds"][0] | {"encoder": "resnet18"}, TINY["folds"][1]]},
            "has encoder mobilenetv3_small_050, but fold 0 .* has resnet18",
        ),
        ({"folds": TINY["folds"][::-1]}, "has bands 3, but fold 0 .* has 8"),
        ({"decoder": [8, 8, 8, 16]}, r"has decoder \[8, 8, 8, 8\], .* has \[8, 8, 8, 16\]"),
        ({"decoder_norm": "none"}, "has decoder_norm batch, .* has none"),
        ({"data": {"gsd_m": 0.5}}, "has gsd_m None, .* has 0.5"),
    ],
)
def test_members_of_another_preset_are_refused(tmp_path, preset, change, words):
    r = core.Run("t", tmp_path, tmp_path, preset, 1)
    for k in (0, 1):
        for name in preset.ensemble.checkpoints:
            model.save(model.build(preset, k), r.fold(k) / f"{name}.safetensors")
    assert len(ensemble.member_paths(r)) == 6
    with pytest.raises(
        CheckpointError, match=f"folds/0/last.safetensors: {words}.*Train fold 0 again"
    ):
        ensemble.member_paths(core.Run("t", tmp_path, tmp_path, core.load_preset(TINY | change), 1))


def test_offline_pretrained_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(CheckpointError, match="pretrained: false"):
        model.hub_weights("resnet10t")
    with pytest.raises(CheckpointError, match="no such file"):
        model.load_pretrained(torch.nn.Conv2d(3, 4, 3), "resnet10t", 3, str(tmp_path / "no.pt"))
