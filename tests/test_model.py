"Encoders, stems, decoder, any size, any number of bands, checkpoints, the original's weights."

import copy
import json
import math
import shutil

import pytest
import torch
from torch.nn import functional as F

from spacenet5_nb import core, model, raster
from spacenet5_nb.core import CheckpointError
from spacenet5_nb.networks import encoder, unet

core.cure_torchvision()
import timm  # noqa: E402

ENCODERS = {
    "resnet34": 2,
    "seresnext50_32x4d": 2,
    "efficientnet_b0": 2,
    "convnext_atto": 4,
    "mobilenetv3_small_050": 2,
    "densenet121": 2,
    "dpn48b": 2,
    "test_resnet": 2,
}
WIDTHS = (16, 12, 8, 8)


@pytest.mark.parametrize("name", ENCODERS)
def test_any_encoder_any_size_any_bands_trains(name):
    net = model.RoadUNet(name, 5, 7, decoder=WIDTHS).train()
    assert model.feature_shapes(net.encoder, 5)[0][1] == ENCODERS[name]
    y = net(torch.randn(2, 5, 65, 97))
    y.square().mean().backward()
    assert y.shape == (2, 7, 65, 97) and all(
        torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None
    )
    assert sum(p.grad is None for p in net.decoder.parameters()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name,parameters", [("dpn92", 49.1e6), ("inception_resnet_v2", 63.7e6)])
@pytest.mark.parametrize("bands", [3, 8])
def test_the_originals_encoders_at_odd_sizes(name, parameters, bands):
    net = model.RoadUNet(name, bands, 12).eval()
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(parameters, rel=0.01)
    assert [r for _, r in model.feature_shapes(net.encoder, bands)] == [2, 4, 8, 16, 32]
    for size in [(96, 96), (101, 67)]:
        with torch.no_grad():
            assert net(torch.zeros(1, bands, *size)).shape == (1, 12, *size)


def as_written(net: unet.RoadUNet, x: torch.Tensor) -> torch.Tensor:
    """The original's forward pass, step by step: double, convolve, put the skip beside, convolve;
    at last double and convolve 1x1."""
    *skips, y = net.encoder(x)
    for block, skip in zip(net.decoder, skips[::-1], strict=False):
        y = block.merge(
            torch.cat([block.up(F.interpolate(y, scale_factor=2, mode="nearest")), skip], 1)
        )
    return net.head(
        F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=net.spec["align_corners"])
    )


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (256, 224)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_fast_decoder_is_the_original_one(size, align_corners):
    torch.manual_seed(0)
    net = model.RoadUNet("resnet10t", 3, 12, align_corners=align_corners).double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    fast, slow = (
        torch.autograd.grad(f(x).square().sum(), list(net.decoder.parameters()))
        for f in (net, lambda x: as_written(net, x))
    )
    assert torch.allclose(net(x), as_written(net, x), rtol=1e-9, atol=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-7, atol=1e-9) for a, b in zip(fast, slow, strict=True))


