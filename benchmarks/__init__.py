"""Measurements of diffgame beside other software; run one as `python -m benchmarks.NAME`."""
