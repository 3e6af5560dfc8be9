"""A classifier on an encoder: what is trained, at which rates, and how it is counted."""

import math

import pytest
import torch
from torch import nn

from bt_multimodal.training.classification import Classification, Classifier, decay, top_k


class Encoder(nn.Module):
    features_dim = 4

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    def forward(self, view):
        return self.layers(view)


def test_a_frozen_encoder_stays_as_it_is():
    classifier = Classifier(Encoder(), 5).train()
    assert classifier.head.training
    assert not any(module.training for module in classifier.encoder.modules())
    before = {name: value.clone() for name, value in classifier.encoder.state_dict().items()}
    logits = classifier(torch.randn(8, 3))
    assert logits.shape == (8, 5)
    logits.sum().backward()
    assert all(p.grad is None for p in classifier.encoder.parameters())
    assert all(torch.equal(before[name], value) for name, value in classifier.encoder.state_dict().items())


def test_a_trained_encoder_is_in_training_mode():
    # As load_encoder gives it, and as Lightning leaves it.
    moving = Classifier(Encoder().eval(), 5, frozen=False)
    moving(torch.randn(8, 3)).sum().backward()
    assert all(p.grad is not None for p in moving.encoder.parameters())
    assert not torch.equal(moving.encoder.layers[1].running_mean, torch.zeros(4))


def test_the_head_starts_as_the_references():
    torch.manual_seed(0)
    encoder = Encoder()
    encoder.features_dim = 2048
    head = Classifier(encoder, 100).head
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()


def test_top_k_by_hand():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.0, -1.0], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    assert top_k(logits, torch.tensor([1, 1]), 1).tolist() == [True, False]
    assert top_k(logits, torch.tensor([4, 5]), 5).tolist() == [True, False]
    assert top_k(logits[:, :3], torch.tensor([0, 2]), 5).tolist() == [True, True]


def test_learning_rates_by_epoch():
    cosine = decay(100, [], 0.1)
    assert [cosine(e) for e in (0, 50)] == pytest.approx([1, 0.5])
    assert cosine(99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    few = decay(20, [12, 16], 0.2)
    assert [few(e) for e in (0, 11, 12, 15, 16, 19)] == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])
    with pytest.warns(UserWarning, match=r"the run ends after 14 epochs, before the milestones \[16\]"):
        short = decay(14, [12, 16], 0.2)
    assert [short(e) for e in (11, 12, 13)] == pytest.approx([1, 0.2, 0.2])
    with pytest.raises(ValueError, match="milestones must be 1 or more"):
        decay(14, [0], 0.2)


@pytest.mark.parametrize(("encoder_lr", "rates"), [(0.0, [0.6]), (0.01, [0.6, 0.02])])
def test_each_part_has_its_rate(encoder_lr, rates):
    model = Classification(None, Encoder(), ["a", "b"], encoder_lr=encoder_lr, weight_decay=1e-6)

    class Trainer:
        class datamodule:  # noqa: N801 (Lightning's name)
            batch_size = 512

        max_epochs = 3

    model._trainer = Trainer
    optimizer = model.configure_optimizers()["optimizer"]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)
    assert {(g["momentum"], g["weight_decay"]) for g in optimizer.param_groups} == {(0.9, 1e-6)}
    trained = sum(len(group["params"]) for group in optimizer.param_groups)
    assert trained == (2 if encoder_lr == 0 else 6)
