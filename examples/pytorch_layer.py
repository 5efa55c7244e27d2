"""Plain PyTorch, no PEFT: a frozen layer with a structured update beside it, trained, saved, loaded, merged."""

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from structune import StructuredDelta


class AdaptedLinear(nn.Module):
    """A frozen linear layer and its update: y = W x + b + ΔW x."""

    def __init__(self, linear: nn.Linear, block_size: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.delta = StructuredDelta(linear.out_features, linear.in_features, block_size=block_size)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        return self.linear(x) + self.delta(x)


torch.manual_seed(0)
layer = AdaptedLinear(nn.Linear(48, 64), block_size=16)

# A task that a circulant update can learn: the frozen layer, its inputs moved on by one place.
inputs = torch.randn(512, 48)
targets = layer.linear(inputs) + torch.cat([inputs.roll(1, dims=1), torch.zeros(512, 16)], dim=1)

optimizer = torch.optim.AdamW(layer.delta.parameters(), lr=0.05, weight_decay=0)
losses = []
for _ in range(100):
    loss = nn.functional.mse_loss(layer(inputs), targets)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())

save_file(layer.delta.state_dict(), "delta.safetensors")
again = AdaptedLinear(layer.linear, block_size=16)
again.delta.load_state_dict(load_file("delta.safetensors"))

with torch.no_grad():
    merged = nn.Linear(48, 64)
    merged.weight.copy_(layer.linear.weight + layer.delta.dense())
    merged.bias.copy_(layer.linear.bias)

print(f"{layer.delta.num_trainable} numbers trained, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
