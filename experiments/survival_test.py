"""survival_test.py NIBBLE VARIANTS KILLS [FOLDER]: a sweep that is killed ends as one that is not.

Runs a sweep of VARIANTS variants of the reference checkpoint undisturbed, then again while
KILLS times, at random moments, the runner or one of its jobs gets SIGKILL; each time the
runner is gone the sweep is started anew on its folder. Every quality figure of the two
results.json must be equal, and equal to what its raw records give. FOLDER, on a small file system (mount -t tmpfs -o size=64m), is
where the killed sweep works; the script first fills all but 2 MiB of it, and frees it when
the sweep has failed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MODEL = "configs/models/novelist"
STEPS = [
    '[nibble.rtn] { bits: %d group_size: %d }' % (bits, group) for bits in (2, 3, 4, 8) for group in (16, 32, 64)
]
METRICS = [
    'perplexity { text: "quickstart/passages" window: 128 limit: 8 }',
    'multiple_choice { set: "quickstart/questions" limit: 16 }',
    'divergence { text: "quickstart/passages" window: 128 limit: 4 }',
    'size {}',
]
QUALITY = ("perplexity/", "accuracy/", "accuracy_norm/", "kl/", "top1_agreement/", "size_mib", "bits_per_weight")


def config_text(variants):
    lines = ['name: "survival"', 'model { source: "%s" }' % MODEL, 'baseline { name: "bf16" step { [nibble.baseline] {} } }']
    for i, step in enumerate(STEPS[:variants]):
        lines.append('variant { name: "v%d" step { %s } }' % (i, step))
    return "\n".join(lines + ["metric { %s }" % metric for metric in METRICS]) + "\n"


def start(nibble, config, out, log):
    return subprocess.Popen([nibble, "run", config, "--out", out, "--work", out + "/work", "--threads", "2"], stdout=log, stderr=log)


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def figures(out):
    with open(out + "/results.json") as file:
        records = json.load(file)["records"]
    return {(r["variant"], r["metric"]): r["value"] for r in records if r["metric"].startswith(QUALITY)}


def disturb(nibble, config, out, kills, span, log):
    """Kills `kills` times, about every `span` seconds at most; gives how often the runner was hit."""
    runner, done, runners_hit = start(nibble, config, out, log), 0, 0
    while done < kills:
        time.sleep(random.uniform(0, span))
        if runner.poll() is not None:
            shutil.rmtree(out)  # it came to its end: once more from nothing
            runner = start(nibble, config, out, log)
            continue
        jobs = children(runner.pid)
        victim = random.choice(jobs) if jobs and random.random() < 0.5 else runner.pid
        if not kill(victim):
            continue
        done += 1
        if victim == runner.pid:
            runners_hit += 1
            runner.wait()
            runner = start(nibble, config, out, log)
    runner.wait()
    return runners_hit


def run_while_full(nibble, config, folder, log):
    """Starts the sweep on a full disk; it must fail, and not crash."""
    filler = folder + "/filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - (2 << 20)))
    status = start(nibble, config, folder + "/run", log).wait()
    os.remove(filler)
    if status not in (1, 2):
        sys.exit("on a full disk the sweep ended with status %d" % status)


def main():
    nibble, variants, kills = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    random.seed(20240601)
    work = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
    small = sys.argv[4] if len(sys.argv) > 4 else ""
    config, whole, killed = work + "/survival.textproto", work + "/whole", (small or work) + "/run"
    with open(config, "w") as file:
        file.write(config_text(variants))
    with open(work + "/log", "w") as log:
        begin = time.time()
        if start(nibble, config, whole, log).wait() != 0:
            sys.exit("the undisturbed sweep failed; see %s/log" % work)
        seconds = time.time() - begin
        if small:
            run_while_full(nibble, config, small, log)
        runners_hit = disturb(nibble, config, killed, kills, 2 * seconds / max(8, kills), log)
        # A job that was killed three times is a row that says so, and runs again.
        for _ in range(3):
            if start(nibble, config, killed, log).wait() == 0:
                break
        # A full disk may have had room for a result and none for its records.
        if not small and subprocess.call([nibble, "report", killed, "--recompute"], stdout=log) != 0:
            sys.exit("raw records do not give the figures; see %s/log" % work)
    expected, got = figures(whole), figures(killed)
    differ = [key for key in expected if expected[key] != got.get(key)]
    print("%d variants, %d quality figures; %d kills, %d of them the runner; %d figures differ" %
          (variants, len(expected), kills, runners_hit, len(differ)))
    for key in differ:
        print("%s %s: %s, undisturbed %s" % (key + (got.get(key), expected[key])))
    sys.exit(1 if differ or len(got) != len(expected) else 0)


if __name__ == "__main__":
    main()