def test_folding_happens_from_a_size_on_and_changes_nothing(monkeypatch):
    block, x = unet.DecoderBlock(6, 0, 4, "batch").eval(), torch.randn(1, 6, 9, 11)
    results = []
    for limit in (1, 10**9):
        monkeypatch.setattr(unet, "FOLD_FROM_PIXELS", limit)
        results.append(block(x, None))
    assert torch.allclose(*results, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("rgb_at", [(0, 1, 2), (4, 2, 1)])
def test_he_stem_values_and_variance(seed, rgb_at):
    rgb = torch.randn(64, 3, 7, 7)
    w = encoder.stem_weights(rgb, 8, rgb_at=rgb_at, seed=seed)
    others = [k for k in range(8) if k not in rgb_at]
    assert torch.equal(w[:, list(rgb_at)], rgb)
    expected = torch.empty(64, 5, 7, 7).normal_(
        0, math.sqrt(2 / (8 * 49)), generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(w[:, others], expected)
    assert (
        w[:, others].var().item() == pytest.approx(2 / (8 * 7 * 7), rel=0.05)
        and abs(w[:, others].mean().item()) < 1e-3
    )


def test_other_stems():
    rgb = torch.randn(32, 3, 3, 3)
    assert not encoder.stem_weights(rgb, 5, extra="zero")[:, 3:].any()
    mean = encoder.stem_weights(rgb, 6, extra="mean")
    assert torch.allclose(
        mean[:, 3:], rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1) / 2
    ) and torch.allclose(mean.sum(1), rgb.sum(1), atol=1e-5)
    plain = encoder.stem_weights(rgb, 8, extra="torch")[:, 3:]
    assert plain.abs().max() <= 1 / math.sqrt(72) and plain.var().item() == pytest.approx(
        1 / 72 / 3, rel=0.1
    )
    state = torch.random.get_rng_state()
    encoder.stem_weights(rgb, 8)
    assert torch.equal(state, torch.random.get_rng_state()), "a stem draws from its own generator"


def test_pixels_come_red_green_blue_first():
    assert raster.band_order(8, 8)[:3] == raster.band_order(8, 3) == (5, 3, 2), (
        "WorldView's red, green, blue: planes 0, 1, 2 of what a network gets"
    )
    assert [raster.band_order(8, 8).index(b) for b in (5, 3, 2)] == list(
        model.RoadUNet("test_resnet", 8, 2, decoder=(8,)).spec["rgb_at"]
    )


@pytest.mark.parametrize("stem", ["he", "mean", "zero", "torch"])
def test_pretrained_stems_through_a_preset(tmp_path, stem):
    learned = timm.create_model("resnet10t")
    torch.save(learned.state_dict(), tmp_path / "resnet10t.pth")
    preset = core.load_preset(
        {
            "name": "t",
            "decoder": [8, 8, 8, 8],
            "folds": [
                {"encoder": "resnet10t", "bands": 8, "pretrained": str(tmp_path), "stem": stem}
            ],
        }
    )
    net = model.build(preset, 0)
    assert torch.equal(
        next(net.parameters()),
        encoder.stem_weights(next(learned.parameters()).detach(), 8, extra=stem),
    )
    deep = dict(net.named_parameters())
    assert torch.equal(
        deep["encoder.layer4.0.conv1.weight"], learned.state_dict()["layer4.0.conv1.weight"]
    )
    assert net.info["stem"] == stem and model.header(net)["spec"]["rgb_at"] == [0, 1, 2]


def test_weights_are_found_in_folders(tmp_path):
    def put(name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({}, tmp_path / name)
        return tmp_path / name

    hub, plain = (
        put("models--timm--dpn92.mx_in1k/snapshots/ab/model.safetensors"),
        put("resnet50-0676ba61.pth"),
    )
    old = put("inception_resnet_v2.tf_in1k.bin")
    put("resnet50d.pth")
    assert (
        encoder.find_weights(tmp_path, "dpn92") == hub
        and encoder.find_weights(tmp_path, "resnet50") == plain
    )
    assert (
        encoder.find_weights(tmp_path, "inception_resnet_v2.tf_in1k")
        == old
        == encoder.find_weights(old, "anything")
    )
    put("more/resnet50.pth")
    for name, words in {
        "resnet50": "several files",
        "vgg19": "holds none for encoder 'vgg19'.*put vgg19.safetensors there",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            encoder.find_weights(tmp_path, name)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        encoder.find_weights(tmp_path / "none", "dpn92")


def test_files_are_not_unpickled(tmp_path):
    torch.save({"state_dict": {}, "code": print}, tmp_path / "resnet10t.pth")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        encoder.file_weights(tmp_path / "resnet10t.pth")


def test_normalisation_is_the_encoders_own():
    for name in ("dpn92", "inception_resnet_v2", "resnet34"):
        config, net = timm.get_pretrained_cfg(name), encoder.normalisation(name, 8, (4, 2, 1))
        for got, rgb in zip(net, (config.mean, config.std), strict=True):
            assert torch.allclose(
                got[0, [4, 2, 1], 0, 0], 255 * torch.tensor(rgb)
            ) and torch.allclose(got[0, 7, 0, 0], 255 * torch.tensor(rgb).mean())


@pytest.mark.parametrize("name", ["resnet10t", "dpn48b", "efficientnet_b0", "convnext_atto"])
def test_recomputed_activations_change_nothing(name):
    torch.manual_seed(0)
    plain = model.RoadUNet(name, 3, 4, decoder=WIDTHS, norm="batch").train()
    again = model.recompute(copy.deepcopy(plain))
    again = copy.deepcopy(again)  # as an average of weights is made
    x, kept = torch.randn(2, 3, 64, 64), []
    for net in (plain, again):
        seen = {}

        def count(t, seen=seen):
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        torch.manual_seed(1)  # drop-out
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            loss = net(x).square().mean()
        loss.backward()
        kept.append(sum(seen.values()))
    a, b = (
        {
            k: v
            for n in (net,)
            for k, v in [*n.named_buffers(), *((k, p.grad) for k, p in n.named_parameters())]
            if "num_batches" not in k
        }
        for net in (plain, again)
    )
    assert all(torch.allclose(a[k], b[k], rtol=1e-3, atol=1e-5) for k in a) and kept[1] < kept[0]
    assert plain.state_dict().keys() == again.state_dict().keys()


def test_bf16_and_channels_last_are_close(tmp_path):
    torch.manual_seed(0)
    net = model.tune(model.RoadUNet("resnet10t", 8, 12, decoder=WIDTHS))
    x = torch.randint(0, 255, (2, 8, 70, 50), dtype=torch.uint8)
    p = model.probabilities(net, x)
    assert (model.probabilities(net, x, bf16=True) - p).abs().max() < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        y = net.train()(net.prepare(x))
    y.float().square().mean().backward()
    assert all(torch.isfinite(q.grad).all() for q in net.parameters() if q.grad is not None)


@pytest.mark.slow
def test_compiled_networks_give_the_same_and_save_the_same(tmp_path):
    net = model.RoadUNet("test_resnet", 3, 4, decoder=(8, 8)).eval()
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        plain = net(x)
    names = list(net.state_dict())
    model.tune(net, compiled=True)
    try:
        with torch.no_grad():
            assert torch.allclose(net(x), plain, atol=1e-4)
    except torch._dynamo.exc.BackendCompilerFailed as e:
        pytest.skip(f"torch.compile has no compiler here: {str(e).splitlines()[0][:80]}")
    except torch._inductor.exc.InductorError as e:
        pytest.skip(f"torch.compile has no compiler here: {str(e).splitlines()[0][:80]}")
    assert (
        list(net.state_dict()) == names
        and model.load(model.save(net, tmp_path / "m.safetensors")).spec == net.spec
    )


def losses_of_steps(device, compiled, steps=3):
    "A few training steps of a small network, as a fold's first stage takes them."
    torch.manual_seed(0)
    net = model.tune(model.RoadUNet("test_resnet", 3, 4, decoder=(8, 8)), compiled=compiled)
    net = net.to(device).train()
    fused = device.type == "cuda"
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused)
    images = torch.randint(0, 255, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    images, losses = images.to(torch.uint8).to(device), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net(net.prepare(images)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).cpu()


@pytest.mark.slow
def test_a_compiled_training_step_learns_what_the_plain_one_learns():
    if not shutil.which("c++"):
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    cpu = torch.device("cpu")
    plain = losses_of_steps(cpu, False)
    assert plain[-1] < plain[0]
    assert torch.allclose(losses_of_steps(cpu, "graphs"), plain, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_cuda_graphs_of_a_training_step_learn_what_the_plain_one_learns():
    gpu = torch.device("cuda")
    plain = losses_of_steps(gpu, False, 6)
    assert torch.allclose(losses_of_steps(gpu, "graphs", 6), plain, rtol=1e-3)


def test_headers_say_all_that_inference_needs(tmp_path):
    preset = core.load_preset(
        {
            "name": "t",
            "decoder": [8, 8],
            "data": {"gsd_m": 0.5},
            "folds": [{"encoder": "test_resnet", "bands": 8, "pretrained": False}],
        }
    )
    info = model.read_info(model.save(model.build(preset, 0), tmp_path / "m.safetensors", epoch=1))
    assert info["spec"] == dict(
        encoder="test_resnet",
        in_channels=8,
        out_channels=12,
        decoder=[8, 8],
        norm="none",
        align_corners=False,
        rgb_at=[0, 1, 2],
    )
    assert (
        model.info_channels(info) == preset.channels and len(info["mean"]) == len(info["std"]) == 8
    )
    assert (info["gsd_m"], info["stretch"], info["epoch"]) == (0.5, "chip", 1) and set(
        info["versions"]
    ) == {"spacenet5_nb", "torch", "timm"}
    assert json.loads(json.dumps(info)) == info


def test_checkpoints_of_before_there_was_a_choice_of_bands(tmp_path):
    net = model.RoadUNet("test_resnet", 3, 12, decoder=(8, 8))
    del net.spec["rgb_at"]
    assert model.load(model.save(net, tmp_path / "old.safetensors")).spec["rgb_at"] == [0, 1, 2]


def test_offline_says_what_to_do(monkeypatch):
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(CheckpointError, match="resnet10t.*no network.*pretrained: PATH"):
        model.hub_weights("resnet10t")
