"""Numerical verification of the theory of bSQH on this implementation; run ``python -m verification``.

``claim.py`` holds the contract of a claim, ``controls.py`` the planted faults that claims must catch.
"""

# Modules of claims, in the order of the report. To add a claim: copy one of these files, change it, list it here.
# A module of this list that is missing or cannot be imported is an error, never skipped.
MODULES: tuple[str, ...] = (
    "forward_maps",
    "costates",
    "maximiser",
    "minibatch",
    "method",
    "loss_reduction",
    "proven_bounds",
    "proofs_of_runs",
    "augmentation",
    "convergence",
    "maximum_principle",
    "certificates",
    "backends",
)
