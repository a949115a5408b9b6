"""The image cache: decoded images in one file per form, written once and memory-mapped."""
