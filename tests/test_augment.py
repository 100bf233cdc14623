# SPDX-License-Identifier: MIT
"""vitcore.augment: each operation equals torchvision's, and every image has its own draw."""

from __future__ import annotations

import json

import pytest
import torch

from vitbook.torchvision import import_torchvision
from vitcore import augment as ours
from vitcore.augment import (
    AUGMENTS,
    MIXES,
    TRIVIAL,
    affine,
    build_augment,
    build_mix,
    random_affine,
)
from vitcore.data import Batches, geometry, trivial


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(28, 28), (20, 31), (33, 16)])
def test_affine_equals_torchvision(size):
    import_torchvision()
    from torchvision.transforms.v2.functional import InterpolationMode
    from torchvision.transforms.v2.functional import affine as reference

    images = torch.rand(6, 2, *size, generator=generator())
    angle = torch.tensor([0.0, 10, -25, 90, 3, 45])
    shift = torch.tensor([[0.0, 0], [2, 3], [-1.5, 4], [0, 0], [5, -2.25], [0, 1]])
    scale = torch.tensor([1.0, 1.1, 0.8, 1, 1.3, 0.5])
    moved = affine(images, angle, shift, scale)
    for i in range(6):
        theirs = reference(
            images[i],
            angle=float(angle[i]),
            translate=shift[i].tolist(),
            scale=float(scale[i]),
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(moved[i], theirs, atol=1e-4, rtol=0)


def test_directions_without_a_reference():
    """A shift of (1, 2) goes right and down; a positive angle turns the top to the right."""
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 1, 4] = 1  # above the centre
    one, zero = torch.ones(1), torch.zeros(1)
    moved = affine(image, zero, torch.tensor([[1.0, 2.0]]), one)
    assert moved[0, 0, 3, 5] == pytest.approx(1, abs=1e-5)
    turned = affine(image, zero + 90, torch.zeros(1, 2), one)
    assert turned[0, 0, 4, 7] == pytest.approx(1, abs=1e-5)
    nearer = affine(image, zero, torch.zeros(1, 2), one / 3)
    assert nearer[0, 0, 3, 4] == pytest.approx(1, abs=1e-5)


def test_fill_stands_where_the_image_ends():
    images = torch.ones(3, 2, 8, 8) * 0.25
    moved = affine(images, torch.zeros(3), torch.tensor([[3.0, 0.0]] * 3), torch.ones(3), fill=0.75)
    torch.testing.assert_close(moved[..., :3], torch.full((3, 2, 8, 3), 0.75))
    torch.testing.assert_close(moved[..., 3:], torch.full((3, 2, 8, 5), 0.25))


def test_every_image_has_its_own_draw_and_the_seed_repeats_it():
    images = torch.rand(1, 1, 28, 28, generator=generator()).expand(16, -1, -1, -1)
    amounts = {"degrees": 10, "translate": 2, "scale": 0.1}
    first = random_affine(images, **amounts, generator=generator(3))
    assert all(not torch.equal(first[0], first[i]) for i in range(1, 16))
    assert torch.equal(first, random_affine(images, **amounts, generator=generator(3)))
    assert not torch.equal(first, random_affine(images, **amounts, generator=generator(4)))
    assert first.shape == images.shape
    assert first.dtype == images.dtype


def test_draws_stay_in_their_range_and_fill_it(monkeypatch):
    seen: dict[str, torch.Tensor] = {}

    def spy(images, angle, shift, scale, *, fill):
        seen.update(angle=angle, shift=shift, scale=scale)
        return images

    monkeypatch.setattr("vitcore.data.geometry.affine", spy)
    images = torch.rand(4000, 1, 2, 2)
    random_affine(images, degrees=10, translate=2, scale=0.1, generator=generator())
    for values, low, high in (
        (seen["angle"], -10, 10),
        (seen["shift"], -2, 2),
        (seen["scale"], 0.9, 1.1),
    ):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    assert seen["shift"].shape == (4000, 2)
    assert not torch.equal(seen["shift"][:, 0], seen["shift"][:, 1])


