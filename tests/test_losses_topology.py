"""Losses on logits of any type, continuous speed and directions, topology losses in heads,
persistence against slow routes and finite differences."""

import gudhi
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from spacenet5_nb import losses, topology
from spacenet5_nb.core import Channels, CheckpointError, load_preset
from spacenet5_nb.losses import (
    ComboLoss,
    HeadLoss,
    channel_terms,
    dice_loss,
    focal_loss,
    soft_terms,
)


def drawn(shape: tuple, share: float = 0.2, seed: int = 0) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share).float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [1.0, 60.0, 30000.0])
def test_losses_are_finite_on_logits_of_any_type_and_size(dtype, size):
    targets = drawn((2, 12, 24, 24))
    logits = (size * torch.randn(2, 12, 24, 24).clamp(-2, 2)).to(dtype).requires_grad_()
    table = {"dice": 0.5, "focal": 2, "bce": 0.1, "cldice": 0.5, "persistence": 1e-3, "mse": 1}
    loss = ComboLoss({"road": table, "speed": table, "junction": table})(logits, targets)
    loss.backward()
    assert (
        torch.isfinite(loss) and torch.isfinite(logits.grad).all() and loss.dtype == torch.float32
    )


def test_bf16_logits_lose_only_their_own_rounding():
    logits, targets = 3 * torch.randn(2, 3, 40, 40), drawn((2, 3, 40, 40))
    rough = logits.to(torch.bfloat16)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            channel_terms(rough, targets).values(),
            channel_terms(rough.float(), targets).values(),
            strict=True,
        )
    )


def test_a_channel_with_too_few_pixels_gives_no_dice():
    targets = torch.zeros(2, 2, 32, 32)
    targets[0, 0, 0, :] = 1
    targets[1, 0, :2, :32] = 1
    targets[0, 1, :3] = 1
    targets[0, 1, 3, :4] = 1  # 96 and 100 pixels
    dice = channel_terms(torch.zeros(2, 2, 32, 32), targets)["dice"]
    assert dice[0] == 0 < dice[1]


def test_dice_per_image_is_the_mean_of_single_images():
    logits, targets = torch.randn(3, 16, 16), drawn((3, 16, 16))
    assert torch.isclose(
        dice_loss(logits, targets, per_image=True),
        torch.stack(
            [dice_loss(a[None], b[None]) for a, b in zip(logits, targets, strict=True)]
        ).mean(),
    )
    assert not torch.isclose(dice_loss(logits, targets, per_image=True), dice_loss(logits, targets))


def test_a_continuous_speed_is_learnt():
    channels = Channels.of_speed(65)
    speed = torch.zeros(1, 1, 24, 24)
    speed[..., 8:13, :] = 0.385
    speed[..., 15:20, :] = 0.9  # 25 and 58.5 mph
    targets = torch.cat([speed, (speed > 0).float(), torch.zeros_like(speed)], 1)
    x = torch.zeros(1, 3, 24, 24, requires_grad=True)
    loss, optimizer = (
        ComboLoss({"speed": {"dice": 0.1, "focal": 2, "bce": 1}}, channels=channels),
        torch.optim.Adam([x], lr=0.3),
    )
    for _ in range(150):
        optimizer.zero_grad()
        loss(x, targets).backward()
        optimizer.step()
    mph = 65 * x.sigmoid()[0, 0]
    assert (
        abs(mph[8:13].mean() - 25) < 1 and abs(mph[15:20].mean() - 58.5) < 1 and mph[:6].max() < 5
    )
    assert set(loss.parts) == {"speed", "road", "junction"}


def test_soft_terms_are_the_hard_ones_for_hard_targets():
    x, t = torch.randn(2, 3, 20, 20, dtype=torch.float64), drawn((2, 3, 20, 20)).double()
    soft, hard = soft_terms(x, t), channel_terms(x, t)
    assert torch.allclose(soft["focal"], hard["focal"]) and torch.allclose(soft["bce"], hard["bce"])
    assert torch.isclose(soft["focal"].mean(), focal_loss(x, t))


