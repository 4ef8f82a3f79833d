"""Experiments as Bazel targets: `bazel run` one, `bazel test` its gates."""

def nibble_experiment(name, config, data = [], arguments = [], **kwargs):
    """`bazel run :NAME` runs the experiment; `bazel test :NAME_gate` holds its gates.

    The run writes to out/NAME below the working directory, and a second one does what is
    missing; `bazel run :NAME -- --only w4` passes arguments on. The test runs the experiment
    by itself, fails where a gate does, and gives Bazel a JUnit case for each.

    Args:
      name: of the run.
      config: label of an experiment's textproto.
      data: other files that it reads.
      arguments: of `nibble run`, such as "--set", "threads=1".
      **kwargs: passed on to the test: size, timeout, tags.
    """
    native.sh_binary(
        name = name,
        srcs = ["//experiments:run_experiment.sh"],
        args = ["$(location //tools:nibble)", "$(location %s)" % config, name] + arguments,
        data = [config, "//tools:nibble"] + data,
    )
    nibble_experiment_test(name = name + "_gate", config = config, data = data, arguments = arguments, **kwargs)

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
