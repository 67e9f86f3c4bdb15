"""Trains a convolutional network on scikit-learn's handwritten digits and tests it on held-out images.

Kill it when you like: started again, it goes on from its last checkpoint and ends with the very bits of a run that was
never killed.
"""

from __future__ import annotations

import argparse

import lohe as torch
from models.cnn import DigitsCNN
from support.digits import digits
from support.report import Memory
from support.run import BatchOrder, Run, add_options

F = torch.nn.functional


def shifted(images):
    """Each batch of images (n, 1, 8, 8) moved by -1, 0 or 1 pixel in either direction, as hands do."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    return F.pad(images, (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]


@torch.no_grad()
def evaluate(model, images, labels) -> tuple[float, float]:
    """Mean cross-entropy in nats, and the share of images whose most likely class is right."""
    model.eval()
    logits = model(images)
    model.train()
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def main() -> None:
    memory = Memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--batch", type=int, default=64, help="images in a batch (default 64)")
    parser.add_argument("--channels", type=int, default=32, help="of the first layers (default 32)")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate (default 3e-3)")
    arguments = parser.parse_args()
    steps = arguments.steps or (100 if arguments.quick else 900)
    torch.manual_seed(arguments.seed)

    data = {name: torch.from_numpy(array) for name, array in digits().items()}
    train = torch.utils.data.TensorDataset(data["train_images"], data["train_labels"])
    model = DigitsCNN(arguments.channels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    order = BatchOrder(len(train), arguments.batch, steps, arguments.seed)
    loader = torch.utils.data.DataLoader(train, batch_sampler=order)

    run = Run(
        "digits_cnn",
        arguments,
        {"steps": steps, "seed": arguments.seed, "batch": arguments.batch, "channels": arguments.channels,
         "rate": arguments.rate},
        {"model": model, "optimizer": optimizer, "scheduler": scheduler, "order": order},
        unit="images",
        per_step=arguments.batch,
        memory=memory,
    )
    if run.step == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train):,} images to learn from, "
              f"{len(data['test_labels'])} for the test, {torch.get_num_threads()} threads")
    for images, labels in run.batches(loader):
        loss = F.cross_entropy(model(shifted(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        run.record(loss)
        if run.is_due(max(1, steps // 10)):
            with run.aside():
                run.record_validation(evaluate(model, data["test_images"], data["test_labels"])[0])

    _, accuracy = evaluate(model, data["test_images"], data["test_labels"])
    run.finish({"test accuracy": accuracy})


if __name__ == "__main__":
    main()
