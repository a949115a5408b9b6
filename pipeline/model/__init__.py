"""The network: a timm backbone, Query2Label on top of it, and what goes in and out of weight files."""
