"""Augmentation of training images by albumentations."""
