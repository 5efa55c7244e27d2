"""Small random pipelines of diffusers: of each architecture one, from no hub."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
SHARED = {"block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8, "norm_num_groups": 4}
BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab={word: n for n, word in enumerate(VOCABULARY)}, merges=[], model_max_length=12)


def clip(model: type = CLIPTextModel) -> nn.Module:
    torch.manual_seed(0)
    size = len(VOCABULARY)
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    layers = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return model(
        CLIPTextConfig(vocab_size=size, projection_dim=32, max_position_embeddings=12, **layers, **ends)
    ).eval()


def autoencoder(**options: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**{"block_out_channels": (8,), "latent_channels": 4, "norm_num_groups": 4, **options}).eval()


def stable_diffusion() -> DiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SHARED, **BLOCKS, cross_attention_dim=32).eval()
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=clip(),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> DiffusionPipeline:
    torch.manual_seed(0)
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    unet = UNet2DConditionModel(
        **SHARED, **BLOCKS, **added, cross_attention_dim=64, projection_class_embeddings_input_dim=80
    ).eval()
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=clip(),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def flux() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    ).eval()
    t5 = T5EncoderModel(T5Config(vocab_size=len(VOCABULARY), d_model=32, d_kv=8, d_ff=24, num_layers=1, num_heads=4))
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06, "scaling_factor": 1.5}
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(latent_channels=1, block_out_channels=(4,), norm_num_groups=1, **plain),
        text_encoder=clip(),
        tokenizer=tokenizer(),
        text_encoder_2=t5.eval(),
        tokenizer_2=tokenizer(),
        transformer=transformer,
    )


def stable_diffusion_3() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4,
        pos_embed_max_size=16,
    ).eval()  # fmt: skip
    t5 = T5EncoderModel(T5Config(vocab_size=len(VOCABULARY), d_model=64, d_kv=8, d_ff=24, num_layers=1, num_heads=4))
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06, "scaling_factor": 1.5}
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(**plain),
        text_encoder=clip(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5.eval(),
        tokenizer_3=tokenizer(),
    )
