"""A diffusion model: adapters on the UNet, trained, mixed by weight, saved, loaded, merged, and used in a pipeline."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

import structune

WORDS = 20


def pipeline() -> StableDiffusionPipeline:
    """Stable Diffusion's parts, small and random; in earnest, `from_pretrained`."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
    text = CLIPTextConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=None,  # prompts come as embeddings below
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image(pipe: StableDiffusionPipeline, prompt: Tensor) -> Tensor:
    """A picture, (8, 8, 3) in [0, 1], from the same noise each time."""
    generator = torch.Generator().manual_seed(3)
    embedded = pipe.text_encoder(prompt).last_hidden_state
    result = pipe(
        prompt_embeds=embedded,
        negative_prompt_embeds=torch.zeros_like(embedded),
        num_inference_steps=4,
        generator=generator,
        output_type="pt",
    )
    return result.images[0]


pipe = pipeline()
prompt = torch.tensor([[1, 7, 3, 2]])
plain = image(pipe, prompt)

# Two adapters on the UNet: circulant blocks on attention and convolutions, and a small pool on attention.
attention = ["to_q", "to_k", "to_v", "to_out.0"]
pipe.unet.add_adapter(structune.c3a(block_size=8, target_modules=[*attention, "conv1", "conv2"]), "style")
pooled = structune.hydra("toeplitz", num_splits=2, pool_size=32, target_modules=attention, init_weights=False)
pipe.unet.add_adapter(pooled, "subject")

# Training as in any diffusion script: predict the noise in noisy latents. Here the pictures are all the same one.
pipe.unet.set_adapter("style")
optimizer = torch.optim.AdamW([p for p in pipe.unet.parameters() if p.requires_grad], lr=0.02)
condition = pipe.text_encoder(prompt).last_hidden_state.detach().expand(16, -1, -1)
latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5)).expand(16, -1, -1, -1)
losses = []
for _ in range(60):
    noise, steps = torch.randn_like(latents), torch.randint(0, 1000, (16,))
    noisy = pipe.scheduler.add_noise(latents, noise, steps)
    loss = torch.nn.functional.mse_loss(pipe.unet(noisy, steps, condition).sample, noise)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())

with_style = image(pipe, prompt)
pipe.unet.set_adapters(["style", "subject"], [0.5, 0.8])  # both, each at its weight
mixed = image(pipe, prompt)
pipe.unet.disable_adapters()
off = image(pipe, prompt)
pipe.unet.enable_adapters()

structune.save_adapter(pipe.unet, "style", "style")
again = pipeline()
structune.load_adapter(again.unet, "style", "style")
reloaded = image(again, prompt)

again.unet.fuse_lora()  # diffusers' name for merging, whatever the method
fused = image(again, prompt)
again.unet.unfuse_lora()
again.unet.delete_adapters("style")

print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
