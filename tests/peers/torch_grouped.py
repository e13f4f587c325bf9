"""Speed of grouped products in PyTorch (`torch._grouped_mm`, CUTLASS), beside Fulcrum's.

    python3 tests/peers/torch_grouped.py                 # TFLOP/s of each form, on a GPU
    build/cuda/bin/fulcrum_tests "[grouped][bench]"      # ours, the same shapes and values

Forms: forward x . w^T (weights [E, out, in], as Fulcrum keeps them), input gradient dy . w, weight
gradient dy^T . x in bf16. Medians over batches of launches; `uneven` groups vary as a router's
choices do.
"""

import time

import torch

SHAPES = [  # groups, rows, out, in, even
    (64, 64 * 512, 2816, 2048, True),
    (64, 64 * 512, 2816, 2048, False),
    (64, 64 * 512, 2048, 1408, True),
    (72, 72 * 680, 1792, 2560, True),
    (16, 16 * 2048, 4096, 2048, True),
    (64, 196608, 256, 384, True),
    (64, 196608, 384, 128, True),
]


def seconds_of(launch, batches=7, launches=8):
    times = []
    time.sleep(0.3)  # as ours: the power limit is not reached before the first launch
    for batch in range(batches + 1):
        launch()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(launches):
            launch()
        torch.cuda.synchronize()
        if batch:
            times.append((time.perf_counter() - start) / launches)
    return sorted(times)[len(times) // 2]


def offsets_of(groups, rows, even):
    weights = torch.ones(groups, dtype=torch.float64)
    if not even:
        weights = torch.exp(0.5 * torch.randn(groups, dtype=torch.float64))
    ends = (weights.cumsum(0) / weights.sum() * rows).round().to(torch.int32)
    ends[-1] = rows
    return ends.cuda()


def main():
    torch.manual_seed(3)
    print(f"{'groups, rows, out, in':<31} {'forward':>8} {'input':>8} {'weight':>8}")
    for groups, rows, out, width, even in SHAPES:
        x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
        dy = torch.randn(rows, out, device="cuda", dtype=torch.bfloat16)
        weight = 0.02 * torch.randn(groups, out, width, device="cuda", dtype=torch.bfloat16)
        offsets = offsets_of(groups, rows, even)
        forms = (
            lambda: torch._grouped_mm(x, weight.transpose(-2, -1), offs=offsets),
            lambda: torch._grouped_mm(dy, weight, offs=offsets),
            lambda: torch._grouped_mm(dy.t(), x, offs=offsets),
        )
        flops = 2.0 * rows * out * width
        shape = f"{groups}, {rows}, {out}, {width}, {'even' if even else 'uneven'}"
        rates = [flops * 1e-12 / seconds_of(form) for form in forms]
        print(f"{shape:<31} " + " ".join(f"{rate:8.1f}" for rate in rates), flush=True)


if __name__ == "__main__":
    main()