def test_nothing_to_do_changes_nothing():
    images = torch.rand(2, 3, 5, 7)
    assert random_affine(images) is images
    assert random_affine(images[:0], degrees=5).shape == (0, 3, 5, 7)


def test_images_are_not_written_to():
    images = torch.rand(4, 1, 8, 8)
    before = images.clone()
    random_affine(images, degrees=30, translate=2, scale=0.3, fill=0.5)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "amounts", "error", "words"),
    [
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), {}, TypeError, r"float\(\) / 255"),
        ([[0.0]], {}, TypeError, "images is a list"),
        (torch.zeros(1, 4, 4), {}, ValueError, r"shape \(1, 4, 4\); give"),
        (torch.zeros(1, 1, 4, 4), {"degrees": -1}, ValueError, "degrees is -1; give zero or more"),
        (
            torch.zeros(1, 1, 4, 4),
            {"translate": float("nan")},
            ValueError,
            "translate is nan; give zero or more",
        ),
        (torch.zeros(1, 1, 4, 4), {"scale": 1.0}, ValueError, "scale is 1.0; give a rate"),
        (torch.zeros(1, 1, 4, 4), {"degrees": (-5, 5)}, TypeError, "degrees is .*give"),
    ],
)
def test_bad_input(images, amounts, error, words):
    with pytest.raises(error, match=words):
        random_affine(images, **amounts)


def test_build_augment():
    assert build_augment(None) is None
    images = torch.rand(8, 1, 28, 28)
    augment = build_augment("digits", degrees=5, translate=1, scale=0.05)
    assert augment is not None
    expected = random_affine(images, degrees=5, translate=1, scale=0.05, generator=generator(1))
    assert torch.equal(augment(images, generator(1)), expected)
    assert set(AUGMENTS) >= {"digits"}


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("numbers", {}, ValueError, "augmentation is 'numbers'.*digits"),
        ("digits", {"degreees": 3}, TypeError, "degreees.*options of digits"),
        ("digits", {"degrees": -3}, ValueError, "zero or more"),
        (None, {"degrees": 3}, ValueError, "augmentation is None"),
    ],
)
def test_build_augment_bad_input(name, options, error, words):
    with pytest.raises(error, match=words):
        build_augment(name, **options)


# --- single operations beside torchvision's ---------------------------------------------------


def v2():
    import_torchvision()
    from torchvision.transforms import v2

    return v2


def photos(count=6, size=(32, 32), channels=3, seed=0):
    """Smooth images with flat places, as photographs have them and noise does not."""
    rough = torch.rand(count, channels, 7, 7, generator=generator(seed))
    images = torch.nn.functional.interpolate(rough, size, mode="bilinear") * 1.4 - 0.2
    return images.clamp(0, 1)


SIZES = [(32, 32), (20, 31), (33, 16)]


def test_hflip_equals_torchvision():
    images = photos()
    which = torch.tensor([True, False, True, True, False, False])
    flipped = ours.hflip(images, which)
    for i in range(6):
        expected = v2().functional.horizontal_flip(images[i]) if which[i] else images[i]
        assert torch.equal(flipped[i], expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [0.0, 0.3])
def test_crop_equals_torchvision(size, fill):
    f = v2().functional
    images = photos(size=size)
    top, left = torch.tensor([0, 4, 8, 4, 3, 7]), torch.tensor([8, 4, 0, 2, 6, 1])
    cut = ours.crop(images, top, left, padding=4, fill=fill)
    for i in range(6):
        padded = f.pad(images[i], [4, 4, 4, 4], fill=fill)
        assert torch.equal(cut[i], f.crop(padded, int(top[i]), int(left[i]), *size))
    assert torch.equal(cut[1], images[1])


