#!/usr/bin/env python3
"""Megatron-core reads the token shards of a prepared folder and finds what its manifest says.

    tests/peers/megatron_shards.py PREPARED

Needs: pip install numpy xxhash; pip install --no-deps megatron-core. Without PyTorch only the module of the indexed dataset is
loaded, with stand-ins for what it imports but reading does not use.
"""
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import xxhash


def indexed_dataset_class():
    try:
        from megatron.core.datasets.indexed_dataset import IndexedDataset
        return IndexedDataset
    except ImportError:
        pass
    root = Path(importlib.util.find_spec("megatron").submodule_search_locations[0])
    torch = types.ModuleType("torch")
    torch.utils = types.ModuleType("torch.utils")
    torch.utils.data = types.ModuleType("torch.utils.data")
    torch.utils.data.Dataset = object
    torch.Tensor = type("Tensor", (), {})
    class Anything:
        def __getattr__(self, name):
            return Anything()
        def __call__(self, *args, **kwargs):
            return args[0] if args and callable(args[0]) else Anything()
    class Standin(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything()
    sys.modules.update({"torch": torch, "torch.utils": torch.utils, "torch.utils.data": torch.utils.data})
    for name in ("megatron.core", "megatron.core.datasets", "megatron.core.datasets.object_storage_utils",
                 "megatron.core.msc_utils", "megatron.core.utils", "megatron.core.datasets.utils_object_storage"):
        module = Standin(name)
        module.__path__ = [str(root / Path(*name.split(".")[1:]))]
        sys.modules[name] = module
    sys.modules["megatron.core.datasets.object_storage_utils"].is_object_storage_path = lambda path: False
    sys.modules["megatron.core.datasets.utils_object_storage"].is_object_storage_path = lambda path: False
    sys.modules["megatron.core.msc_utils"].MultiStorageClientFeature = types.SimpleNamespace(is_enabled=lambda: False)
    path = root / "core/datasets/indexed_dataset.py"
    spec = importlib.util.spec_from_file_location("megatron.core.datasets.indexed_dataset", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.IndexedDataset


def main():
    folder = Path(sys.argv[1])
    manifest = json.loads((folder / "manifest.json").read_text())
    end = manifest["tokenizer"]["end_of_document"]
    vocabulary = manifest["tokenizer"]["vocabulary"]
    IndexedDataset = indexed_dataset_class()
    for split, record in manifest["splits"].items():
        documents = tokens = 0
        for shard in record["shards"]:
            for part in ("bin", "idx"):
                content = (folder / f"{shard['name']}.{part}").read_bytes()
                assert len(content) == shard[part]["bytes"], shard["name"]
                assert xxhash.xxh64(content).hexdigest() == shard[part]["xxh64"], shard["name"]
            dataset = IndexedDataset(str(folder / shard["name"]), multimodal=False, mmap=True)
            assert len(dataset) == shard["documents"], (len(dataset), shard["documents"])
            assert list(dataset.document_indices) == list(range(shard["documents"] + 1))
            assert int(np.sum(dataset.sequence_lengths, dtype=np.int64)) == shard["tokens"]
            whole = np.fromfile(folder / f"{shard['name']}.bin", dataset.index.dtype)
            at = 0
            for i in range(len(dataset)):
                ids = dataset[i]
                assert ids[-1] == end and np.count_nonzero(ids == end) == 1, (shard["name"], i)
                assert ids.max() < vocabulary
                assert np.array_equal(ids, whole[at:at + len(ids)]), (shard["name"], i)
                at += len(ids)
            documents += len(dataset)
            tokens += at
        assert (documents, tokens) == (record["documents"], record["tokens"]), split
        print(f"{split}: {documents} documents, {tokens} tokens equal")


if __name__ == "__main__":
    main()
