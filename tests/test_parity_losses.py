"The losses against the original's own values, in float64."

import numpy as np
import pytest
import torch
from reference_cases import read_json

from spacenet5_nb.core import Channels, HeadConfig
from spacenet5_nb.losses import HeadLoss, head_slices

TABLES = {  # the original's weight tables
    "road_stage1_rgb": HeadConfig(dice=0.5, focal=2.0, bce=0.1),
    "road_stage2": HeadConfig(dice=0.5, focal=2.0),
    "speed_rgb": HeadConfig(dice=0.1, focal=2.0, bce=1.0),
    "speed_8band": HeadConfig(dice=0.12, focal=2.0),
    "junction": HeadConfig(dice=0.1, focal=1.0),
    "dice": HeadConfig(dice=1.0),
    "focal": HeadConfig(focal=1.0),
    "bce": HeadConfig(bce=1.0),
}


def inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    "Logits and targets as the reference describes them."
    logits = 2 * np.random.default_rng(seed).standard_normal((2, 12, 64, 64))
    labels = np.random.default_rng(seed + 1).integers(0, 14, (2, 64, 64))
    targets = np.zeros((2, 12, 64, 64))
    for c in range(10):
        targets[:, c] = labels == c
    targets[:, 0] = targets[:, 9] = 0
    targets[0, 9, 0, :50] = 1
    targets[:, 10] = labels < 10
    targets[:, 11] = np.random.default_rng(seed + 2).random((2, 64, 64)) < 0.03
    return torch.tensor(logits, requires_grad=True), torch.tensor(targets)


@pytest.mark.parametrize("seed", [1, 7])
def test_losses_and_gradients_equal_the_originals(reference, seed):
    stored = read_json(reference / "model/losses.json")[str(seed)]
    slices = head_slices(Channels.selim_sef())
    assert len(stored) == 14
    for name, expected in stored.items():
        table, head = name.split("|")
        logits, targets = inputs(seed)
        loss = HeadLoss(TABLES[table])(logits[:, slices[head]], targets[:, slices[head]])
        loss.backward()
        assert loss.item() == pytest.approx(expected["loss"], abs=1e-6), name
        assert logits.grad.abs().sum().item() == pytest.approx(
            expected["grad_abs_sum"], abs=1e-6
        ), name
