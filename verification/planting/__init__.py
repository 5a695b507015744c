"""Faults: one table of wrong formulas (``faults_*.py``), how they are planted, and which claim catches which."""

# The parts of the table, in the order of the report.
TABLES: tuple[str, ...] = (
    "faults_stages",
    "faults_second_order",
    "faults_sweeps",
    "faults_sums",
    "faults_fast_path",
    "faults_maximiser",
    "faults_method",
    "faults_size",
    "faults_inputs",
    "faults_certificates",
    "faults_bounds",
    "faults_proofs",
    "faults_claims",
)
