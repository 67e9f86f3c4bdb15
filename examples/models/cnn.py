"""A convolutional network for 8x8 grey images of digits."""

from __future__ import annotations

from lohe import nn


class DigitsCNN(nn.Module):
    """Images (batch, 1, 8, 8) with values 0 to 1, to logits (batch, 10)."""

    def __init__(self, channels: int = 32, dropout: float = 0.25) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * channels * 2 * 2, 10)

    def forward(self, images):
        return self.classify(self.dropout(self.features(images).flatten(1)))
