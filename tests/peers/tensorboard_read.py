#!/usr/bin/env python3
"""TensorBoard reads the event files of a run and finds what metrics.jsonl says.

    tests/peers/tensorboard_read.py [RUN] [--tests build/cpu/bin/fulcrum_tests]

Without RUN a small stopped-and-resumed run is written first. Needs: pip install tensorboard
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RESERVED = {"step", "time", "event", "text"}


def from_json_lines(path):
    values = {}
    with open(path) as lines:
        for line in lines:
            record = json.loads(line)
            for name in record.keys() - RESERVED:
                values.setdefault(name, {})[record["step"]] = record[name]
    return values


def compare(run):
    expected = from_json_lines(os.path.join(run, "metrics.jsonl"))
    accumulator = EventAccumulator(os.path.join(run, "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    assert sorted(tags) == sorted(expected), f"tags {sorted(tags)}, expected {sorted(expected)}"
    compared = 0
    for tag in tags:
        seen = {event.step: event.value for event in accumulator.Scalars(tag)}
        assert seen.keys() == expected[tag].keys(), f"{tag}: steps {sorted(seen)}"
        for step, value in expected[tag].items():
            if value is None:
                assert not np.isfinite(seen[step]), f"{tag} at {step}: {seen[step]}"
            else:
                assert np.float32(value) == np.float32(seen[step]), \
                    f"{tag} at {step}: {seen[step]}, expected {value}"
            compared += 1
    assert compared > 0
    print(f"{run}: {len(tags)} tags, {compared} values equal")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--tests", default="build/cpu/bin/fulcrum_tests")
    arguments = parser.parse_args()
    if arguments.run:
        compare(arguments.run)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([arguments.tests, "write a metrics folder"], check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "FULCRUM_PEER_FOLDER": folder})
        compare(folder)


if __name__ == "__main__":
    sys.exit(main())
