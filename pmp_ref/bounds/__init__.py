"""Proven bounds of the curvature: coarse and global (T7), on a ball (T7a), along a segment (T7b).

:func:`global_constant`, :func:`ball_bound` with :func:`certified_eps`, and :func:`certify_step`. The first two are
bounds by formula, computed in floating point with a factor for its rounding; the third is an enclosure by ball
arithmetic with outward rounding, and what it assumes of the arithmetic is stated in :mod:`pmp_ref.bounds.intervals`.
"""

from pmp_ref.bounds.ball import BallBound, ball_bound, certified_eps
from pmp_ref.bounds.coarse import global_constant, radii_around, radii_of_box
from pmp_ref.bounds.step import Interval, StepCertificate, certify_step

__all__ = [
    "BallBound",
    "Interval",
    "StepCertificate",
    "ball_bound",
    "certified_eps",
    "certify_step",
    "global_constant",
    "radii_around",
    "radii_of_box",
]
