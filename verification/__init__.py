"""Numerical verification of the theory of bSQH on this implementation; run ``python -m verification``.

The rooms, each with one thing in it:

* ``claims`` what the theory says, checked on drawn problems;
* ``planting`` faults that the claims must catch, the kill matrix, and mutations drawn at random;
* ``experiments``, ``performance``, ``gpu`` what was measured, and how to measure it again;
* ``hardening`` hostile files, killed processes, packages; ``conformance`` vectors for programs in other languages;
* ``cuda_on_cpu`` a tool, not a check: CuPy and its CUDA kernels on a machine without a GPU.

Beside them the second programs, ``plain.py`` (the method once more), ``oracles.py`` (its parts by other means) and
``second_program.py`` (networks over other numbers), with which ``check_proof.py`` checks the proof of a run, and what
runs the claims: ``claim.py`` their contract, ``runner.py``, ``coverage.py``, ``report.py``, ``html.py``.
"""
