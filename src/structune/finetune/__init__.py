"""Fine-tuning a pretrained model as a recipe says: the main job."""
