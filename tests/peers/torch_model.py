"""The model of a Fulcrum configuration in PyTorch, for timing beside Fulcrum: attention with rotary
positions, SwiGLU, a mixture of experts and an n-gram memory. Used by torch_step.py and torch_gpu.py.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


def rotary_table(sequence, head_dim, device):
    position = torch.arange(sequence, device=device).float()
    frequency = 1e4 ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
    angle = torch.outer(position, frequency)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    def __init__(self, width, heads, head_dim):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, width, bias=False)

    def forward(self, x, cos, sin):
        batch, sequence, _ = x.shape
        qkv = self.qkv(x).view(batch, sequence, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(batch, sequence, -1))


class SwiGlu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class LoopedExperts(nn.Module):
    """Experts one after another over their own tokens: what is fastest on a CPU."""

    def __init__(self, experts, width, hidden):
        super().__init__()
        self.experts = nn.ModuleList(SwiGlu(width, hidden) for _ in range(experts))

    def forward(self, rows, counts):
        parts = rows.split(counts.tolist())
        return torch.cat([expert(part) for expert, part in zip(self.experts, parts)])


class GroupedExperts(nn.Module):
    """All experts in one product on a GPU, group sizes read on the device."""

    def __init__(self, experts, width, hidden):
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(experts, width, 2 * hidden) * 0.02)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) * 0.02)

    def forward(self, rows, counts):
        ends = counts.cumsum(0).to(torch.int32)
        rows = rows.to(torch.bfloat16)
        gate, up = torch._grouped_mm(rows, self.gate_up.to(torch.bfloat16), offs=ends).chunk(2, -1)
        return torch._grouped_mm(F.silu(gate) * up, self.down.to(torch.bfloat16), offs=ends)


class Moe(nn.Module):
    """Scores of all experts, the top k of them, weights renormalised; with a loss or a bias against
    imbalance, as the configuration says."""

    def __init__(self, width, c, grouped):
        super().__init__()
        self.c, self.experts = c, c["experts"]
        self.router = nn.Linear(width, self.experts, bias=False)
        make = GroupedExperts if grouped else LoopedExperts
        self.routed = make(self.experts, width, c["expert_width"])
        shared = c.get("shared_experts", 0) * c["expert_width"]
        self.shared = SwiGlu(width, shared) if shared else None
        self.register_buffer("bias", torch.zeros(self.experts))

    def forward(self, x):
        width, k = x.shape[-1], self.c["top_k"]
        tokens = x.reshape(-1, width)
        logits = F.linear(tokens.float(), self.router.weight.float())
        softmax = self.c.get("score", "softmax") == "softmax"
        scores = logits.softmax(-1) if softmax else logits.sigmoid()
        chosen = (scores + self.bias).topk(k, -1)[1]
        weights = scores.gather(1, chosen)
        if self.c.get("renormalize"):
            weights = weights / weights.sum(-1, keepdim=True)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        source = order // k
        counts = torch.zeros(self.experts, dtype=torch.int32, device=x.device)
        counts = counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
        y = self.routed(tokens[source], counts)
        y = y * weights.flatten()[order, None].to(y.dtype)
        out = torch.zeros(tokens.shape, dtype=y.dtype, device=x.device).index_add(0, source, y)
        if self.shared is not None:
            out = out + self.shared(tokens)
        share = counts.float() * (self.experts / (k * tokens.shape[0]))
        rate = self.c.get("balance", {}).get("expert_loss", 0.0)
        return out.view_as(x), rate * (share * scores.mean(0)).sum(), counts


class Memory(nn.Module):
    def __init__(self, width, c, layer):
        super().__init__()
        heads = len(c["orders"]) * c["heads"]
        self.c, self.rows = c, c["rows_per_head"][0] | 1
        self.table = nn.Embedding(self.rows * heads, c["width"] // heads)
        self.key = nn.Linear(c["width"], width, bias=False)
        self.value = nn.Linear(c["width"], width, bias=False)
        self.hidden_norm, self.key_norm, self.conv_norm = (nn.RMSNorm(width) for _ in range(3))
        self.conv = nn.Parameter(torch.zeros(width, 1, 4))
        self.multipliers = [2 * (7919 * (layer + 1) + 104729 * k) + 1 for k in range(3)]

    def forward(self, h, ids):
        width = h.shape[-1]
        mix, rows = ids.long() * self.multipliers[0], []
        for order in range(2, self.c["orders"][-1] + 1):
            shifted = F.pad(ids.long(), (order - 1, 0))[:, : ids.shape[1]]
            mix = mix ^ (shifted * self.multipliers[order - 1])
            for j in range(self.c["heads"]):
                rows.append(mix % (self.rows - 2 * j) + self.rows * len(rows))
        e = self.table(torch.stack(rows, -1)).flatten(-2).to(h.dtype)
        s = (self.hidden_norm(h) * self.key_norm(self.key(e))).sum(-1, keepdim=True).float()
        s = s / width**0.5
        gate = torch.sigmoid(s.sign() * s.abs().clamp_min(1e-6).sqrt())
        v = (gate * self.value(e)).to(h.dtype)
        dilation = self.c["orders"][-1]
        c = F.pad(self.conv_norm(v).transpose(1, 2), (3 * dilation, 0))
        c = F.conv1d(c, self.conv.to(c.dtype), groups=width, dilation=dilation).transpose(1, 2)
        return F.silu(c) + v


class Model(nn.Module):
    """forward(ids, targets, cos, sin) gives the loss and the load of every mixture's experts."""

    def __init__(self, config, grouped):
        super().__init__()
        width, vocabulary, layers = config["width"], config["vocabulary"], config["layers"]
        attention, moe, dse = config["attention"], config.get("moe"), config.get("dse")
        mixed = moe if moe and moe["experts"] > 0 else None
        self.embedding = nn.Embedding(vocabulary, width)
        self.norms = nn.ModuleList(nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)]) for _ in range(layers))
        self.attention = nn.ModuleList(Attention(width, attention["heads"], attention["head_dim"]) for _ in range(layers))
        self.feed_forward = nn.ModuleList(
            Moe(width, mixed, grouped) if mixed else SwiGlu(width, config["ffn_width"]) for _ in range(layers))
        self.memory = nn.ModuleDict({str(i): Memory(width, dse, i) for i in (dse["layers"] if dse else [])})
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets, cos, sin, dtype=None):
        h = self.embedding(ids)
        h = h if dtype is None else h.to(dtype)
        loss, loads = 0.0, []
        for i, (attention, feed_forward) in enumerate(zip(self.attention, self.feed_forward)):
            if str(i) in self.memory:
                h = h + self.memory[str(i)](h, ids)
            h = h + attention(self.norms[i][0](h), cos, sin)
            update = feed_forward(self.norms[i][1](h))
            if isinstance(feed_forward, Moe):
                update, balance, load = update
                loss = loss + balance
                loads.append(load)
            h = h + update
        logits = self.head(self.norm(h)).float()
        return loss + F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1)), loads

    def update_biases(self, loads):
        """Auxiliary-loss-free balancing: towards experts with less than the mean load."""
        for feed_forward, load in zip((m for m in self.feed_forward if isinstance(m, Moe)), loads):
            rate = feed_forward.c.get("balance", {}).get("bias_rate", 0.0)
            if rate:
                load = load.float()
                feed_forward.bias += rate * (load.mean() - load).sign()
