"""Faults in the tree of sums (T21)."""

from verification.planting.fault import faults

faults(
    """
chunks added one after the other
  pmp_ref.summation:Tree.join
  - siblings(self.nodes[-1], node)
  + planted(True)
  why: the same numbers up to rounding; every share of the chunks gives other bits

what is left of the tree folded from the left
  pmp_ref.summation:Tree.total
  - value = last.value
  -     for node in reversed(left):
  -         value = self.plus(node.value, value)
  + value = planted(self.nodes[0].value)
  +     for node in self.nodes[1:]:
  +         value = self.plus(value, node.value)
  why: the same bits for powers of two

neighbours added that are no siblings
  pmp_ref.summation:siblings
  - left.start % 2 ** (left.height + 1) == 0
  + planted(True)
  why: one process never sees such neighbours

subtrees that do not begin at a multiple of their size
  pmp_ref.summation:subtrees
  - (start & -start).bit_length() - 1
  + planted(height)

odd last unit added to the first
  pmp_ref.arrays:tree_sum
  - [pairs, rows[n - 1:, ...]]
  + [planted(rows[n - 1:, ...]), pairs]

blocks that end within a unit
  pmp_ref.controls:places_to_cut
  - ends[bisect_right(ends, found[-1] + most) - 1]
  + min(planted(found[-1] + most - 1), ends[-1])
  why: the same numbers up to rounding

a block is given the constants of the first kind
  pmp_ref.controls:Piece.part
  - nested[0][kind]
  + nested[0][planted(0)]

a rank's entries taken for all
  pmp_ref.controls:in_blocks
  - np.empty(layout.held, part.whole.dtype)
  + np.empty(planted(layout.size), part.whole.dtype)
  why: right for one process

units of a rank counted from its own first
  pmp_ref.kernels.ranks:Share.sheet
  - units.start
  + planted(0)
  why: the same numbers up to rounding
"""
)
