"""Mark the top of maps: exact counts, order among equals, what no mark depends on, the authors' code in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.inputs.top_k import scale_of, top_k

random = settings(deadline=None, max_examples=50, derandomize=True)
LEVELS = [50, 30, 10]
STRICT = ("strict", "strict_rectified")
FORMS = (*STRICT, "authors")
each_strict = pytest.mark.parametrize("form", STRICT)
each_form = pytest.mark.parametrize("form", FORMS)


def drawn(seed, *, rows=3, height=9, width=11, whole=False):
    """Draw maps: whole numbers have equals among them."""
    maps = torch.randn(rows, height, width, generator=torch.Generator().manual_seed(seed))
    return (maps * 4).round() if whole else maps


def marks(maps, form, levels=LEVELS, scales=None):
    scales = torch.ones(len(maps)) if scales is None else scales
    return top_k(maps, levels=levels, form=form, scales=scales)


def ranked(values, level):
    """Mark pixels that, with all that are as high, are no more than there is place for; say whether some is left."""
    number = level * values.size // 100
    top = (values[None, None] >= values[..., None, None]).sum((2, 3)) <= number
    return top, top.sum() < number


def published(values, scale, level):
    """Restate the authors' steps: divide, clip, take absolute values, compare with a percentile."""
    if scale != 0:
        values = values / scale
    values = np.abs(np.clip(values, -1, 1))
    return values > np.percentile(values, 100 - level)


