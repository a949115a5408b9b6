"""Image files to batches of uint8 tensors: decode, fit, cache, augment, load."""
