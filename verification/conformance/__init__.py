"""Conformance vectors for bSQH implementations in other languages and libraries; see ``docs/conformance.md``.

``python -m verification.conformance export DIR`` writes the cases, ``… check DIR`` compares another program's files
with the reference and says where they first depart, in the order in which the algorithm computes.
"""
