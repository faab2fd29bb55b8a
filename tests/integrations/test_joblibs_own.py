"""joblib's own tests of its backends pass with ours in the place of loky: some of each kind."""


def test_joblibs_tests_of_its_backends_pass(run_tests_of_others):
    run_tests_of_others("joblib_backend")
