#!/usr/bin/env python3
"""The safetensors package reads what `fulcrum export` writes; values equal those that h5py sees.

    tests/peers/safetensors_read.py [CHECKPOINT] [--bin build/cpu/bin]

Without CHECKPOINT a small one is written first. Needs: pip install safetensors h5py numpy
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from safetensors import deserialize, safe_open

NUMPY = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U16": "<u2", "U8": "<u1"}


def values_of(tensor):
    if tensor["dtype"] == "BF16":  # NumPy has no bfloat16: the upper half of a float
        bits = np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(tensor["shape"])
    return np.frombuffer(tensor["data"], NUMPY[tensor["dtype"]]).reshape(tensor["shape"])


def compare(checkpoint, out, binaries):
    subprocess.run([f"{binaries}/fulcrum", "export", checkpoint, "--out", out, "--buffers"], check=True)
    with open(out, "rb") as file:
        exported = {name: values_of(tensor) for name, tensor in deserialize(file.read())}
    with safe_open(out, framework="numpy") as file:
        assert sorted(file.keys()) == sorted(exported)
        print("metadata:", json.dumps(file.metadata())[:200])
    compared = 0
    with h5py.File(os.path.join(checkpoint, "index.h5"), "r") as index:
        for group in ("parameters", "buffers"):
            expected = {}
            if group in index:
                index[group].visititems(lambda name, item: expected.update({name: item[()]})
                                        if isinstance(item, h5py.Dataset) else None)
            for name, values in expected.items():
                assert np.array_equal(exported[name], values, equal_nan=values.dtype.kind == "f"), name
                compared += 1
    assert compared == len(exported) > 0
    print(f"{compared} tensors equal")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="the folder of one checkpoint")
    parser.add_argument("--bin", default="build/cpu/bin")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = arguments.checkpoint
        if checkpoint is None:
            subprocess.run([f"{arguments.bin}/fulcrum_tests", "write a checkpoint"], check=True,
                           stdout=subprocess.DEVNULL, env={**os.environ, "FULCRUM_PEER_FOLDER": scratch})
            checkpoint = os.path.join(scratch, "latest")
        compare(checkpoint, os.path.join(scratch, "model.safetensors"), arguments.bin)


if __name__ == "__main__":
    sys.exit(main())
