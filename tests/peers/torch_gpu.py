"""Times one training step of the same model on a GPU in Fulcrum and in PyTorch (torch.compile).

    python3 tests/peers/torch_gpu.py CONFIG --fulcrum build/cuda/bin/fulcrum [--set KEY=VALUE ...]
    torchrun --nproc-per-node 2 tests/peers/torch_gpu.py CONFIG --fulcrum ...    # data parallel, DDP

CONFIG is one of configs/bench, or configs/books/experiment.yaml with --set model.vocabulary=16000.
PyTorch computes in bf16 with f32 master weights (autocast), clips gradients, and uses fused AdamW
and random tokens; experts are grouped products, tables dense embeddings. Medians of steps after the
warm-up, which compiles and is timed apart. Under torchrun Fulcrum is not run: compare with
`mpirun -n 2 fulcrum bench CONFIG`.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import torch
import torch.distributed as dist
import torch.nn as nn
import yaml
from torch_model import Model, rotary_table

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--fulcrum", required=True)
parser.add_argument("--set", action="append", default=[])
parser.add_argument("--steps", type=int, default=12)
args = parser.parse_args()
overrides = [word for assignment in args.set for word in ("--set", assignment)]


def fulcrum(verb, *options):
    command = [args.fulcrum, verb, args.config, *overrides, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def resolved():
    """The configuration with every key, and what its parameter budget is solved to."""
    config = yaml.safe_load(fulcrum("plan", "--yaml"))
    budget = json.loads(fulcrum("plan", "--json")).get("budget", {})
    if "experts" in budget:
        config["model"]["moe"]["experts"] = budget["experts"]
    rows = budget.get("rows_per_head", [])
    if not rows:
        rows = (config["model"].get("dse") or {}).get("rows_per_head", [])
    if rows:
        config["model"]["dse"]["rows_per_head"] = rows
    else:
        config["model"]["dse"] = None
    return config


def time_torch(config, rank, world):
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    torch.manual_seed(0)
    model_config, train = config["model"], config["train"]
    with torch.device("cuda"):
        model = Model(model_config, grouped=True)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    model.compile()
    step_model = model
    if world > 1:
        step_model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    sequence, batch = train["sequence_length"], train["global_batch"] // world
    cos, sin = rotary_table(sequence, model_config["attention"]["head_dim"], "cuda")
    torch.manual_seed(rank)
    warm_up, seconds = 0.0, []
    for step in range(args.steps + 5):
        ids = torch.randint(0, model_config["vocabulary"], (batch, sequence + 1), device="cuda")
        inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss, loads = step_model(inputs, targets, cos, sin, torch.bfloat16)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.update_biases(loads)
        torch.cuda.synchronize()
        if step < 5:
            warm_up += time.perf_counter() - start
        else:
            seconds.append(time.perf_counter() - start)
    return parameters, warm_up, statistics.median(seconds), batch * sequence * world


def main():
    config = resolved()
    name = os.path.basename(args.config)
    world = int(os.environ.get("WORLD_SIZE", 1))
    rank = int(os.environ.get("LOCAL_RANK", 0))
    torch.cuda.set_device(rank)
    ours = None
    if world > 1:
        dist.init_process_group("nccl")
    else:
        ours = json.loads(fulcrum("bench", "--json"))
        print(f"{name}: fulcrum {ours['parameters'] / 1e6:.1f}M parameters, {1e3 * ours['seconds']:.2f} ms, "
              f"{ours['tokens_per_second']:.0f} tokens/s, {ours['flops_per_second'] / 1e12:.0f} TFLOP/s", flush=True)
    parameters, warm_up, seconds, tokens = time_torch(config, rank, world)
    if rank == 0:
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(f"{name}: torch   {parameters / 1e6:.1f}M parameters, {1e3 * seconds:.2f} ms, {tokens / seconds:.0f} tokens/s, "
              f"{world} x {torch.cuda.get_device_name()}, {memory:.1f} GiB, warm-up {warm_up:.1f} s", flush=True)
    if ours:
        print(f"{name}: fulcrum / torch = {ours['tokens_per_second'] / (tokens / seconds):.2f}")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