def test_crop_of_any_layout_and_of_nothing():
    images = photos(size=(32, 32))
    place = torch.tensor([0, 4, 8, 4, 3, 7])
    expected = ours.crop(images, place, place.flip(0), padding=4)
    other = images.to(memory_format=torch.channels_last)
    assert torch.equal(ours.crop(other, place, place.flip(0), padding=4), expected)
    assert ours.crop(images[:0], place[:0], place[:0], padding=4).shape == (0, *images.shape[1:])


@pytest.mark.parametrize("size", SIZES)
def test_resized_crop_equals_torchvision(size):
    images = photos(size=size)
    boxes = torch.tensor([[0, 0, *size], [3, 2, 10, 14], [5, 1, 15, 15], [2, 0, 12, 9]])
    boxes = torch.cat([boxes, torch.tensor([[19, 15, 1, 1], [1, 4, 17, 12]])])
    cut = ours.resized_crop(images, *boxes.unbind(1))
    for i in range(6):
        expected = v2().functional.resized_crop(images[i], *boxes[i].tolist(), size=list(size))
        torch.testing.assert_close(cut[i], expected, atol=1e-5, rtol=0)


def test_erase_equals_torchvision():
    images = photos()
    boxes = torch.tensor([[0, 0, 5, 5], [20, 3, 12, 29], [7, 7, 1, 9], [31, 31, 1, 1]])
    boxes = torch.cat([boxes, torch.tensor([[4, 4, 0, 8], [2, 9, 30, 2]])])
    erased = ours.erase(images, *boxes.unbind(1), value=0.5)
    for i in range(6):
        expected = v2().functional.erase(images[i], *boxes[i].tolist(), v=torch.tensor(0.5))
        assert torch.equal(erased[i], expected)


def reference(name, image, amount):
    """What torchvision's TrivialAugmentWide does to one image, bilinearly."""
    import_torchvision()
    from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide

    names = {
        "identity": "Identity",
        "shear_x": "ShearX",
        "shear_y": "ShearY",
        "translate_x": "TranslateX",
        "translate_y": "TranslateY",
        "rotate": "Rotate",
        "brightness": "Brightness",
        "colour": "Color",
        "contrast": "Contrast",
        "sharpness": "Sharpness",
        "posterize": "Posterize",
        "solarize": "Solarize",
        "autocontrast": "AutoContrast",
        "equalize": "Equalize",
    }
    assert list(TrivialAugmentWide._AUGMENTATION_SPACE) == list(names.values())
    if name == "posterize":
        amount = 8 - round(amount)
    elif name == "solarize":
        amount = 1 - amount
    policy = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    return policy._apply_image_or_video_transform(
        image, names[name], amount, interpolation=InterpolationMode.BILINEAR, fill={}
    )


@pytest.mark.parametrize("name", list(TRIVIAL))
@pytest.mark.parametrize(("size", "channels"), [((32, 32), 3), ((20, 31), 3), ((33, 16), 1)])
def test_trivial_operations_equal_torchvisions(name, size, channels):
    images = photos(size=size, channels=channels)
    largest, signed = TRIVIAL[name]
    amount = largest * torch.tensor([0, 4, 11, 19, 27, 30]) / 30
    if signed:
        amount = amount * torch.tensor([1, -1, 1, -1, 1, -1])
    changed = ours.trivial_operation(name, images, amount)
    for i in range(6):
        expected = reference(name, images[i], float(amount[i]))
        # A value on the edge of a level may fall to either side of it.
        close = (changed[i] - expected).abs() < 1e-4
        assert close.float().mean() > 0.995, f"image {i}, amount {amount[i]}"


def test_the_space_is_that_of_torchvision():
    space = v2().TrivialAugmentWide._AUGMENTATION_SPACE
    for (name, (largest, signed)), (magnitudes, is_signed) in zip(
        TRIVIAL.items(), space.values(), strict=True
    ):
        theirs = magnitudes(31, 32, 32)
        assert signed == is_signed, name
        if theirs is None:
            assert largest == 0
        elif name == "posterize":
            amounts = [8 - round(i / 30 * largest + 1e-9) for i in range(31)]
            assert [int(t) for t in theirs] == pytest.approx(amounts, abs=1)
        elif name == "solarize":
            torch.testing.assert_close(1 - torch.linspace(0, largest, 31), theirs)
        else:
            torch.testing.assert_close(torch.linspace(0, largest, 31), theirs)


