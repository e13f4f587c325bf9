#!/usr/bin/env python3
"""The Python package of SentencePiece gives back the documents from a prepared folder, and would have encoded them the same.

    tests/peers/sentencepiece_decode.py PREPARED TEXT.jsonl[.zst|.gz] [--field text] [--split train] [--documents 200]

Compares the first documents of a split with the lines of the file it was made from, in order; lines of the other split are
passed over. Needs: pip install numpy sentencepiece; the zstd program for .zst.
"""
import argparse
import gzip
import json
import subprocess
from pathlib import Path

import numpy as np
import sentencepiece


def texts(path, field):
    if path.endswith(".zst"):
        stream = subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE).stdout
    else:
        stream = gzip.open(path) if path.endswith(".gz") else open(path, "rb")
    for line in stream:
        if line.strip():
            yield json.loads(line)[field]


def documents(folder, split):
    for shard in split["shards"]:
        index = (folder / f"{shard['name']}.idx").read_bytes()
        count = int(np.frombuffer(index, "<u8", 1, 18)[0])
        lengths = np.frombuffer(index, "<i4", count, 34)
        ids = np.memmap(folder / f"{shard['name']}.bin", "<u2" if index[17] == 8 else "<i4", "r")
        at = 0
        for length in lengths:
            yield ids[at:at + length].tolist()
            at += int(length)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("prepared", type=Path)
    parser.add_argument("source")
    parser.add_argument("--field", default="text")
    parser.add_argument("--split", default="train")
    parser.add_argument("--documents", type=int, default=200)
    args = parser.parse_args()
    manifest = json.loads((args.prepared / "manifest.json").read_text())
    tokenizer = manifest["tokenizer"]
    model = sentencepiece.SentencePieceProcessor(model_file=str(args.prepared / tokenizer["file"]))
    assert model.vocab_size() == tokenizer["vocabulary"]
    assert model.eos_id() == tokenizer["end_of_document"]
    source = texts(args.source, args.field)
    compared = characters = passed = 0
    for ids in documents(args.prepared, manifest["splits"][args.split]):
        assert ids[-1] == model.eos_id()
        ids = ids[:-1]
        text = model.decode(ids)
        original = next(source)
        while original != text:
            passed += 1
            original = next(source, None)
            assert original is not None, f"document {compared}: no line of the source equals its text"
        assert model.encode(original) == ids, f"document {compared}: encoded differently"
        compared += 1
        characters += len(text)
        if compared == args.documents:
            break
    assert compared > 0
    print(f"{args.split}: {compared} documents of {characters} characters decode and encode the same; {passed} lines passed over")


if __name__ == "__main__":
    main()
