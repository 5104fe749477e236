"""Models that come with the package: each a folder that ``PRSR.from_pretrained`` reads."""