def test_flat_images_stay_as_they_are():
    flat = torch.full((2, 3, 8, 8), 0.4)
    for name in ("autocontrast", "equalize"):
        torch.testing.assert_close(ours.trivial_operation(name, flat, torch.zeros(2)), flat)
    small = torch.rand(2, 3, 2, 9)
    assert ours.trivial_operation("sharpness", small, torch.zeros(2)) is small


# --- the draws -------------------------------------------------------------------------------


def spy(monkeypatch, name):
    seen = {}
    original = getattr(geometry, name)

    def watch(images, *values, **options):
        seen["values"] = values
        return original(images, *values, **options)

    monkeypatch.setattr(geometry, name, watch)
    return seen


def test_random_resized_crops_fill_their_range(monkeypatch):
    seen = spy(monkeypatch, "resized_crop")
    ours.random_resized_crop(torch.rand(4000, 1, 32, 32), scale=(0.5, 1.0), generator=generator())
    top, left, height, width = seen["values"]
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 32).all()
    assert (left + width <= 32).all()
    area, ratio = height * width / 1024, height / width
    assert 0.45 < area.min() < 0.55
    assert area.max() > 0.95
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.42
    # Every place is as likely as another: the room left over is used from end to end.
    room = 32 - height
    share = top[room > 0] / room[room > 0]
    assert abs(share.mean() - 0.5) < 0.02
    assert share.min() == 0
    assert share.max() == 1


def test_a_box_that_never_fits_leaves_the_image_whole():
    images = photos(4)
    same = ours.random_resized_crop(images, scale=(1.0, 1.0), ratio=(3.0, 4.0))
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)
    assert torch.equal(
        ours.random_erasing(images, probability=1.0, scale=(1.0, 1.0), value=0.5), images
    )


def test_random_erasing_draws_like_torchvision():
    images = torch.ones(4000, 1, 32, 32)
    erased = ours.random_erasing(images, probability=0.25, generator=generator())
    areas = (erased == 0).flatten(1).float().mean(dim=1)
    assert abs((areas > 0).float().mean() - 0.25) < 0.03
    torch.manual_seed(0)
    theirs = v2().RandomErasing(p=1.0)
    expected = torch.stack(
        [(theirs(torch.ones(1, 32, 32)) == 0).float().mean() for _ in range(800)]
    )
    assert areas[areas > 0].mean() == pytest.approx(float(expected.mean()), abs=0.015)
    assert areas[areas > 0].std() == pytest.approx(float(expected.std()), abs=0.015)


def test_trivial_augment_uses_every_operation(monkeypatch):
    seen: dict[str, list] = {}
    original = ours.trivial_operation

    def watch(name, images, amount, fill):
        seen.setdefault(name, []).extend((amount / (TRIVIAL[name][0] or 1)).tolist())
        return original(name, images, amount, fill)

    monkeypatch.setattr(trivial, "trivial_operation", watch)
    images = torch.rand(1, 3, 8, 8, generator=generator()).expand(2800, -1, -1, -1)
    changed = ours.trivial_augment(images, generator=generator(1))
    assert set(seen) == set(TRIVIAL) - {"identity"}
    counts = {name: len(values) for name, values in seen.items()}
    assert all(140 < count < 260 for count in counts.values())
    assert 140 < 2800 - sum(counts.values()) < 260
    for name, values in seen.items():
        largest, signed = TRIVIAL[name]
        if largest:
            assert max(values) > 0.9
            assert (min(values) < -0.9) == signed
            assert {round(abs(v) * 30, 3) for v in values} <= set(range(31))
    assert torch.equal(changed, ours.trivial_augment(images, generator=generator(1)))


