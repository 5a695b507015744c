"""A bar for a run of ``solve``: in a notebook, or on a terminal's stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from pmp_ref.bsqh import Callback
from pmp_ref.iterate import Iterate, Place
from pmp_ref.result import Record
from pmp_ref.stop import Stop


class Bar:
    """A bar that follows a run, ``with Bar(stop, batches, place) as bar: … callback=bar.beside(callback)``.

    It counts batches where the run ends after so many epochs, else accepted steps; beside it stand epoch, loss (the
    mean over the batch), ε and nonzero weights of the last accepted step. Leaving the block ends it.
    """

    def __init__(self, stop: Stop, batches: int, place: Place) -> None:
        from tqdm.auto import tqdm  # not above: only who asks for a bar pays for it

        self.batches = batches
        self.by_batch = stop.epochs is not None and stop.steps is None
        total = stop.epochs * batches if self.by_batch and stop.epochs is not None else stop.steps
        unit = "batch" if self.by_batch else "step"
        self.bar: Any = tqdm(total=total, initial=self.done(place), unit=unit, dynamic_ncols=True)

    def done(self, place: Place) -> int:
        """How far the run is, in the unit of the bar."""
        return place.epoch * self.batches + place.position if self.by_batch else place.step

    def __call__(self, it: Iterate, record: Record) -> None:
        if record.accepted:
            kept = f"{record.nonzeros:,} weights"
            text = f"epoch {it.epoch}, loss {record.loss:.4g}, ε {record.eps:.3g}, {kept}"
            self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(self.done(it.place) - self.bar.n)

    def beside(self, callback: Callback | None) -> Callback:
        """Both: the bar, then the callback, whose value counts."""

        def both(it: Iterate, record: Record) -> object:
            self(it, record)
            return None if callback is None else callback(it, record)

        return both

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()
