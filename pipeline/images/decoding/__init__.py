"""Decodes image files to uint8 pixels."""
