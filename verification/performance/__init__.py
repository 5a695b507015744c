"""Benchmarks of the fast sweep against PyTorch, side by side in one run: ``python -m verification.performance``."""
