"""Made-up results of runs, as the cells of a map have them."""


def run_result(valid: float, test: float | None = None, seconds: float | None = 0.01, mode: str = "max") -> dict:
    """The content of a ``result.json``; the test score is the validation score unless given."""
    return {"split": "test", "criterion": "score", "mode": mode, "best_valid": valid, "baseline": {"score": 0.1},
            "scores": {"score": valid if test is None else test}, "parameters": 100,
            "seconds_per_batch": seconds}  # fmt: skip
