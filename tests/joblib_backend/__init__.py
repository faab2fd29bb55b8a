"""joblib's own tests of its backends, with ours in the place of loky: ``python -m tests.joblib_backend``."""
