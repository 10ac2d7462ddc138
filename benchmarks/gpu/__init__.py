"""Benchmarks of the CUDA backend on a GPU; ``run.py`` runs them, ``report.py`` writes docs/measured/gpu.md."""