def test_directions_are_a_head():
    channels = Channels.bins((20, 40), orientations=4)
    targets = drawn((2, len(channels), 32, 32))
    loss = ComboLoss({"orientation": {"focal": 3}}, channels=channels)
    loss(torch.zeros(2, len(channels), 32, 32), targets)
    assert torch.isclose(
        loss.parts["orientation"], 3 * focal_loss(torch.zeros(2, 4, 32, 32), targets[:, -4:])
    )


def test_presets_turn_topology_on():
    preset = load_preset(
        {
            "name": "t",
            "folds": [{"encoder": "test_resnet", "pretrained": False}],
            "loss": {
                "road": {"focal": 2, "persistence": 1e-3, "perceptual": 0.1, "cldice": 0.2},
                "vgg": False,
            },
        }
    )
    loss = ComboLoss(preset.loss)
    logits, targets = torch.randn(2, 12, 32, 32, requires_grad=True), drawn((2, 12, 32, 32))
    loss(logits, targets).backward()
    road, t = logits[:, 10:11].detach(), targets[:, 10:11]
    by_hand = (
        2 * focal_loss(road, t)
        + 1e-3 * topology.persistence_loss(road, t)
        + 0.2 * topology.cldice_loss(road, t)
        + 0.1 * topology.perceptual_loss(road, t, features=topology.Vgg19(False))
    )
    assert torch.isclose(loss.parts["road"], by_hand) and logits.grad[:, 10].abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters()), "what VGG19 knows is not trained"
    assert not any(m.training for m in loss.train().heads["road"].vgg.modules()), (
        "and stays in evaluation mode"
    )


def test_vgg_without_weights_is_an_error_at_the_start(tmp_path):
    with pytest.raises(CheckpointError, match=r"loss.vgg, .*take `perceptual` out"):
        ComboLoss({"road": {"perceptual": 1}, "vgg": str(tmp_path)})


def test_vgg_weights_come_from_a_file_and_hide_no_colours(tmp_path):
    import timm

    learned = timm.create_model("vgg19", num_classes=0, global_pool="")
    torch.save(
        {k: v for k, v in learned.state_dict().items() if k.startswith("features")},
        tmp_path / "vgg19.pth",
    )
    with torch.random.fork_rng():
        vgg = topology.Vgg19(str(tmp_path))
    x = torch.rand(1, 1, 48, 40)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        y, layers, expected = (
            (x.expand(-1, 3, -1, -1) - mean) / std,
            list(learned.eval().features),
            [],
        )
        for layer in layers[:18]:  # conv1_1 to ReLU 3_4
            y = layer(y)
            if isinstance(layer, torch.nn.ReLU):
                expected.append(y.clone())
        seen = vgg(x)
    for k, border, (a, b) in zip(
        (1, 3, 7), (2, 3, 5), zip(seen, [expected[i] for i in (1, 3, 7)], strict=True), strict=True
    ):
        inside = np.s_[..., border:-border, border:-border]
        assert torch.allclose(a[inside], b[inside], atol=1e-4), k


def by_cofaces(image: np.ndarray) -> list[set]:
    "Pairs of pixels by gudhi's general complex and its cofaces."
    rank = np.empty(image.size)
    rank[np.argsort(image, axis=None)] = np.arange(image.size)
    cubes = gudhi.CubicalComplex(top_dimensional_cells=rank.reshape(image.shape))
    cubes.compute_persistence(min_persistence=0.0)
    mortal, immortal = cubes.cofaces_of_persistence_pairs()
    place = np.arange(image.size).reshape(image.shape).ravel(order="F")
    sets = [{tuple(place[pair]) for pair in (mortal[k] if k < len(mortal) else [])} for k in (0, 1)]
    sets[0] |= {(place[birth], -1) for birth in immortal[0]}
    return sets


