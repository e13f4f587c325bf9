"""Times one training step of the same model in PyTorch on the CPU, eager and compiled, and in Fulcrum.

  torch_step.py CONFIG --fulcrum build/cpu/bin/fulcrum --data FOLDER [--threads 2] [--precision f32|bf16] [--compile 0|1]

CONFIG is a file of configs/bench. Fulcrum runs `train` on it and the script reads tokens/s from the
run's metrics; FOLDER is one of `fulcrum prepare` with as many entries as the configuration's vocabulary. PyTorch gets random tokens of the same shapes. Medians over steps after warm-up; prints one line each and the
ratio.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import torch
import torch.nn as nn
import yaml
from torch_model import Model, rotary_table

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--fulcrum", default="")
parser.add_argument("--data", default="")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
parser.add_argument("--compile", type=int, default=1)
parser.add_argument("--steps", type=int, default=12)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)


def load(path):
    with open(path) as f:
        config = yaml.safe_load(f)
    base = config.pop("extends", None)
    if base:
        merged = load(os.path.join(os.path.dirname(path), base))
        for section, values in config.items():
            if isinstance(values, dict):
                merged.setdefault(section, {}).update(values)
            else:
                merged[section] = values
        return merged
    return config


config = load(args.config)
model_config, train = config["model"], config["train"]
vocabulary = model_config["vocabulary"]
sequence, batch = train["sequence_length"], train["micro_batch"]


def time_torch(compiled):
    model = Model(model_config, grouped=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    step_model = torch.compile(model) if compiled else model
    cos, sin = rotary_table(sequence, model_config["attention"]["head_dim"], "cpu")
    ids = torch.randint(0, vocabulary, (batch, sequence + 1))
    seconds = []
    for step in range(args.steps + 3):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss, _ = step_model(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), cos, sin)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= 3:
            seconds.append(time.perf_counter() - start)
    return batch * sequence / statistics.median(seconds)


def time_fulcrum():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.fulcrum, "train", args.config, "--set", f"run_dir={folder}/run", "--set", f"data.path={args.data}", "--set", f"threads={args.threads}",
                        "--set", f"train.precision={args.precision}", "--set", f"train.steps={args.steps + 3}"],
                       check=True, stdout=subprocess.DEVNULL)
        with open(f"{folder}/run/metrics.jsonl") as f:
            rates = [json.loads(line)["tokens_per_second"] for line in f if "tokens_per_second" in line]
    return statistics.median(rates[3:])


results = {"torch eager": time_torch(False)}
if args.compile:
    results["torch compiled"] = time_torch(True)
if args.fulcrum:
    results["fulcrum"] = time_fulcrum()
for name, rate in results.items():
    print(f"{os.path.basename(args.config)} {args.precision} {args.threads} threads: {name}: {rate:.0f} tokens/s")
if args.fulcrum:
    best = max(rate for name, rate in results.items() if name != "fulcrum")
    print(f"fulcrum / best torch = {results['fulcrum'] / best:.2f}")
