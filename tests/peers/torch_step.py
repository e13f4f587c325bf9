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
import torch.nn.functional as F
import yaml

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
width, vocabulary = model_config["width"], model_config["vocabulary"]
sequence, batch = train["sequence_length"], train["micro_batch"]
heads, head_dim = model_config["attention"]["heads"], model_config["attention"]["head_dim"]


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, width, bias=False)

    def forward(self, x, cos, sin):
        q, k, v = self.qkv(x).view(batch, sequence, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype), v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(batch, sequence, -1))


class SwiGlu(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Moe(nn.Module):
    """Sigmoid scores, top-k, weights renormalised; experts one after another over their own tokens."""

    def __init__(self, c):
        super().__init__()
        self.top_k, self.experts = c["top_k"], c["experts"]
        self.router = nn.Linear(width, self.experts, bias=False)
        self.routed = nn.ModuleList(SwiGlu(c["expert_width"]) for _ in range(self.experts))
        self.shared = SwiGlu(c["shared_experts"] * c["expert_width"])
        self.register_buffer("bias", torch.zeros(self.experts))

    def forward(self, x):
        tokens = x.reshape(-1, width)
        scores = torch.sigmoid(self.router(tokens).float())
        chosen = (scores + self.bias).topk(self.top_k, -1)[1]
        weights = scores.gather(1, chosen)
        weights = weights / weights.sum(-1, keepdim=True)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        source = order // self.top_k
        counts = torch.bincount(flat, minlength=self.experts).tolist()
        rows = tokens[source].split(counts)
        y = torch.cat([expert(r) for expert, r in zip(self.routed, rows)])
        y = y * weights.flatten()[order, None].to(y.dtype)
        out = torch.zeros_like(tokens, dtype=y.dtype).index_add(0, source, y)
        return (out + self.shared(tokens)).view_as(x)


class Memory(nn.Module):
    def __init__(self, c, layer):
        super().__init__()
        heads_total = len(c["orders"]) * c["heads"]
        self.c, self.rows = c, c["rows_per_head"][0] | 1
        self.table = nn.Embedding(self.rows * heads_total, c["width"] // heads_total, sparse=False)
        self.key, self.value = nn.Linear(c["width"], width, bias=False), nn.Linear(c["width"], width, bias=False)
        self.hidden_norm, self.key_norm, self.conv_norm = (nn.RMSNorm(width) for _ in range(3))
        self.conv = nn.Parameter(torch.zeros(width, 1, 4))
        self.multipliers = [2 * (7919 * (layer + 1) + 104729 * k) + 1 for k in range(3)]

    def forward(self, h, ids):
        mix, rows = ids.long() * self.multipliers[0], []
        for order in range(2, self.c["orders"][-1] + 1):
            shifted = F.pad(ids.long(), (order - 1, 0))[:, :sequence]
            mix = mix ^ (shifted * self.multipliers[order - 1])
            for j in range(self.c["heads"]):
                rows.append(mix % (self.rows - 2 * j) + self.rows * len(rows))
        e = self.table(torch.stack(rows, -1)).flatten(-2)
        s = (self.hidden_norm(h) * self.key_norm(self.key(e))).sum(-1, keepdim=True).float() / width**0.5
        gate = torch.sigmoid(s.sign() * s.abs().clamp_min(1e-6).sqrt())
        v = (gate * self.value(e)).to(h.dtype)
        dilation = self.c["orders"][-1]
        c = F.pad(self.conv_norm(v).transpose(1, 2), (3 * dilation, 0))
        c = F.conv1d(c, self.conv.to(c.dtype), groups=width, dilation=dilation).transpose(1, 2)
        return F.silu(c) + v


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        moe, dse = model_config.get("moe"), model_config.get("dse")
        self.embedding = nn.Embedding(vocabulary, width)
        layers = range(model_config["layers"])
        self.norms = nn.ModuleList(nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)]) for _ in layers)
        self.attention = nn.ModuleList(Attention() for _ in layers)
        self.feed_forward = nn.ModuleList(Moe(moe) if moe else SwiGlu(model_config["ffn_width"]) for _ in layers)
        self.memory = nn.ModuleDict({str(i): Memory(dse, i) for i in (dse["layers"] if dse else [])})
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids, targets, cos, sin):
        h = self.embedding(ids)
        for i, (attention, feed_forward) in enumerate(zip(self.attention, self.feed_forward)):
            if str(i) in self.memory:
                h = h + self.memory[str(i)](h, ids)
            h = h + attention(self.norms[i][0](h), cos, sin)
            h = h + feed_forward(self.norms[i][1](h))
        logits = self.head(self.norm(h)).float()
        return F.cross_entropy(logits.view(-1, vocabulary), targets.reshape(-1))


def time_torch(compiled):
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    step_model = torch.compile(model) if compiled else model
    position = torch.arange(sequence).float()
    frequency = 1e4 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    cos, sin = torch.outer(position, frequency).cos(), torch.outer(position, frequency).sin()
    ids = torch.randint(0, vocabulary, (batch, sequence + 1))
    seconds = []
    for step in range(args.steps + 3):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = step_model(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), cos, sin)
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
