"""The claims, by subject, with the problems and runs that they are made on."""

# In the order of the report. To add a module of claims: copy one of these files, change it, list it here.
# A module of this list that is missing or cannot be imported is an error, never skipped.
MODULES: tuple[str, ...] = (
    "forward_maps",
    "images",
    "costates",
    "maximiser",
    "minibatch",
    "algorithm",
    "loss_reduction",
    "taylor_quotients",
    "proven_bounds",
    "proofs_of_runs",
    "augmentation_rules",
    "wished_size",
    "convergence",
    "maximum_principle",
    "certificates",
    "array_libraries",
    "summation",
    "live_part",
)
