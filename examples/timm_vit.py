"""A vision transformer of timm with adapters on its attention and MLP, and its head trained in full."""

import timm
import torch
from peft import PeftModel, get_peft_model

import structune


def base_model() -> torch.nn.Module:
    """A small random ViT; in earnest, `timm.create_model(name, pretrained=True, num_classes=…)`."""
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, depth=2, num_classes=2)


config = structune.c3a(block_size=24, target_modules=["attn.qkv", "attn.proj", "fc1", "fc2"], modules_to_save=["head"])
model = get_peft_model(base_model(), config)

# Two kinds of pictures: bright on the left, bright on the right.
labels = torch.arange(64) % 2
pictures = torch.randn(64, 3, 32, 32)
pictures[labels == 0, :, :, :16] += 1
pictures[labels == 1, :, :, 16:] += 1

optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.001)
losses = []
for _ in range(15):
    loss = torch.nn.functional.cross_entropy(model(pictures), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())

model.eval().save_pretrained("adapter")
again = PeftModel.from_pretrained(base_model(), "adapter").eval()
merged = PeftModel.from_pretrained(base_model(), "adapter").eval().merge_and_unload()

print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
