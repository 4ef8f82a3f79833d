"""Experiments as Bazel tests: a regression that a gate bounds fails the build."""

def nibble_experiment_test(name, config, data = [], arguments = [], expected_status = 0, **kwargs):
    """Runs `config` and compares the exit status of `nibble run`.

    Args:
      name: of the test.
      config: label of an experiment's textproto.
      data: other files that it reads.
      arguments: more arguments of `nibble run`, such as "--set", "threads=1".
      expected_status: 0 when every gate must pass; 1 to test that one fails.
      **kwargs: passed on to sh_test.
    """
    native.sh_test(
        name = name,
        srcs = ["//experiments:experiment_test.sh"],
        args = [str(expected_status), "$(location //tools:nibble)", "$(location %s)" % config] + arguments,
        data = [config, "//tools:nibble"] + data,
        **kwargs
    )
