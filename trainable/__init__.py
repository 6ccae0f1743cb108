"""One training run of a point-supervised segmenter."""
