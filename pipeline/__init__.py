"""Cross-validated multi-label image classification: from a CSV and a folder of images to a submission."""
