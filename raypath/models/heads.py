"""What stands on an encoder while it is trained, and is thrown away or kept by name.

One decision: a head knows widths and nothing of data or losses.
"""

from torch import Tensor, nn


class Projector(nn.Module):
    """The SimCLR projector: linear, batch norm, ReLU, linear, batch norm without shift [B, D] -> [B, out_width].

    Source: AndrewAtanov/simclr-pytorch@85e5d547 (RECIPES 1.3): 2048-2048 (no bias), BN, ReLU, 128 (no bias), BN (no beta).
    """

    def __init__(self, width: int, hidden_width: int, out_width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden_width, bias=False),
            nn.BatchNorm1d(hidden_width),
            nn.ReLU(),
            nn.Linear(hidden_width, out_width, bias=False),
            nn.BatchNorm1d(out_width),
        )
        self.layers[-1].bias.requires_grad_(False)  # "no beta": it starts at 0 and stays there

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, out_width], not normalised."""
        return self.layers(features)


class LinearHead(nn.Module):
    """Drop-out and one linear layer [B, D] -> [B, num_classes]."""

    def __init__(self, width: int, num_classes: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, num_classes]."""
        return self.linear(self.dropout(features))
