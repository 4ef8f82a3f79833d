"""Experiments as Bazel targets: `bazel run` one, `bazel test` its gates, an action for each job."""

def _slug(name):
    """A variant's name in file names, as experiments/gather.cc spells it."""
    return "".join([c if c.isalnum() or c in ".-=" else "_" for c in name.elems()])

def _action(ctx, task, inputs, outputs, arguments):
    ctx.actions.run(
        mnemonic = "NibbleJob",
        progress_message = "%s: %s" % (ctx.label.name, task),
        executable = ctx.executable._nibble,
        arguments = arguments,
        inputs = inputs,
        outputs = outputs,
        use_default_shell_env = True,
    )

def _job(ctx, task, job, report, stores, inputs, outputs = []):
    """Does a job. One that fails or is killed leaves a report that says why, so that the run's report has the reason."""
    arguments = ["job", job.path, "--report", report.path, "--alone", "--supervise"]
    for store in stores:
        arguments += ["--store", store.path]
    _action(ctx, task, [job] + inputs, [report] + outputs, arguments)

def _folder(ctx):
    return ctx.label.name + ".jobs/"

def _declare(ctx, name):
    return ctx.actions.declare_file(_folder(ctx) + name)

def _results_impl(ctx):
    data = ctx.files.data

    plan = _declare(ctx, "plan.json")
    builds = {v: _declare(ctx, _slug(v) + ".build.textproto") for v in ctx.attr.variants}
    measurements = {(v, i): _declare(ctx, "%s.%d.textproto" % (_slug(v), i)) for v in ctx.attr.variants for i in range(ctx.attr.metrics)}
    arguments = ["plan", ctx.file.config.path, "--out", plan.dirname, "--metrics", str(ctx.attr.metrics)]
    for variant in ctx.attr.variants:
        arguments += ["--variant", variant]
    arguments += ctx.attr.arguments
    _action(ctx, "planning", [ctx.file.config] + data, [plan] + builds.values() + measurements.values(), arguments)

    stores, reports = {}, []
    for variant in ctx.attr.variants:
        stores[variant] = ctx.actions.declare_directory(_folder(ctx) + _slug(variant) + ".model")
        report = _declare(ctx, _slug(variant) + ".build.json")
        _job(ctx, variant, builds[variant], report, [stores[variant]], data, [stores[variant]])
        reports.append(report)

    baseline = ctx.attr.variants[0]
    for (variant, i), job in measurements.items():
        report = _declare(ctx, "%s.%d.json" % (_slug(variant), i))
        models = [stores[v] for v in ([variant] if variant == baseline else [variant, baseline])]
        _job(ctx, "%s, metric %d" % (variant, i), job, report, models, models + data)
        reports.append(report)

    out = ctx.actions.declare_directory(ctx.label.name)
    _action(ctx, "report", [plan] + reports, [out], ["gather", plan.dirname, "--out", out.path])
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

nibble_results = rule(
    doc = """The folder of a run, report included, each of whose jobs is an action of its own.

Bazel caches each, those that failed too (docs/ci.md): a changed variant is built and measured
again, the others are not. With remote execution the jobs spread over its machines. Jobs on one
machine take turns, because each uses all of its CPUs.""",
    implementation = _results_impl,
    attrs = {
        "config": attr.label(mandatory = True, allow_single_file = [".textproto"], doc = "The experiment."),
        "data": attr.label_list(allow_files = True, doc = "Other files that it reads: models, texts, included pipelines."),
        "variants": attr.string_list(mandatory = True, doc = "Names of all its variants, the baseline first."),
        "metrics": attr.int(mandatory = True, doc = "How many metrics it has."),
        "arguments": attr.string_list(doc = "Of `nibble plan`, such as \"--set\", \"threads=1\"."),
        "_nibble": attr.label(default = "//tools:nibble", executable = True, cfg = "target"),
    },
)

def _file_name(label):
    return label.split(":")[-1].split("/")[-1]

def nibble_experiment(name, config, data = [], arguments = [], jobs = {}, **kwargs):
    """`bazel run :NAME` runs the experiment; `bazel test :NAME_gate` holds its gates.

    The run writes to out/NAME below the working directory, and a second one does what is
    missing; `bazel run :NAME -- --only w4` passes arguments on. The test fails where a gate
    does, and gives Bazel a JUnit case for each.

    With `jobs` the test holds the gates against :NAME_results, the run's folder made by an
    action for each job (nibble_results above); without them the test runs the experiment by
    itself.

    Args:
      name: of the run.
      config: label of an experiment's textproto.
      data: other files that it reads.
      arguments: of `nibble run`, such as "--set", "threads=1".
      jobs: JOBS of a .bzl file that `nibble plan --starlark` wrote of the config, among others.
      **kwargs: passed on to the test: size, timeout, tags.
    """
    native.sh_binary(
        name = name,
        srcs = ["//experiments:run_experiment.sh"],
        args = ["$(location //tools:nibble)", "$(location %s)" % config, name] + arguments,
        data = [config, "//tools:nibble"] + data,
    )
    if not jobs:
        nibble_experiment_test(name = name + "_gate", config = config, data = data, arguments = arguments, **kwargs)
        return
    if _file_name(config) not in jobs:
        fail("%s: its list of jobs has no %s; write the list again with nibble plan --starlark" % (name, _file_name(config)))
    planned = jobs[_file_name(config)]
    nibble_results(
        name = name + "_results",
        config = config,
        data = data,
        arguments = arguments,
        variants = planned.variants,
        metrics = planned.metrics,
    )
    native.sh_test(
        name = name + "_gate",
        srcs = ["//experiments:gate_test.sh"],
        args = ["$(location //tools:nibble)", "$(location :%s_results)" % name],
        data = [":%s_results" % name, "//tools:nibble"],
        **kwargs
    )

def nibble_jobs_test(name, jobs, configs, data = [], **kwargs):
    """Fails where `jobs` is not the list that `nibble plan --starlark` makes of `configs`, and says the command.

    Args:
      name: of the test.
      jobs: label of the .bzl file.
      configs: labels of all experiments in it.
      data: other files that they read.
      **kwargs: passed on to sh_test.
    """
    native.sh_test(
        name = name,
        srcs = ["//experiments:jobs_test.sh"],
        args = ["$(location %s)" % label for label in ["//tools:nibble", jobs] + configs],
        data = [jobs, "//tools:nibble"] + configs + data,
        **kwargs
    )

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
