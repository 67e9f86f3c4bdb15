"""Trains a GPT on Shakespeare's plays, character by character, and lets it speak.

Kill it when you like: started again, it goes on from its last checkpoint and ends with the very bits of a run that was
never killed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lohe as torch
from models.gpt import GPT, GPTConfig, parameter_groups
from support.plays import own_text, plays
from support.report import Memory
from support.run import BatchOrder, Run, add_options

F = torch.nn.functional
DATA = Path(__file__).resolve().parents[1] / "demo" / "data" / "shakespeare"


class Windows(torch.utils.data.Dataset):
    """Sample i: `context` consecutive characters (int64) and, for each, the character that follows."""

    def __init__(self, ids, context: int) -> None:
        self.ids, self.context = ids, context

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.context

    def __getitem__(self, i: int):
        start = i * self.context
        window = self.ids[start : start + self.context + 1]
        return window[:-1], window[1:]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--text", type=Path, nargs="+", metavar="FILE", help="train on these instead of the plays")
    parser.add_argument("--context", type=int, default=64, help="characters the model sees (default 64)")
    parser.add_argument("--batch", type=int, default=32, help="windows in a batch (default 32)")
    parser.add_argument("--layers", type=int, default=4, help="blocks (default 4)")
    parser.add_argument("--heads", type=int, default=4, help="attention heads (default 4)")
    parser.add_argument("--width", type=int, default=128, help="channels (default 128)")
    parser.add_argument("--dropout", type=float, default=0.0, help="probability (default 0)")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate (default 3e-3)")
    parser.add_argument("--sample", type=int, default=500, help="characters to write at the end (default 500)")
    return parser.parse_args()


@torch.no_grad()
def validation_loss(model: GPT, loader) -> float:
    """Mean cross-entropy of a character in nats."""
    model.eval()
    losses = [F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item() for x, y in loader]
    model.train()
    return sum(losses) / len(losses)


def main() -> None:
    memory = Memory()
    arguments = options()
    steps = arguments.steps or (100 if arguments.quick else 1500)
    torch.manual_seed(arguments.seed)

    train_text, validation_text = own_text(arguments.text) if arguments.text else plays(DATA)
    characters = sorted(set(train_text + validation_text))
    number = {character: i for i, character in enumerate(characters)}
    train, validation = (
        Windows(torch.tensor([number[c] for c in text], dtype=torch.int64), arguments.context)
        for text in (train_text, validation_text)
    )

    config = GPTConfig(len(characters), arguments.context, arguments.layers, arguments.heads, arguments.width,
                       arguments.dropout)
    model = GPT(config)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=arguments.rate, betas=(0.9, 0.99))
    warm_up = max(1, steps // 20)
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / warm_up, total_iters=warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, steps - warm_up),
                                                       eta_min=arguments.rate / 10),
        ],
        milestones=[warm_up],
    )
    order = BatchOrder(len(train), arguments.batch, steps, arguments.seed)
    loader = torch.utils.data.DataLoader(train, batch_sampler=order)
    # A fixed part of the validation text, spread over the plays.
    held_out = range(0, len(validation), max(1, len(validation) // (16 * arguments.batch)))
    validation_loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(validation, list(held_out)), batch_size=arguments.batch
    )

    run = Run(
        "char_gpt",
        arguments,
        {"steps": steps, "seed": arguments.seed, "batch": arguments.batch, "rate": arguments.rate, **vars(config)},
        {"model": model, "optimizer": optimizer, "scheduler": scheduler, "order": order},
        unit="tokens",
        per_step=arguments.batch * arguments.context,
        memory=memory,
    )
    if run.step == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train_text):,} characters to learn "
              f"from, {len(validation_text):,} for validation, {torch.get_num_threads()} threads")
    for x, y in run.batches(loader):
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        run.record(loss)
        if run.is_due(max(1, steps // 8)):
            with run.aside():
                run.record_validation(validation_loss(model, validation_loader))

    run.finish({"validation loss": run.validation[-1][1]})
    if arguments.sample:
        model.eval()
        prompt = torch.tensor([[number.get("\n", 0)]], dtype=torch.int64)
        generator = torch.Generator().manual_seed(arguments.seed)
        ids = model.generate(prompt, arguments.sample, temperature=0.8, generator=generator)[0].tolist()
        print("-" * 72 + "".join(characters[i] for i in ids) + "\n" + "-" * 72)


if __name__ == "__main__":
    main()
