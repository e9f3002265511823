"""Train a small classifier on stored features with PyTorch.

The features are random vectors around one centre for each class, so that the head has something to learn and the
script needs no videos. With features of your own only the key, the ids and the labels differ.
"""

import numpy as np
import torch

from featurestore import FeatureKey, FeatureStore
from featurestore.torch import FeatureDataset, loader

KEY = FeatureKey(dataset="toy", modality="frame", encoder="RANDOM", sampling="uniform", n_frames=8)
CLASSES = ["happy", "sad", "neutral"]


def store_something(store: FeatureStore) -> dict[str, int]:
    """Store 240 samples of (8, 32) float32; {id: number of its class}."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((len(CLASSES), 32))
    labels = {f"clip_{number:03}": number % len(CLASSES) for number in range(240)}
    values = [centres[label] + 2 * generator.standard_normal((8, 32)) for label in labels.values()]
    store.put_many(KEY, list(labels), np.stack(values).astype(np.float32), recipe={"seed": 0})
    return labels


def main() -> None:
    torch.manual_seed(0)
    store = FeatureStore("features")
    labels = store_something(store)
    ids = store.ids(KEY)
    training = FeatureDataset(store, KEY, ids[:180])  # a split is a list of ids
    held_out = FeatureDataset(store, KEY, ids[180:])

    head = torch.nn.Linear(32, len(CLASSES))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for epoch in range(3):
        for batch in loader(training, batch_size=32, shuffle=True, seed=epoch):
            # batch.features is (32, 8, 32); batch.ids says whose they are.
            target = torch.tensor([labels[id] for id in batch.ids])
            loss = torch.nn.functional.cross_entropy(head(batch.features.mean(dim=1)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss of the last batch {loss.item():.3f}")

    right = 0
    for batch in loader(held_out, batch_size=32):
        guess = head(batch.features.mean(dim=1)).argmax(dim=1)
        right += sum(labels[id] == number for id, number in zip(batch.ids, guess.tolist(), strict=True))
    print(f"held out: {right} of {len(held_out)} right")


if __name__ == "__main__":
    main()