class TestStrict:
    @each_strict
    @random
    @given(st.integers(0, 2**32), st.booleans(), st.integers(2, 12), st.integers(2, 12), st.integers(25, 99))
    def test_the_definition_pixel_by_pixel_says_the_same(self, form, seed, whole, height, width, level):
        maps = drawn(seed, height=height, width=width, whole=whole)
        tops, ties = marks(maps, form, [level])
        for row, values in enumerate(maps.numpy() if form == "strict" else maps.clamp(min=0).numpy()):
            top, tied = ranked(values, level)
            np.testing.assert_array_equal(tops[row, 0], top)
            assert ties[row, 0] == tied

    @each_strict
    @pytest.mark.parametrize(("height", "width"), [(10, 10), (9, 11), (64, 64), (7, 5)])
    def test_counts_are_exact_without_ties(self, form, height, width):
        levels = [99, 50, 33, 10, 3]
        maps = drawn(0, height=height, width=width).abs()
        expected = torch.tensor([level * height * width // 100 for level in levels])
        tops, ties = marks(maps, form, levels)
        assert torch.equal(tops.sum(dim=(2, 3)), expected.expand(len(maps), -1))
        assert not ties.any()

    @each_strict
    @random
    @given(st.integers(0, 2**32), st.integers(0, 2**32))
    def test_marks_go_with_the_scores_wherever_they_lie(self, form, seed, other):
        maps = drawn(seed, whole=True)
        order = torch.randperm(99, generator=torch.Generator().manual_seed(other))
        moved = maps.flatten(1)[:, order].view_as(maps)
        tops, ties = marks(maps, form)
        assert torch.equal(marks(moved, form)[0], tops.flatten(2)[..., order].view_as(tops))
        assert torch.equal(marks(moved, form)[1], ties)

    @pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
    @each_strict
    def test_of_a_constant_map_no_pixel(self, form, value):
        tops, ties = marks(torch.full((1, 8, 10), value), form, [99, *LEVELS])
        assert not tops.any()
        assert ties.all()

    def test_of_edges_the_edges_alone(self):
        """A map of a few ones had a band of zeros at its top beside them, the image's first rows."""
        maps = torch.zeros(1, 10, 10)
        maps[0, 5, 2:7] = 1
        tops, ties = marks(maps, "strict", [50, 10, 5, 4])
        assert torch.equal(tops[0, :3], (maps > 0).expand(3, -1, -1))
        assert not tops[0, 3].any()
        assert ties[0].tolist() == [True, True, False, True]

    def test_equals_at_the_edge_are_left_out_together(self):
        maps = torch.tensor([[[1.0, 5, 1, 3], [1, 0, 1, -9]]])
        tops, ties = marks(maps, "strict", [75, 50, 25])
        assert tops[0].int().tolist() == [
            [[1, 1, 1, 1], [1, 0, 1, 0]],
            [[0, 1, 0, 1], [0, 0, 0, 0]],
            [[0, 1, 0, 1], [0, 0, 0, 0]],
        ]
        # Equals that are all in, or all out, are no tie at the edge.
        assert ties[0].tolist() == [False, True, False]

    def test_zeros_of_either_sign_are_equal(self):
        tops, ties = marks(torch.tensor([[[-0.0, 0.0, -1, 0.0]]]), "strict", [50, 75])
        assert not tops[0, 0].any()
        assert tops[0, 1, 0].tolist() == [True, True, False, True]
        assert ties[0].tolist() == [True, False]

    @each_strict
    @random
    @given(st.integers(0, 2**32), st.booleans())
    def test_levels_are_nested(self, form, seed, whole):
        tops, _ = marks(drawn(seed, whole=whole), form, list(range(99, 0, -7)))
        assert not (tops[:, 1:] & ~tops[:, :-1]).any()

    @random
    @given(st.integers(0, 2**32), st.integers(1, 1000), st.integers(-1000, 1000))
    def test_scale_and_shift_change_nothing(self, seed, scale, shift):
        # Of whole numbers, so that equals stay equal.
        maps = drawn(seed, whole=True)
        for one, other in zip(marks(maps, "strict"), marks(scale * maps + shift, "strict"), strict=True):
            assert torch.equal(one, other)

    def test_sign_counts(self):
        maps = drawn(0)
        assert not torch.equal(marks(maps, "strict")[0], marks(maps.abs(), "strict")[0])

    def test_rectified_negative_scores_are_equals(self):
        maps = torch.tensor([[[-9.0, 4, -1, -3], [-1, 2, 7, -2]]])
        tops, ties = marks(maps, "strict_rectified", [50, 25])
        assert tops[0].int().tolist() == [[[0, 1, 0, 0], [0, 1, 1, 0]], [[0, 1, 0, 0], [0, 0, 1, 0]]]
        assert ties[0].tolist() == [True, False]
        assert marks(maps, "strict", [50])[0][0, 0].int().tolist() == [[0, 1, 0, 0], [0, 1, 1, 0]]
        for positive in (drawn(1).abs(), drawn(2, whole=True).abs()):
            assert torch.equal(marks(positive, "strict")[0], marks(positive, "strict_rectified")[0])


class TestAuthors:
    @random
    @given(
        st.integers(0, 2**32),
        st.booleans(),
        st.integers(2, 12),
        st.integers(2, 12),
        st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True),
        st.sampled_from([0.0, 1.0, 0.3, 2.5, -0.7, 1e-3]),
    )
    def test_the_published_code_in_numpy(self, seed, whole, height, width, levels, scale):
        maps = drawn(seed, height=height, width=width, whole=whole)
        scales = torch.tensor([scale, 1.5, 0.0])
        tops, ties = marks(maps, "authors", levels, scales)
        for row, values in enumerate(maps.numpy()):
            for place, level in enumerate(levels):
                expected = published(values, scales[row].numpy(), level)
                np.testing.assert_array_equal(tops[row, place], expected)
                assert ties[row, place] == (expected.sum() < level * values.size // 100)

    @random
    @given(st.integers(0, 2**32), st.integers(2, 20), st.integers(2, 20))
    def test_the_scale_is_a_quantile_of_the_signed_map(self, seed, height, width):
        maps = drawn(seed, height=height, width=width)
        expected = [np.percentile(values, 99.5) for values in maps.numpy()]
        np.testing.assert_allclose(scale_of(maps), expected, rtol=1e-6, atol=1e-7)

    def test_the_scale_of_nothing(self):
        assert scale_of(torch.zeros(0, 4, 5)).shape == (0,)
        tops, ties = marks(torch.zeros(0, 4, 5), "authors")
        assert tops.shape == (0, 3, 4, 5)
        assert ties.shape == (0, 3)

    def test_negative_evidence_is_evidence(self):
        maps = drawn(3, height=10, width=10)
        wide = torch.full((3,), 100.0)  # nothing is clipped
        assert torch.equal(marks(maps, "authors", scales=wide)[0], marks(-maps, "authors", scales=wide)[0])
        assert torch.equal(marks(maps, "authors", scales=wide)[0], marks(maps.abs(), "strict")[0])

    def test_a_scale_of_exactly_0_divides_nothing(self):
        maps = drawn(4, height=10, width=10)
        for zero in (0.0, -0.0):
            by_zero, by_one = (marks(maps, "authors", scales=torch.full((3,), by)) for by in (zero, 1.0))
            assert torch.equal(by_zero[0], by_one[0])
            assert by_zero[0].any()

    def test_the_sign_of_the_scale_is_lost(self):
        maps = drawn(5)
        assert torch.equal(
            marks(maps, "authors", scales=torch.full((3,), -0.8))[0],
            marks(maps, "authors", scales=torch.full((3,), 0.8))[0],
        )

    def test_saturated_maps_have_no_top(self):
        # A third of the map is beyond the scale, so that all of it is at the threshold of 30% and of 10%.
        maps = torch.linspace(0.1, 3, 100).view(1, 10, 10)
        tops, ties = marks(maps, "authors", scales=torch.tensor([2.0]))
        assert tops.sum(dim=(2, 3)).tolist() == [[50, 0, 0]]
        assert ties.tolist() == [[False, True, True]]

    def test_of_a_map_of_zeros_only_what_is_above_them(self):
        maps = torch.zeros(1, 10, 10)
        maps[0, 2, :7] = torch.arange(1, 8)
        tops, ties = marks(maps, "authors", [50, 10, 5], torch.tensor([100.0]))
        assert tops.sum(dim=(2, 3)).tolist() == [[7, 7, 5]]
        assert torch.equal(tops[0, 0], maps[0] > 0)
        assert ties.tolist() == [[True, True, False]]

    def test_a_constant_map_has_no_top(self):
        tops, ties = marks(torch.full((1, 8, 10), 0.3), "authors")
        assert not tops.any()
        assert ties.all()


@each_form
def test_a_map_is_marked_the_same_in_any_batch(form):
    maps = torch.cat([drawn(0, rows=4), drawn(1, rows=4, whole=True), torch.ones(1, 9, 11), torch.zeros(1, 9, 11)])
    scales = torch.linspace(-1, 2, len(maps))
    together = marks(maps, form, scales=scales)
    for row in range(len(maps)):
        alone = marks(maps[row : row + 1], form, scales=scales[row : row + 1])
        assert all(torch.equal(one[0], all_[row]) for one, all_ in zip(alone, together, strict=True))
    backwards = marks(maps.flip(0), form, scales=scales.flip(0))
    assert all(torch.equal(one.flip(0), all_) for one, all_ in zip(backwards, together, strict=True))


@each_form
def test_maps_are_left_as_they_are(form):
    maps = drawn(6)
    before = maps.clone()
    marks(maps, form)
    assert torch.equal(maps, before)
