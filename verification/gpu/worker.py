"""A process that answers questions, one on each line of its input; whatever touches the device is done here."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from typing import Any


def answer(question: dict[str, Any]) -> Any:
    """The answer to one question."""
    from verification.gpu import measure, profiling, smoke
    from verification.gpu.plan import Row

    do, backend, device = question["do"], question["backend"], question["device"]
    if do == "about":
        return smoke.about(backend, device)
    if do == "smoke":
        return smoke.smoke(backend)
    if do == "start":
        return measure.start(question["side"], backend, device)
    if do == "turn":
        return measure.turn(question["repeats"])
    row = Row(**{**question["row"], "sides": tuple(question["row"]["sides"])})
    if do == "prepare":
        return measure.prepare(row, backend, device)
    if do == "profile":
        return profiling.profile(row, backend, device)
    if do == "warm":
        return measure.warm(row, backend, device)
    raise ValueError(f"unknown question {do!r}")


def main() -> None:
    """Answer until the input ends. What libraries print goes to the error stream, not among the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if len(sys.argv) > 1 and int(sys.argv[1]):
        os.nice(int(sys.argv[1]))
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            result = {"answer": answer(json.loads(line))}
        except Exception as error:
            from verification.gpu.measure import first_line

            traceback.print_exc()
            result = {"error": first_line(error)}
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