EVERYTHING = {"flip": True, "padding": 4, "min_scale": 0.8, "trivial": True, "erasing": 0.25}


@pytest.mark.parametrize(
    "options", [EVERYTHING, {}, {"flip": False, "padding": 0}, {"fill": 0.5, **EVERYTHING}]
)
def test_cifar_by_name(options):
    options = json.loads(json.dumps(options))
    augment = build_augment("cifar", **options)
    assert augment is not None
    images = photos(1).expand(64, -1, -1, -1).contiguous()
    before = images.clone()
    changed = augment(images, generator(2))
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert changed.min() > -1e-5
    assert changed.max() < 1 + 1e-5
    assert torch.equal(images, before)
    assert torch.equal(changed, augment(images, generator(2)))
    assert augment(images[:0], generator(2)).shape == (0, 3, 32, 32)
    if options.get("padding") == 0:
        assert torch.equal(changed, images)
    else:
        assert not torch.equal(changed, augment(images, generator(3)))
        assert len({tuple(image.flatten().tolist()) for image in changed}) > 32


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"flip": 1}, TypeError, "flip is 1; give True or False"),
        ({"padding": -1}, ValueError, "padding is -1; give a whole number"),
        ({"padding": 1.5}, TypeError, "padding is 1.5; give a whole number"),
        ({"min_scale": 0}, ValueError, "min_scale"),
        ({"min_scale": 1.5}, ValueError, "between 0 and 1"),
        ({"erasing": "often"}, TypeError, "erasing is .often.; give a"),
        ({"mixup": 1}, TypeError, "options of cifar are"),
    ],
)
def test_cifar_bad_input(options, error, words):
    with pytest.raises(error, match=words):
        build_augment("cifar", **options)


def test_operations_take_floats_alone():
    for change in (ours.random_resized_crop, ours.random_erasing, ours.trivial_augment):
        with pytest.raises(TypeError, match=r"float\(\) / 255"):
            change(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


# --- mixing ----------------------------------------------------------------------------------


def test_mixup_equals_torchvision():
    images = photos()
    labels = torch.tensor([0, 3, 1, 1, 2, 4])
    hot = torch.nn.functional.one_hot(labels, 5).float()
    share = torch.tensor([0.0, 1, 0.5, 0.3, 0.9, 0.75])
    mixed, targets = ours.mixup(images, hot, share)
    theirs = v2().MixUp(num_classes=5)
    for i in range(6):
        params = {"labels": labels, "batch_size": 6, "lam": float(share[i])}
        torch.testing.assert_close(mixed[i], theirs.transform(images, params)[i])
        torch.testing.assert_close(targets[i], theirs.transform(labels, params)[i])


def test_cutmix_equals_torchvision():
    images = photos(size=(32, 20))
    labels = torch.tensor([0, 3, 1, 1, 2, 4])
    hot = torch.nn.functional.one_hot(labels, 5).float()
    box = torch.tensor([[0, 0, 32, 20], [3, 4, 3, 4], [0, 5, 9, 20]])
    box = torch.cat([box, torch.tensor([[10, 10, 30, 12], [31, 19, 32, 20], [4, 0, 8, 20]])])
    mixed, targets = ours.cutmix(images, hot, box)
    theirs = v2().CutMix(num_classes=5)
    for i in range(6):
        top, left, bottom, right = box[i].tolist()
        share = 1 - (bottom - top) * (right - left) / 640
        params = {"labels": labels, "batch_size": 6, "lam_adjusted": share}
        params["box"] = (left, top, right, bottom)
        assert torch.equal(mixed[i], theirs.transform(images, params)[i])
        torch.testing.assert_close(targets[i], theirs.transform(labels, params)[i])


def test_mixing_draws_for_every_image():
    mix = build_mix("mixup_cutmix", num_classes=7, probability=0.75, cutmix_share=0.4)
    assert mix is not None
    count = 4000
    values = torch.rand(count, generator=generator())
    images = values.view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    labels = torch.arange(count) % 7
    mixed, targets = mix(images, labels, generator(3))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count))
    assert (targets >= 0).all()
    own = targets.gather(1, labels[:, None]).squeeze(1)
    # What the labels say is what the images hold: the share of the own value in each mean.
    mean = mixed.mean(dim=(1, 2, 3))
    torch.testing.assert_close(mean, own * values + (1 - own) * values.roll(1))
    flat = mixed.flatten(1).std(dim=1) < 1e-6
    pasted, untouched = ~flat, own == 1
    blended = flat & ~untouched
    assert abs(blended.float().mean() - 0.75 * 0.6) < 0.03
    assert 0.24 < pasted.float().mean() < 0.33  # 0.75 * 0.4, less the boxes of no size
    assert own[blended].mean() == pytest.approx(0.5, abs=0.02)
    # Beta(0.8, 0.8) is wider than the uniform distribution, whose deviation is 0.289.
    assert own[blended].std() == pytest.approx(1 / (2 * (2 * 0.8 + 1) ** 0.5), abs=0.01)
    again = mix(images, labels, generator(3))
    assert torch.equal(mixed, again[0])
    assert torch.equal(targets, again[1])
    assert not torch.equal(targets, mix(images, labels, generator(4))[1])


