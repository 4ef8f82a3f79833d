"""fuzz_target: one parser's libFuzzer target, and the replay of its corpus as a test."""

def fuzz_target(name, deps, corpus = [], data = [], damages = 1000):
    """Makes `name`_test and `name`_fuzz of `name`_fuzz.cc.

    `name`_test reads the files of corpus/`name` and damaged copies of them, in the ordinary
    build. `name`_fuzz is the fuzzer, which only `--config=fuzz` links (docs/fuzzing.md).

    Args:
      name: the parser's.
      deps: what the target includes.
      corpus: folders of other packages that hold seeds, from the repository's root;
        their files are in `data`.
      data: further files that the parser looks up.
      damages: damaged copies of all seeds together.
    """
    native.cc_library(
        name = name + "_target",
        testonly = True,
        srcs = [name + "_fuzz.cc"],
        alwayslink = True,
        deps = deps + [":input"],
    )
    native.cc_test(
        name = name + "_test",
        size = "small",
        srcs = ["replay.cc"],
        args = ["fuzz/corpus/" + name] + corpus + ["--damages=%d" % damages],
        data = native.glob(["corpus/" + name + "/*"]) + data,
        deps = [
            ":" + name + "_target",
            "//core/io:damage_testing",
            "@system//:absl",
            "@system//:gtest",
        ],
    )
    native.cc_binary(
        name = name + "_fuzz",
        testonly = True,
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = [":" + name + "_target"],
    )
