"""Weights of every origin: names and layouts of timm, torchvision, MindCV and the authors' TensorFlow code."""