@pytest.mark.parametrize(
    "shape", [(1, 9), (9, 1), (1, 1), (2, 2), (2, 7), (3, 3), (17, 5), (40, 33)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_pairs_equal_the_slow_cofaces_route(shape, ties):
    rng = np.random.default_rng(sum(shape))
    image = (
        rng.integers(0, 4, shape).astype(np.float32)
        if ties
        else rng.standard_normal(shape).astype(np.float32)
    )
    assert [{tuple(p) for p in pairs} for pairs in topology.persistence_pairs(image)] == by_cofaces(
        image
    )


def test_without_gudhis_private_function_the_general_complex_does_the_same(monkeypatch):
    image = np.random.default_rng(1).standard_normal((20, 23))
    assert topology._rectangle is not None, (
        "gudhi has moved its fast function: persistence_loss is 40 times slower now"
    )
    fast = [set(map(tuple, p)) for p in topology.persistence_pairs(image)]
    monkeypatch.setattr(topology, "_rectangle", None)
    assert [set(map(tuple, p)) for p in topology.persistence_pairs(image)] == fast


@pytest.mark.parametrize("seed", range(3))
def test_persistence_gradient_against_finite_differences(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 2, 7, 9, generator=g, dtype=torch.float64, requires_grad=True)
    t = drawn((2, 2, 7, 9), 0.5, seed).double()
    assert torch.autograd.gradcheck(
        lambda x: topology.persistence_loss(x, t), (x,), eps=1e-7, atol=1e-5
    )


def test_persistence_counts_pieces_and_loops():
    truth = torch.zeros(1, 1, 40, 40)
    truth[..., 5:30, 5:30] = 1
    truth[..., 10:25, 10:25] = 0  # one piece, one loop
    broken = truth.clone()
    broken[..., 15:18, 5:10] = 0
    two = truth.clone()
    two[..., 34:38, 34:38] = 1
    loss = lambda x: topology.persistence_loss(20 * x - 10, truth).item()
    assert loss(truth) < 1e-6
    assert loss(broken) == pytest.approx(1, abs=0.01), (
        "the loop that is missing, from 0 to full life"
    )
    assert loss(two) == pytest.approx(0.5, abs=0.01), (
        "the piece too many, half the square of its life"
    )


def test_threads_change_nothing():
    x, t = torch.randn(3, 2, 30, 30), drawn((3, 2, 30, 30))
    assert torch.equal(
        topology.persistence_loss(x, t, threads=1), topology.persistence_loss(x, t, threads=3)
    )
    each = [
        topology.persistence_loss(x[i : i + 1, j : j + 1], t[i : i + 1, j : j + 1])
        for i in range(3)
        for j in range(2)
    ]
    assert torch.isclose(topology.persistence_loss(x, t), torch.stack(each).mean())


@pytest.mark.parametrize("name,weight", [("cldice", 1.0), ("persistence", 0.02)])
def test_a_gap_closes_that_cross_entropy_leaves_open(name, weight):
    truth = torch.zeros(1, 1, 48, 48)
    truth[..., 15:24, :] = 1
    seen = torch.full((1, 1, 48, 48), 0.06)
    seen[..., 18:27, :] = 0.85
    seen[..., 18:27, 12:16] = 0.3  # labels lie three pixels beside the road
    found = {}
    for weighed in (0.0, weight):
        head, x = HeadLoss({"bce": 1, name: weighed}), torch.logit(seen).requires_grad_()
        for _ in range(7):
            (g,) = torch.autograd.grad(head(x, truth), x)
            x = (x - 2 * g / g.norm()).detach().requires_grad_()
        found[weighed] = x.sigmoid()[0, 0, 15:27, 12:16].max(0).values.min().item()
    assert found[0.0] < 0.5 < found[weight]


def test_names_of_before_still_work():
    assert (
        losses.cldice_loss is topology.cldice_loss
        and losses.soft_skeleton is topology.soft_skeleton
    )
    x = F.one_hot(torch.tensor([1, 0])).float().view(1, 1, 2, 2)
    assert torch.isfinite(topology.persistence_loss(x, x))