def test_no_mixing_changes_nothing():
    images, labels = photos(), torch.tensor([0, 3, 1, 1, 2, 4])
    mix = build_mix("mixup_cutmix", num_classes=5, probability=0.0)
    assert mix is not None
    mixed, targets = mix(images, labels, generator())
    assert torch.equal(mixed, images)
    assert torch.equal(targets.argmax(dim=1), labels)
    assert targets.max(dim=1).values.tolist() == [1.0] * 6
    # Soft labels can be mixed as well.
    assert torch.equal(mix(images, targets, generator())[1], targets)
    assert build_mix(None, num_classes=5) is None


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("blend", {}, ValueError, "mixing is 'blend'.*mixup_cutmix"),
        (None, {"probability": 1}, ValueError, "mixing is None"),
        ("mixup_cutmix", {"alpha": 1}, TypeError, "alpha.*options of mixup_cutmix"),
        ("mixup_cutmix", {"mixup_alpha": 0}, ValueError, "mixup_alpha is 0; give a positive"),
        ("mixup_cutmix", {"cutmix_share": 2}, ValueError, "between 0 and 1"),
        ("mixup_cutmix", {"num_classes": 1}, ValueError, "at least 2"),
    ],
)
def test_build_mix_bad_input(name, options, error, words):
    with pytest.raises(error, match=words):
        build_mix(name, **{"num_classes": 5, **options})
    assert set(MIXES) == {"mixup_cutmix"}


def test_batches_are_mixed_and_repeat_from_seed_and_epoch():
    images = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8, generator=generator())
    labels = torch.arange(50) % 5

    def batches(mixing, seed=1, epoch=2, augment=None):
        made = Batches(
            (images, labels),
            20,
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            shuffle=True,
            seed=seed,
            augment=augment,
            mix=mixing,
        )
        made.set_epoch(epoch)
        return list(made)

    mix = build_mix("mixup_cutmix", num_classes=5)
    one = batches(mix)
    assert [tuple(t.shape) for _, t in one] == [(20, 5), (20, 5), (10, 5)]
    for (a, b), (c, d) in zip(one, batches(mix), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    for other in (batches(mix, seed=2), batches(mix, epoch=3)):
        assert not torch.equal(one[0][1], other[0][1])
    # With nothing mixed the images are those of a loop without mixing.
    off = build_mix("mixup_cutmix", num_classes=5, probability=0.0)
    flips = build_augment("cifar", padding=0)
    for (a, b), (c, d) in zip(
        batches(off, augment=flips), batches(None, augment=flips), strict=True
    ):
        torch.testing.assert_close(a, c)
        assert torch.equal(b.argmax(dim=1), d)
