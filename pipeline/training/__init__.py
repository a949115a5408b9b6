"""From a fold's images to weights and out-of-fold logits: losses, optimizer, the loop, one fold."""
