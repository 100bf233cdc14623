# SPDX-License-Identifier: MIT
"""What is known of MNIST and CIFAR-100: class names, sums, checksums, addresses (chapter 6)."""

from __future__ import annotations

from dataclasses import dataclass

CIFAR100_GROUPS = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables",
    "household_electrical_devices", "household_furniture", "insects", "large_carnivores",
    "large_man-made_outdoor_things", "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates", "people",
    "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip

CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

# The group of each class, in the order of CIFAR100_CLASSES.
CIFAR100_GROUP_OF = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15,
    3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4,
    2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What a named data set looks like, and how its official content is recognised."""

    shape: tuple[int, ...]  # of one image in the .npz file: (H, W) or (H, W, C)
    classes: tuple[str, ...]
    everything: str  # fingerprint of all official images with their labels, both parts together
    train: str | None = None  # fingerprint of the official training part, where it is known
    train_sums: tuple[int, ...] | None = None  # else: the sum of its pixel values, per channel
    groups: tuple[str, ...] | None = None
    group_of: tuple[int, ...] | None = None


KNOWN: dict[str, Known] = {
    "mnist": Known(
        shape=(28, 28),
        classes=tuple("0123456789"),
        everything="65d7d98e7be4a5ddeda5102683f2dd914762f62bb0e1bdb22d0519f4060c496f",
        train="efb0d4dfb3297d29f03ba77d302dff657724c12a047eff65d851f7e0b82be3d2",
    ),
    # The sums follow from the mean of the official training part that is widely published to
    # sixteen digits, (0.5070751592371323, 0.48654887331495095, 0.4409178433670343): times
    # 255 * 50,000 * 1,024 it gives three whole numbers. A random split of the same images meets
    # one of them about once in ten million.
    "cifar100": Known(
        shape=(32, 32, 3),
        classes=CIFAR100_CLASSES,
        everything="9b0c8f7372bf2d10862a683cbac510542ad902c0bc79431b0e53fb99b70d0c03",
        train_sums=(6620373279, 6352382090, 5756623363),
        groups=CIFAR100_GROUPS,
        group_of=CIFAR100_GROUP_OF,
    ),
}

# The files that the official homes hand out, with the MD5 sums that torchvision (MNIST) and the
# CIFAR page (the binary version, which is plain bytes: nothing has to be unpickled) give for them.
FILES: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "cifar100": {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
}

# Where to ask for them, in this order. All are known from documentation: the first two of MNIST
# from torchvision, the third from TensorFlow Datasets; of CIFAR-100 the first from Apache MXNet
# (gluon.data.vision.CIFAR100), the second is the data set's home, slow since June 2026
# (pytorch/vision#9536). None of these addresses has been tried yet: the tests ask a server of their
# own. What arrives counts only if its checksum is right, so a mirror can be gone but not lie.
MIRRORS: dict[str, tuple[str, ...]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "cifar100": (
        "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/cifar100/",
        "https://www.cs.toronto.edu/~kriz/",
    ),
}
