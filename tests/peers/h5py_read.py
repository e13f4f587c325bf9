#!/usr/bin/env python3
"""h5py and h5ls open a checkpoint, also after it has moved, and see every tensor whole.

    tests/peers/h5py_read.py [CHECKPOINT] [--bin build/cpu/bin]

Compares with `fulcrum inspect --json`. Without CHECKPOINT a small one is written first.
Needs: pip install h5py; h5ls (hdf5-tools) where there is one.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

H5PY_DTYPES = {"f64": "f8", "f32": "f4", "bf16": "f4", "i64": "i8", "i32": "i4", "u16": "u2", "u8": "u1"}


def tensors_of(file):
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def compare(folder, binaries):
    report = json.loads(subprocess.run([f"{binaries}/fulcrum", "inspect", folder, "--json", "--verify"],
                                       check=True, capture_output=True, text=True).stdout)
    with h5py.File(os.path.join(folder, "index.h5"), "r") as index:
        for name, value in report["attributes"].items():
            assert index.attrs[name] == value, f"attribute {name}: {index.attrs[name]}"
        seen = tensors_of(index)
        assert sorted(seen) == [t["name"] for t in report["tensors"]]
        for tensor in report["tensors"]:
            dataset = seen[tensor["name"]]
            values = dataset[()]
            print(f"{tensor['name']} {dataset.dtype} {dataset.shape}\n{values}")
            assert list(dataset.shape) == tensor["shape"], tensor["name"]
            assert dataset.dtype == np.dtype(H5PY_DTYPES[tensor["dtype"]]), f"{tensor['name']}: {dataset.dtype}"
            finite = values[np.isfinite(values)].astype(np.float64)
            assert values.size - finite.size == tensor["nan"] + tensor["infinite"], tensor["name"]
            if finite.size == 0:
                continue
            assert np.isclose(np.linalg.norm(finite), tensor["norm"], rtol=1e-12), tensor["name"]
            assert finite.min() == tensor["min"] and finite.max() == tensor["max"], tensor["name"]
    return report


def list_with_h5ls(folder, report):
    if shutil.which("h5ls") is None:
        print("h5ls: not installed, left out")
        return
    listing = subprocess.run(["h5ls", "-r", os.path.join(folder, "index.h5")], check=True,
                             capture_output=True, text=True).stdout
    print(listing)
    for tensor in report["tensors"]:
        shape = "{" + ", ".join(str(n) for n in tensor["shape"]) + "}"
        line = next(line for line in listing.splitlines() if line.split(" ")[0] == "/" + tensor["name"])
        assert shape in line, f"{line}, expected {shape}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="the folder of one checkpoint")
    parser.add_argument("--bin", default="build/cpu/bin")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.checkpoint
        if source is None:
            subprocess.run([f"{arguments.bin}/fulcrum_tests", "write a checkpoint"], check=True,
                           stdout=subprocess.DEVNULL, env={**os.environ, "FULCRUM_PEER_FOLDER": scratch})
            source = os.path.join(scratch, "latest")
        report = compare(source, arguments.bin)
        list_with_h5ls(source, report)
        moved = os.path.join(scratch, "moved", "elsewhere")
        shutil.copytree(os.path.realpath(source), moved)
        compare(moved, arguments.bin)
        print(f"{len(report['tensors'])} tensors agree, in place and moved")


if __name__ == "__main__":
    sys.exit(main())
