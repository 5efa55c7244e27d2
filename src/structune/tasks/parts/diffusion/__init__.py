"""Pipelines of diffusers: images and captions, noise, what denoisers are told, samples."""
